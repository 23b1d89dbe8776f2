"""examples/fuxictr_zoo/MISS in the model_zoo of FuxiCTR, run by FuxiCTR's own command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "examples" / "fuxictr_zoo"
IDS = {"userid": 26, "adgroup_id": 96, "pid": 4, "cate_id": 49}  # of FuxiCTR's tiny_seq


@pytest.fixture
def model_zoo(tmp_path: Path) -> Path:
    """`model_zoo/MISS` beside `data/tiny_seq` in the form of FuxiCTR's."""
    features = [
        {name: {"source": "", "type": "categorical", "padding_idx": 0, "vocab_size": size}}
        for name, size in IDS.items()
    ]
    sequence = {"source": "", "type": "sequence", "share_embedding": "adgroup_id",
                "padding_idx": 0, "vocab_size": 96, "max_len": 5}  # fmt: skip
    tiny = tmp_path / "data" / "tiny_seq"
    tiny.mkdir(parents=True)
    content = {
        "dataset_id": "tiny_seq", "num_fields": 5, "total_features": 175, "input_length": 9,
        "labels": ["clk"], "features": [*features, {"click_sequence": sequence}],
    }  # fmt: skip
    (tiny / "feature_map.json").write_text(json.dumps(content))
    rng = np.random.default_rng(3)
    for split in ("train", "valid", "test"):
        columns = {name: rng.integers(1, size, 100) for name, size in IDS.items()}
        clicks = rng.integers(1, 96, (100, 5)) * (np.arange(5) < rng.integers(0, 6, (100, 1)))
        np.savez(tiny / split, click_sequence=clicks.astype(np.int32), **columns,
                 clk=(np.arange(100) % 4 == 0).astype(float))  # fmt: skip
    shutil.copytree(ZOO, tmp_path / "model_zoo", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "model_zoo"


def run(
    model_zoo: Path, expid: str, config: str = "config", first: Path | None = None
) -> tuple[int, str]:
    """FuxiCTR's command, in a process that has `first` at the front of its path."""
    path = map(str, filter(None, [first, ROOT, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "run_expid.py", "--config", config, "--expid", expid, "--gpu", "-1"],
        cwd=model_zoo / "MISS",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout


def test_the_folder_runs_by_fuxictrs_command_and_writes_its_row_of_results(model_zoo):
    code, printed = run(model_zoo, "MISS_test")
    assert code == 0, printed
    assert "Learns from the behavior click_sequence" in printed
    row = (model_zoo / "MISS" / "config.csv").read_text()
    found = re.search(r"\[exp_id\] MISS_test,.*\[val\] logloss: [\d.]+.*\[test\] logloss: ", row)
    assert found, row


def test_csv_is_encoded_and_pretrained_by_the_recommended_recipe(model_zoo, splits):
    ids = {"active": True, "dtype": "str", "type": "categorical"}
    past = {"active": True, "dtype": "str", "type": "sequence", "max_len": 9,
            "feature_encoder": None}  # fmt: skip
    data = {
        "data_root": "../../data/", "data_format": "csv",
        "feature_cols": [
            {"name": ["user_id", "item_id"], **ids},
            {"name": "click_history", "share_embedding": "item_id", **past},
        ],
        "label_col": {"name": "label", "dtype": "float"},
    }  # fmt: skip
    for split in ("train", "valid", "test"):
        rows = pl.read_parquet(splits / f"{split}.parquet")
        file = model_zoo.parent / "data" / f"{split}.csv"
        rows.rename({"item_history": "click_history"}).write_csv(file)
        data[f"{split}_data"] = f"../../data/{split}.csv"
    template = yaml.safe_load((ZOO / "MISS" / "config" / "model_config.yaml").read_text())
    short = {"dataset_id": "own", "epochs": 2, "ssl_pretrain_epochs": 1}
    template["MISS_own"] = {**template["MISS_default"], **short}
    own = model_zoo / "MISS" / "own"
    own.mkdir()
    (own / "model_config.yaml").write_text(yaml.safe_dump(template))
    (own / "dataset_config.yaml").write_text(yaml.safe_dump({"own": data}))
    code, printed = run(model_zoo, "MISS_own", "own")
    assert code == 0, printed
    assert "pretrain epoch 1" in printed
    assert "[exp_id] MISS_own" in (model_zoo / "MISS" / "own.csv").read_text()


def test_a_model_that_no_folder_has_is_one_sentence(model_zoo):
    file = model_zoo / "MISS" / "config" / "model_config.yaml"
    file.write_text(file.read_text().replace("DIN_MISS", "DIM_MISS"))
    code, printed = run(model_zoo, "MISS_test")
    assert (code, printed.count("Traceback")) == (2, 0), printed
    assert "Unknown model 'DIM_MISS'." in printed


@pytest.mark.slow
@pytest.mark.parametrize("repository", [False, True])
@pytest.mark.parametrize("expid", ["MISS_test", "PNN_MISS_test"])
def test_the_folder_runs_in_a_checkout_with_the_package_and_with_the_repository(
    model_zoo, repository, expid
):
    """On FuxiCTR's data, and with its own DIN and PNN below."""
    if not os.environ.get("FUXICTR_HEAD"):
        pytest.skip("set FUXICTR_HEAD to a checkout of FuxiCTR")
    head = Path(os.environ["FUXICTR_HEAD"]).resolve()
    if repository:
        pytest.importorskip("keras_preprocessing", reason="FuxiCTR's repository imports it")
    shutil.copytree(head / "data", model_zoo.parent / "data", dirs_exist_ok=True)
    shutil.copytree(head / "model_zoo", model_zoo, dirs_exist_ok=True)
    code, printed = run(model_zoo, expid, first=head if repository else None)
    assert code == 0, printed
    row = (model_zoo / "MISS" / "config.csv").read_text()
    assert f"[exp_id] {expid},[dataset_id] tiny_seq" in row
