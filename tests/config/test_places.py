"""Paths of FuxiCTR's configs lead from the folder in which its scripts stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fuxictr_miss.config import load_config
from fuxictr_miss.errors import InputError

KEYS = {
    "model_root": "./checkpoints/", "metrics": ["AUC"], "optimizer": "adam", "epochs": 1, "seed": 1,
    "loss": "binary_crossentropy", "batch_size": 8, "verbose": 0, "model": "DIN",
    "dataset_id": "tiny",
}  # fmt: skip
DATA = {
    "data_root": "../../data/",
    "data_format": "csv",
    "train_data": "../../data/tiny/train.csv",
    "valid_data": "../../data/tiny/valid.csv",
    "test_data": "../../data/tiny/test.csv",
}


def zoo(folder: Path, data: dict = DATA, splits: tuple[str, ...] = ("train", "valid")) -> Path:
    """<folder>/zoo/DIN/config and <folder>/data/tiny, as FuxiCTR has them."""
    config = folder / "zoo" / "DIN" / "config"
    config.mkdir(parents=True)
    (config / "model_config.yaml").write_text(yaml.safe_dump({"DIN_test": KEYS}))
    (config / "dataset_config.yaml").write_text(yaml.safe_dump({"tiny": data}))
    put(folder / "data" / "tiny", splits)
    return config


def put(folder: Path, splits: tuple[str, ...] = ("train",)) -> None:
    folder.mkdir(parents=True)
    for split in splits:
        (folder / f"{split}.csv").touch()


def test_data_is_found_from_the_folder_of_the_model(tmp_path, elsewhere):
    params = load_config(str(zoo(tmp_path)), "DIN_test").params
    assert params["train_data"] == str(tmp_path / "data" / "tiny" / "train.csv")
    assert params["valid_data"] == str(tmp_path / "data" / "tiny" / "valid.csv")
    assert params["data_root"] == str(tmp_path / "data")
    assert params["test_data"] == DATA["test_data"]  # is nowhere
    assert params["model_root"] == KEYS["model_root"]  # what is written stays with the user


def test_the_working_folder_comes_first(tmp_path, elsewhere):
    data = {**DATA, "train_data": "../../own/train.csv"}
    put(tmp_path / "some" / "own")
    put(tmp_path / "x" / "own")
    assert load_config(str(zoo(tmp_path / "x", data)), "DIN_test").params.items() >= data.items()


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_config_may_lie_in_the_starting_folder_or_one_or_two_below(tmp_path, elsewhere, levels):
    """FuxiCTR's models have config/, its demo config/example1_config/."""
    config = zoo(tmp_path / "a" / "b" / "c")
    begin = (config, *config.parents)[levels]
    put(begin / "mine")
    dataset = {"tiny": {**DATA, "train_data": "mine/train.csv"}}
    (config / "dataset_config.yaml").write_text(yaml.safe_dump(dataset))
    found = load_config(str(config), "DIN_test")
    assert found.train_data == str(begin / "mine" / "train.csv")


def test_two_places_that_both_have_the_data_are_named(tmp_path, elsewhere):
    config = zoo(tmp_path)
    put(tmp_path / "zoo" / "data" / "tiny")
    with pytest.raises(InputError, match=r"data of tiny is in .*zoo/DIN/config and in .*zoo/DIN:"):
        load_config(str(config), "DIN_test")


def test_data_that_is_nowhere_leaves_the_paths_as_they_are(tmp_path, elsewhere):
    config = zoo(tmp_path, splits=())
    assert load_config(str(config), "DIN_test").train_data == DATA["train_data"]


def test_absolute_paths_stay(tmp_path, elsewhere):
    put(tmp_path / "own")
    data = {**DATA, "train_data": str(tmp_path / "own" / "train.csv")}
    config = load_config(str(zoo(tmp_path, data)), "DIN_test")
    assert config.train_data == data["train_data"]
    assert config.data_root == DATA["data_root"]


def test_a_pattern_and_a_folder_of_encoded_data_lead_there_too(tmp_path, elsewhere):
    pattern = {**DATA, "train_data": "../../data/tiny/tra*.csv"}
    assert load_config(str(zoo(tmp_path / "x", pattern)), "DIN_test").train_data == str(
        tmp_path / "x" / "data" / "tiny" / "tra*.csv"
    )
    config = zoo(tmp_path / "y", splits=())
    (tmp_path / "y" / "data" / "tiny" / "feature_map.json").touch()
    assert load_config(str(config), "DIN_test").data_root == str(tmp_path / "y" / "data")


def test_files_of_features_come_along_if_they_are_there(tmp_path, elsewhere):
    columns = [
        {"name": "a", "pretrained_emb": "../../data/tiny/a.h5"},
        {"name": "b", "pretrained_emb": "b.h5"},
        {"name": "c"},
    ]
    data = {**DATA, "feature_cols": columns, "feature_processor": "../../data/tiny/p.py:Mine"}
    config = zoo(tmp_path, data)
    for name in ("a.h5", "p.py"):
        (tmp_path / "data" / "tiny" / name).touch()
    found = load_config(str(config), "DIN_test")
    there = str(tmp_path / "data" / "tiny")
    assert [each.get("pretrained_emb") for each in found.feature_cols] == [
        f"{there}/a.h5", "b.h5", None,
    ]  # fmt: skip
    assert found.feature_processor == f"{there}/p.py:Mine"
