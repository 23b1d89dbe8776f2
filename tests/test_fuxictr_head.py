"""FuxiCTR's repository in the place of its package; FUXICTR_HEAD says where a checkout of it is.

    pip install --no-deps keras_preprocessing six
    FUXICTR_HEAD=../FuxiCTR python -m pytest -m slow tests/test_fuxictr_head.py

docs/fuxictr_versions.md has the table of what works on which.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]

# Build, train, evaluate, and give the weights back to plain classes; prints what must be the same.
SCRIPT = """
import hashlib, json, sys
from pathlib import Path
import fuxictr, torch
from fuxictr_miss.experiment import build, load_trained, run

params, zoo = json.loads(sys.argv[1]), sys.argv[2]
torch.use_deterministic_algorithms(True)
result = {}
for name in ("DIN", "DIN_MISS"):
    options = {**params, "model": name, "model_id": name}
    metrics = run({**options, "ssl_pretrain_epochs": 3})
    result[name] = {k: v for k, v in metrics.items() if k.endswith(("_AUC", "_gAUC", "_logloss"))}
_, loaders = build(options)
backbone = load_trained(options).to_backbone()
expected = backbone.predict(loaders["test"])
for place in (None, zoo):
    plain, _ = build({**options, "model": "DIN", "model_zoo_path": place})
    plain.load_state_dict(backbone.state_dict(), strict=True)
    assert abs(plain.predict(loaders["test"]) - expected).max() < 1e-6
encoded = Path(params["data_root"]) / params["dataset_id"]
files = sorted([*encoded.glob("*.parquet"), *encoded.glob("*.json")])
result["digests"] = {
    file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in files
    if file.name != "build.json"
}
print(json.dumps({"fuxictr": fuxictr.__file__, **result}))
"""

OWN = """
import polars as pl
from fuxictr.preprocess import FeatureProcessor

class Mine(FeatureProcessor):
    def halves(self, column):
        return pl.col(column).cast(pl.Float64) / 2
"""


@pytest.fixture
def head() -> Path:
    if not os.environ.get("FUXICTR_HEAD"):
        pytest.skip("set FUXICTR_HEAD to a checkout of FuxiCTR")
    pytest.importorskip("keras_preprocessing", reason="FuxiCTR's repository imports it")
    return Path(os.environ["FUXICTR_HEAD"]).resolve()


def python(code: str, *arguments: str, first: list[Path]) -> subprocess.CompletedProcess[str]:
    """Run a script with `first` at the front of the path."""
    path = os.pathsep.join(filter(None, [*map(str, first), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def run(params: dict[str, Any], head: Path, first: list[Path]) -> dict[str, Any]:
    """What the script prints with `first` at the front of the path."""
    done = python(SCRIPT, json.dumps(params), str(head / "model_zoo"), first=first)
    assert done.returncode == 0, done.stderr
    assert "PerformanceWarning" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_both_encode_train_and_score_to_the_same_digits(params, splits, tmp_path, head):
    """Also with what FuxiCTR's two processors do differently: meta and numeric columns, ints, and
    what a function returns that is not of the column's dtype.
    """
    (tmp_path / "own.py").write_text(OWN)
    params["feature_processor"] = f"{tmp_path / 'own.py'}:Mine"
    for split in ("train", "valid", "test"):
        length = pl.col("item_history").str.split("^").list.len()
        rows = pl.read_parquet(splits / f"{split}.parquet").with_columns(
            user=pl.col("user_id"), behaviors=length, price=(length * 1.7).sin()
        )
        rows.write_parquet(tmp_path / f"{split}.parquet")
        params[f"{split}_data"] = str(tmp_path / f"{split}.parquet")
    params["feature_cols"] += [
        {"name": "user", "active": True, "dtype": "str", "type": "meta"},
        {"name": "behaviors", "active": True, "dtype": "int", "type": "categorical"},
        {"name": "price", "active": True, "dtype": "float", "type": "numeric",
         "normalizer": "MinMaxScaler"},
        {"name": "halved", "active": True, "dtype": "float", "type": "categorical",
         "preprocess": "halves(behaviors)"},
    ]  # fmt: skip
    params.update(group_id="user", metrics=["gAUC", "AUC", "logloss"], min_categr_count=2)
    results = []
    for place, first in (("package", []), ("repository", [head])):
        folders = {key: str(tmp_path / place / key) for key in ("data_root", "model_root")}
        results.append(run({**params, **folders}, head, first))
    package, repository = results
    assert Path(repository.pop("fuxictr")).is_relative_to(head)
    assert not Path(package.pop("fuxictr")).is_relative_to(head)
    assert len(package["digests"]) == 5  # three splits, the feature map and the vocabulary
    assert repository == package
    assert repository["DIN_MISS"]["test_AUC"] > 0.5


def test_a_pretrained_table_in_parquet_is_refused_in_one_sentence(params, tmp_path, head):
    """The repository's reader of it fails for a missing import."""
    file = tmp_path / "items.parquet"
    pl.DataFrame({"key": ["1"], "value": [[0.1] * 4]}).write_parquet(file)
    params["feature_cols"][0]["name"] = ["user_id", "cate_id"]
    params["feature_cols"].insert(
        0, {"name": "item_id", "active": True, "dtype": "str", "type": "categorical",
            "pretrained_emb": str(file), "pretrain_dim": 4},
    )  # fmt: skip
    code = "import json, sys; from fuxictr_miss.data import build_dataset; "
    code += "build_dataset(json.loads(sys.argv[1]))"
    done = python(code, json.dumps(params), first=[head])
    words = f"Feature 'item_id': pretrained_emb must end in .h5, .npz; got '{file}'."
    assert f"InputError: {words}" in done.stderr


def test_fuxictrs_own_demo_runs_beside_this_package(head, tmp_path):
    """It appends its checkout to the path, where our model_zoo comes first."""
    for folder in ("data", "demo", "model_zoo"):
        shutil.copytree(head / folder, tmp_path / folder)
    path = os.pathsep.join([str(ROOT), str(head)])
    subprocess.run(
        [sys.executable, "example6_DIN_with_sequence_feature.py"],
        cwd=tmp_path / "demo",
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
