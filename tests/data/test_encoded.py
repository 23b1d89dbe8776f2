"""Data that FuxiCTR encoded: used as it is, checked against its feature map, never written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest

from fuxictr_miss import experiment
from fuxictr_miss.data import build_dataset
from fuxictr_miss.errors import InputError
from fuxictr_miss.training.checkpoint import data_of

RAW = ("feature_cols", "label_col", "vocab_scope")


def home(params: dict[str, Any]) -> Path:
    return Path(params["data_root"]) / params["dataset_id"]


def arrays(path: Path) -> dict[str, np.ndarray]:
    return {c.name: np.array(c.to_list()) for c in pl.read_parquet(path)}


def write(path: Path, columns: dict[str, np.ndarray]) -> None:
    if path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file.create_dataset(name, data=values)
    else:
        pl.DataFrame({name: v.tolist() for name, v in columns.items()}).write_parquet(path)


@pytest.fixture
def foreign(params):
    """The folder as FuxiCTR leaves it, and a config in the form of its X_test expids."""
    build_dataset(params)
    for name in ("build.json", "feature_processor.pkl"):
        (home(params) / name).unlink()
    for split in ("train", "valid", "test"):
        params[f"{split}_data"] = str(home(params) / f"{split}.parquet")
    return {key: value for key, value in params.items() if key not in RAW}


def in_format(params: dict[str, Any], ending: str) -> dict[str, Any]:
    """The same data in another format, somewhere else."""
    elsewhere = home(params).parents[1] / ending
    elsewhere.mkdir()
    new = {**params, "data_format": ending}
    for split in ("train", "valid", "test"):
        new[f"{split}_data"] = str(elsewhere / f"{split}.{ending}")
        write(Path(new[f"{split}_data"]), arrays(home(params) / f"{split}.parquet"))
    return new


def content(place: Path) -> dict[str, bytes]:
    return {str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file()}


@pytest.mark.parametrize("ending", ["parquet", "npz", "h5"])
def test_every_format_gives_the_digits_of_the_same_rows_and_nothing_is_written(
    foreign, ending, tmp_path
):
    config = foreign if ending == "parquet" else in_format(foreign, ending)
    before = content(home(foreign))
    results = [
        experiment.run({**each, "epochs": 1, "model_root": str(tmp_path / f"run{place}")})
        for place, each in enumerate((foreign, config))
    ]
    assert results[0]["test_AUC"] == results[1]["test_AUC"]
    assert content(home(foreign)) == before


def test_a_split_that_is_mapped_is_kept_beside_the_checkpoint(foreign):
    before = content(home(foreign))
    given = {**foreign, "epochs": 1, "memory_budget_gb": 0.0}
    assert experiment.run(given)["test_AUC"] == experiment.run({**foreign, "epochs": 1})["test_AUC"]
    assert content(home(foreign)) == before
    kept = sorted(Path(foreign["model_root"], "small").glob("*.columns"))
    assert [file.name for file in kept] == [
        f"DIN_small.{split}.columns" for split in ("test", "train", "valid")
    ]


def test_one_word_pretrains_on_foreign_data(foreign):
    result = experiment.run({
        **foreign, "model": "DIN_MISS", "ssl_recipe": "recommended", "ssl_pretrain_epochs": 1,
        "epochs": 1,
    })  # fmt: skip
    assert 0 < result["test_AUC"] < 1


def test_a_folder_of_parts_is_a_split_in_the_order_of_their_names(foreign):
    rows = arrays(home(foreign) / "train.parquet")
    parts = home(foreign).parent / "parts"
    parts.mkdir()
    for part, cut in enumerate((slice(0, 50), slice(50, None))):
        write(parts / f"part-{part}.npz", {name: values[cut] for name, values in rows.items()})
    config = {**in_format(foreign, "npz"), "train_data": str(parts)}
    _, loaders = experiment.build(config)
    assert loaders["train"].column("user_id").tolist() == rows["user_id"].tolist()


def test_fuxictr_leaves_the_ending_of_npz_away(foreign):
    config = in_format(foreign, "npz")
    config["train_data"] = config["train_data"].removesuffix(".npz")
    assert build_dataset(config)[0] == f"{config['train_data']}.npz"


def test_raw_data_leads_to_what_fuxictr_encoded_of_it(params, foreign, splits, caplog):
    raw = {**params, **{f"{s}_data": str(splits / f"{s}.parquet") for s in ("train", "valid")}}
    before = content(home(params))
    paths = build_dataset({**raw, "test_data": None})
    assert paths == (*(str(home(params) / f"{s}.parquet") for s in ("train", "valid")), None)
    assert content(home(params)) == before
    assert f"{raw['train_data']} is not read, as {home(params)} is encoded already" in caplog.text


def test_raw_data_beside_a_feature_map_of_other_columns_is_refused(params, foreign):
    params["feature_cols"] = params["feature_cols"][:1]
    with pytest.raises(
        InputError, match=r"has the columns user_id.*but feature_cols names user_id"
    ):
        build_dataset(params)


def changed(foreign: dict[str, Any], column: str, values: Any) -> dict[str, Any]:
    rows = arrays(home(foreign) / "train.parquet")
    rows[column] = np.asarray(values(rows[column]))
    write(home(foreign) / "train.npz", rows)
    for split in ("valid", "test"):
        write(home(foreign) / f"{split}.npz", arrays(home(foreign) / f"{split}.parquet"))
    paths = {f"{s}_data": str(home(foreign) / f"{s}.npz") for s in ("train", "valid", "test")}
    return {**foreign, "data_format": "npz", **paths}


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("item_id", lambda v: v + 1000, r"'item_id' holds the id 10\d\d, but .*vocab_size"),
        ("item_id", lambda v: v - 50, "holds the id -"),
        ("item_id", lambda v: v + 0.5, "holds fractions"),
        ("item_id", lambda v: np.stack([v, v], 1), "rows of shape"),
        ("item_history", lambda v: v[:, :4], "rows of shape"),
        ("item_history", lambda v: v + 1000, "holds the id"),
        ("label", lambda v: v + 1, "label 'label' is 2 in a row"),
        ("label", lambda v: v * np.nan, "one finite number a row"),
    ],
)
def test_what_does_not_fit_the_feature_map_is_one_sentence(foreign, column, values, words):
    with pytest.raises(InputError, match=words) as error:
        experiment.build(changed(foreign, column, values))
    assert "train.npz" in str(error.value)


def test_whole_ids_in_floats_are_ids(foreign):
    config = changed(foreign, "item_id", lambda v: v.astype(float))
    _, loaders = experiment.build(config)
    assert not loaders["train"].columns["item_id"].is_floating_point()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(dataset_id="other"), "is of the data set 'other', not 'small'"),
        (lambda m: m.pop("features"), "is no feature map of FuxiCTR 2"),
        (lambda m: m.update(features={"user_id": {}}), "is no feature map of FuxiCTR 2"),
        (lambda m: m["features"][0]["user_id"].pop("vocab_size"), "no vocab_size for 'user_id'"),
        (lambda m: m["features"][0]["user_id"].update(type="text"), "type of 'user_id'"),
        (lambda m: m["features"][3]["item_history"].pop("max_len"), "no max_len"),
        (lambda m: m["features"].append({"hour": {"type": "numeric"}}), "no column 'hour'"),
    ],
)
def test_a_feature_map_that_cannot_be_used_is_one_sentence(foreign, change, words):
    file = home(foreign) / "feature_map.json"
    feature_map = json.loads(file.read_text())
    change(feature_map)
    file.write_text(json.dumps(feature_map))
    with pytest.raises(InputError, match=words):
        experiment.build(foreign)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_feature_map_that_is_no_json_is_one_sentence(foreign, text):
    (home(foreign) / "feature_map.json").write_text(text)
    with pytest.raises(InputError, match=r"feature_map\.json"):
        experiment.build(foreign)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"group_id": "userid"}, "group_id.*'userid'.*user_id"),
        ({"use_features": ["item"]}, "use_features.*'item'"),
        ({"feature_specs": [{"name": "hour", "source": "x"}]}, "feature_specs.*'hour'"),
        ({"train_data": None}, "names no train_data"),
        ({"train_data": "nowhere/train.parquet"}, "train split is not there: nowhere"),
        ({"test_data": "nowhere/test.parquet"}, "test split is not there: nowhere"),
        ({"dataset_id": "none", "data_format": "npz"}, "none/feature_map.json is not there"),
        ({"dataset_id": "none"}, "parquet without feature_cols is data that is encoded already"),
        ({"dataset_id": "none", "data_format": "csv"}, "names no feature_cols"),
    ],
)
def test_a_config_that_names_what_is_not_there_is_one_sentence(foreign, keys, words):
    with pytest.raises(InputError, match=words):
        experiment.build({**foreign, **keys})


def test_our_own_folder_is_data_like_any_other_without_feature_cols(params):
    paths = build_dataset(params)
    before = content(home(params))
    config = {key: value for key, value in params.items() if key not in RAW}
    config.update(zip(("train_data", "valid_data", "test_data"), paths, strict=True))
    assert build_dataset(config) == paths
    assert content(home(params)) == before


def test_a_checkpoint_belongs_to_the_files_that_the_config_names(foreign):
    """Wherever they are: the folder of the feature map need not change."""
    config = in_format(foreign, "npz")
    first = data_of(experiment.build(config)[0])
    assert data_of(experiment.build(config)[0]) == first
    rows = arrays(home(foreign) / "train.parquet")
    write(Path(config["train_data"]), {name: values[::-1] for name, values in rows.items()})
    assert data_of(experiment.build(config)[0]) != first
