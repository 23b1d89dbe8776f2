"""From splits to what FuxiCTR reads: whole, by its own processor, and only when needed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytest
from fuxictr.features import FeatureMap
from fuxictr.preprocess import FeatureProcessor

from fuxictr_miss.data import build, build_dataset
from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.feature_processor import FROM_PACKAGE


def encoded(params: dict[str, Any]) -> Path:
    return Path(params["data_root"]) / params["dataset_id"]


def tokens(params: dict[str, Any], feature: str) -> dict[str, int]:
    vocabulary = json.loads((encoded(params) / "feature_vocab.json").read_text())
    return vocabulary[feature]


def test_fuxictr_opens_what_was_built(params):
    build_dataset(params)
    feature_map = FeatureMap("small", str(encoded(params)))
    feature_map.load(str(encoded(params) / "feature_map.json"), params)
    assert list(feature_map.features) == [
        "user_id", "item_id", "cate_id", "item_history", "cate_history"
    ]  # fmt: skip
    assert feature_map.features["item_history"]["max_len"] == 9
    processor = FeatureProcessor(**params).load_pickle()
    assert processor.data_dir == str(encoded(params))


def test_every_encoded_row_decodes_to_its_split_with_the_newest_of_its_history(params, splits):
    paths = build_dataset(params)
    for path, name in zip(paths, ("train", "valid", "test"), strict=True):
        raw, rows = pl.read_parquet(splits / f"{name}.parquet"), pl.read_parquet(path)
        assert rows["label"].to_list() == raw["label"].to_list()
        for feature in ("user_id", "item_id", "cate_id", "item_history", "cate_history"):
            back = {number: token for token, number in tokens(params, feature).items()}
            for ids, text in zip(rows[feature].to_list(), raw[feature].to_list(), strict=True):
                if isinstance(ids, int):
                    assert back[ids] == text
                else:
                    assert len(ids) == 9
                    newest = text.split("^")[-9:]
                    assert [back[i] for i in ids if i] == newest


@pytest.mark.skipif(not FROM_PACKAGE, reason="the ids of FuxiCTR's repository are others")
@pytest.mark.parametrize("dtype", ["str", "int"])
def test_ids_are_those_of_fuxictrs_own_processor(params, splits, tmp_path, dtype):
    """From the training split alone, as FuxiCTR has it, and histories that are not cut."""
    columns = [*params["feature_cols"], {"name": "count", "dtype": dtype, "type": "categorical"}]
    columns = [{"active": True, **column, "max_len": 12} for column in columns]
    counts = pl.col("item_history").str.split("^").list.len().alias("count")
    for split in ("train", "valid", "test"):
        rows = pl.read_parquet(splits / f"{split}.parquet").with_columns(counts)
        rows.write_csv(tmp_path / f"{split}.csv")
        params[f"{split}_data"] = str(tmp_path / f"{split}.csv")
    params.update(feature_cols=columns, data_format="csv", vocab_scope="train")
    ours = [pl.read_parquet(path) for path in build_dataset(params)]
    theirs = FeatureProcessor(**{**params, "data_root": str(tmp_path / "theirs")})
    frames = [theirs.preprocess(theirs.read_data(params[f"{s}_data"])) for s in ("train", "test")]
    theirs.fit(frames[0])
    for frame, rows in zip(frames, (ours[0], ours[2]), strict=True):
        expected = theirs.transform({c.name: c.to_numpy() for c in frame.collect()})
        for name in expected:
            assert rows[name].to_list() == np.asarray(expected[name]).tolist()
    places = [tmp_path / place / "small" / "feature_map.json" for place in ("encoded", "theirs")]
    maps = [json.loads(place.read_text()) for place in places]
    assert maps[0] == maps[1]


@pytest.mark.parametrize(("scope", "knows_test_items"), [("all", True), ("train", False)])
def test_vocabulary_covers_all_splits_or_the_training_split(
    params, splits, scope, knows_test_items
):
    params["vocab_scope"] = scope
    build_dataset(params)
    seen = {name: _items(splits / f"{name}.parquet") for name in ("train", "valid", "test")}
    vocabulary = tokens(params, "item_id")
    wanted = set.union(*seen.values()) if knows_test_items else seen["train"]
    assert set(vocabulary) - {"__PAD__", "__OOV__"} == wanted


def _items(path: Path) -> set[str]:
    rows = pl.read_parquet(path)
    history = {token for text in rows["item_history"] for token in text.split("^")}
    return history | set(rows["item_id"])


def test_vocabulary_includes_the_item_table(params, tmp_path):
    """An item that only ever fell out of cut histories still counts as a feature (Table II)."""
    items = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": ["i1", "only_here"], "cate_id": ["c1", "c_new"]}).write_parquet(items)
    params["vocab_data"] = str(items)
    build_dataset(params)
    assert "only_here" in tokens(params, "item_id")
    assert "c_new" in tokens(params, "cate_id")
    assert not {None, "None", "null", ""} & set(tokens(params, "item_history"))


def test_csv_splits_give_the_same_data_as_parquet(params, splits, tmp_path):
    paths = build_dataset(params)
    for name in ("train", "valid", "test"):
        pl.read_parquet(splits / f"{name}.parquet").write_csv(tmp_path / f"{name}.csv")
        params[f"{name}_data"] = str(tmp_path / f"{name}.csv")
    params.update(data_format="csv", dataset_id="small_csv")
    for path, other in zip(paths, build_dataset(params), strict=True):
        assert pl.read_parquet(path).equals(pl.read_parquet(other))


def _time(params: dict[str, Any]) -> int:
    return (encoded(params) / "train.parquet").stat().st_mtime_ns


def test_nothing_is_built_again_for_equal_input(params, splits, tmp_path):
    copies = shutil.copytree(splits, tmp_path / "copy")
    for name in ("train", "valid", "test"):
        params[f"{name}_data"] = str(copies / f"{name}.parquet")
    build_dataset(params)
    built = _time(params)
    os.utime(copies / "train.parquet")  # touched, not changed
    build_dataset({**params, "batch_size": 1, "seed": 9})  # no key that encoding reads
    assert _time(params) == built


def test_up_to_date_data_on_a_disk_that_is_read_only_is_used(params, monkeypatch):
    paths = build_dataset(params)

    def no_lock(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(build, "FileLock", no_lock)
    monkeypatch.setattr(build, "writable", lambda folder: False)
    assert build_dataset(params) == paths


def test_a_full_disk_is_one_sentence_and_leaves_nothing(params, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError("[errno 28] No space left on device")

    monkeypatch.setattr(build.pq.ParquetWriter, "write_batch", full)
    with pytest.raises(InputError, match=r"small cannot be written .*No space left.*data_root"):
        build_dataset(params)
    assert not list(encoded(params).parent.glob("*small*/*"))


@pytest.mark.parametrize("change", ["content", "setting", "columns"])
def test_changed_input_or_settings_build_again(params, splits, tmp_path, change):
    copies = shutil.copytree(splits, tmp_path / "copy")
    params["train_data"] = str(copies / "train.parquet")
    build_dataset(params)
    built = _time(params)
    if change == "content":
        pl.read_parquet(copies / "train.parquet").reverse().write_parquet(copies / "train.parquet")
    elif change == "setting":
        params["vocab_scope"] = "train"
    else:
        params["feature_cols"] = params["feature_cols"][:2]
    build_dataset(params)
    assert _time(params) != built


def test_an_interrupted_build_is_not_mistaken_for_a_finished_one(params, monkeypatch):
    def dies(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build.folder, "commit", dies)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(params)
    assert not encoded(params).exists()
    assert not [p for p in encoded(params).parent.iterdir() if p.name.endswith("building")]
    monkeypatch.undo()
    build_dataset(params)
    assert (encoded(params) / "build.json").exists()


def test_a_missing_split_names_the_command_that_makes_it(params):
    params.update(train_data="nowhere/train.parquet", preprocess_command="python make_it.py")
    with pytest.raises(InputError, match=r"nowhere/train\.parquet.*python make_it\.py"):
        build_dataset(params)


def test_a_missing_column_is_named_with_those_there_are(params):
    params["feature_cols"].append(
        {"name": "price", "active": True, "dtype": "float", "type": "numeric"}
    )
    with pytest.raises(InputError, match=r"no column price.*item_history"):
        build_dataset(params)


def test_one_id_in_two_forms_is_said(params, tmp_path, caplog):
    for split in ("train", "valid", "test"):
        rows = pl.read_parquet(params[f"{split}_data"])
        number, end = pl.col("user_id").str.slice(1), "" if split == "train" else ".0"
        params[f"{split}_data"] = str(tmp_path / f"{split}.parquet")
        rows.with_columns(user_id=number + end).write_parquet(params[f"{split}_data"])
    build_dataset(params)
    (said,) = [r.getMessage() for r in caplog.records if "are two ids" in r.getMessage()]
    assert said.startswith("Column 'user_id' holds ")


@pytest.mark.parametrize("kind", ["categorical", "sequence"])
def test_ids_that_fuxictr_cannot_leave_as_they_are_are_refused(params, kind):
    column = next(column for column in params["feature_cols"] if column["type"] == kind)
    column["remap"] = False
    with pytest.raises(
        InputError, match=r"Feature '(user_id|item_history)': remap: False does not run"
    ):
        build_dataset(params)


def test_an_unknown_vocab_scope_is_refused(params):
    params["vocab_scope"] = "everything"
    with pytest.raises(InputError, match="vocab_scope"):
        build_dataset(params)


def test_building_starts_no_ray(params):
    with mock.patch("ray.init", side_effect=AssertionError):
        build_dataset(params)


SIZES = pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ({"valid_size": 0.25}, (135, 45, None)),
        ({"test_size": 30}, (150, None, 30)),
        ({"valid_size": 20, "test_size": 0.5}, (70, 20, 90)),
    ],
)


def divided(params: dict[str, Any], **keys: Any) -> list[pl.DataFrame | None]:
    """The splits of a data set that names its training rows only, 180 of them."""
    params = {**params, "valid_data": None, "test_data": None, **keys}
    return [None if path is None else pl.read_parquet(path) for path in build_dataset(params)]


@SIZES
def test_splits_are_taken_from_the_end_of_the_training_rows_test_last(params, sizes, counts):
    everything = pl.read_parquet(build_dataset(params)[0])["user_id"].to_list()
    parts = divided(params, **sizes, dataset_id="divided", vocab_scope="all")
    assert tuple(None if part is None else len(part) for part in parts) == counts
    raw = divided(params, dataset_id="whole")[0]
    joined = pl.concat([part for part in parts if part is not None])
    assert len(everything) == 180
    assert joined.equals(raw)


@SIZES
def test_a_random_division_is_a_partition_in_a_fixed_order(params, sizes, counts):
    parts = divided(params, **sizes, dataset_id="random", split_type="random")
    assert tuple(None if part is None else len(part) for part in parts) == counts
    raw = divided(params, dataset_id="whole")[0]
    joined = pl.concat([part for part in parts if part is not None])
    assert not joined.equals(raw)
    assert joined.sort(pl.all()).equals(raw.sort(pl.all()))
    again = divided({**params, "seed": 8}, **sizes, dataset_id="again", split_type="random")
    assert all(a is b or a.equals(b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"valid_size": 180}, "valid_size 180 is 180 of 180 training rows"),
        ({"valid_size": 100, "test_size": 100}, "valid_size 100 is 100 of 80 training rows"),
        ({"valid_size": 0.001}, "valid_size 0.001 is 0 of 180"),
    ],
)
def test_a_division_that_leaves_a_split_empty_is_refused(params, sizes, words):
    with pytest.raises(InputError, match=words):
        divided(params, **sizes)


def test_a_size_beside_the_split_that_it_would_make_is_refused(params):
    with pytest.raises(InputError, match="valid_data names a split that valid_size would take"):
        build_dataset({**params, "valid_size": 0.1})
