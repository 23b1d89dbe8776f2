"""Config folders of FuxiCTR's run as they are, and with one more word, from any working folder."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from fuxictr_miss.commands import train
from fuxictr_miss.data import build_dataset
from fuxictr_miss.errors import InputError

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "upstream_configs.py"
OF_THE_DATA = ("data_root", "data_format", "train_data", "valid_data", "test_data")


@pytest.fixture
def checkout(params, tmp_path):
    """A model's folder beside encoded data, as FuxiCTR's repository has them."""
    root = tmp_path / "FuxiCTR"
    data = root / "data" / "small"
    config = root / "model_zoo" / "DIN" / "config"
    for folder in (data, config, root / "demo"):
        folder.mkdir(parents=True)
    for path in build_dataset(params):
        columns = {column.name: np.array(column.to_list()) for column in pl.read_parquet(path)}
        np.savez(data / Path(path).with_suffix(".npz").name, **columns)
    feature_map = Path(path).with_name("feature_map.json").read_text(encoding="utf-8")
    (data / "feature_map.json").write_text(feature_map, encoding="utf-8")
    paths = {f"{s}_data": f"../../data/small/{s}.npz" for s in ("train", "valid", "test")}
    datasets = {"small": {"data_root": "../../data/", "data_format": "npz", **paths}}
    left_out = (*OF_THE_DATA, "feature_cols", "label_col", "model_id", "gpu")
    model = {k: v for k, v in params.items() if k not in left_out} | {
        "model_root": "./checkpoints/",
        "epochs": 1,
    }
    models = {"DIN_test": model, "DIN_test2": {**model, "dataset_id": "small2"}, "DIN_default": {}}
    (config / "dataset_config.yaml").write_text(yaml.safe_dump(datasets), encoding="utf-8")
    (config / "model_config.yaml").write_text(yaml.safe_dump(models), encoding="utf-8")
    return root


def run(checkout: Path, *options: str) -> str:
    """Run DIN_test by the command; its log."""
    command = ["fuxictr-miss", "--config", str(checkout / "model_zoo/DIN/config")]
    command += ["--zoo", str(checkout), "--expid", "DIN_test"]
    sys.argv = command + [word for option in options for word in ("--set", option)]
    train.main()
    [log] = Path("checkpoints/small").glob("*.log")
    return log.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.usefixtures("elsewhere")
def test_the_log_says_where_the_data_is_and_that_it_is_used_as_it_is(checkout):
    log = run(checkout)
    assert f"Data: {checkout / 'data' / 'small' / 'train.npz'}" in log
    assert f"{checkout / 'data' / 'small'} is used as it is" in log
    assert "Recipe" not in log


@pytest.mark.usefixtures("elsewhere")
def test_one_word_in_set_brings_the_recipe_and_every_key_of_the_method_can_be_set(checkout):
    log = run(
        checkout, "model=DIN_MISS", "ssl_pretrain_epochs=1", "ssl_user=user_id",
        "miss_extractor=lstm", "miss_distance=gaussian",
    )  # fmt: skip
    [line] = [line for line in log.splitlines() if "Recipe" in line]
    assert "Recipe recommended: ssl_training pretrain" in line
    assert "changed: ssl_pretrain_epochs 1" in line


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("miss_extracter=lstm", "miss_extracter.*miss_extractor"),
        ("ssl_trainig=pretrain", "ssl_trainig.*ssl_training"),
        ("din_use_softmx=True", "din_use_softmx"),
    ],
)
def test_a_key_that_the_method_does_not_have_is_refused_with_the_closest(checkout, option, words):
    with pytest.raises(InputError, match=words):
        run(checkout, "model=DIN_MISS", option)


@pytest.mark.usefixtures("elsewhere")
def test_the_log_names_the_keys_that_nobody_reads(checkout):
    """FuxiCTR drops them without a word, as those of its version 1 that BARS still has."""
    config = checkout / "model_zoo/DIN/config/model_config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("DIN_test:", "DIN_test:\n  crossing_layers: 3"), "utf-8")
    assert "DIN does not read crossing_layers, hidden_units." in run(checkout)


def table(checkout: Path, monkeypatch: Any, capsys: Any) -> dict[str, list[str]]:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(checkout)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:3] in ("| m", "| d")]
    return {f"{place} {expid}": cells for place, expid, *cells in map(cells_of, lines)}


def cells_of(line: str) -> list[str]:
    return line.strip("| ").split(" | ")


def test_the_table_has_every_test_of_a_checkout_and_leaves_it_as_it_is(
    checkout, monkeypatch, capsys
):
    def content() -> dict[Path, bytes]:
        return {each: each.read_bytes() for each in checkout.rglob("*") if each.is_file()}

    before, start = content(), os.getcwd()
    broken = "no: broken upstream: its dataset_config has no small2"
    assert table(checkout, monkeypatch, capsys) == {
        "model_zoo/DIN/config DIN_test": ["yes", "yes"],
        "model_zoo/DIN/config DIN_test2": [broken, broken],
    }
    assert content() == before
    assert os.getcwd() == start


@pytest.mark.slow
def test_fuxictrs_own_configs_run_as_the_page_says(monkeypatch, capsys):
    zoo = os.environ.get("FUXICTR_ZOO")
    if zoo is None:
        pytest.skip("set FUXICTR_ZOO to the model_zoo folder of a checkout of FuxiCTR")
    if not (Path(zoo).parent / "data").is_dir():
        pytest.skip("FUXICTR_ZOO is in no whole checkout: its data/ is not there")
    page = SCRIPT.parents[1] / "docs" / "fuxictr_configs.md"
    lines = [x for x in page.read_text(encoding="utf-8").splitlines() if x[:3] in ("| m", "| d")]
    said = {f"{place} {expid}": cells for place, expid, *cells in map(cells_of, lines)}
    assert table(Path(zoo).parent, monkeypatch, capsys) == said
    assert len(said) == 71
    tried = [cells for cells in said.values() if "upstream" not in cells[0]]
    assert all(plain == "yes" for plain, _ in tried)
    assert {word for _, word in tried} == {"yes", "no: no sequence in the data"}
