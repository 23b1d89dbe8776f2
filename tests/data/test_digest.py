"""The digest of encoded data: equal for equal content, whatever its place, and only then."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest

from fuxictr_miss.data import build_dataset, data_digest
from fuxictr_miss.errors import InputError


def home(params: dict[str, Any]) -> Path:
    return Path(params["data_root"]) / params["dataset_id"]


def built(params: dict[str, Any]) -> str:
    build_dataset(params)
    return data_digest(home(params))


def vectors(file: Path, tokens: list[str], seed: int = 1) -> None:
    with h5py.File(file, "w") as content:
        content["key"] = np.array(tokens, "S")
        content["value"] = np.random.default_rng(seed).normal(size=(len(tokens), 4))


def with_vectors(params: dict[str, Any], file: Path) -> dict[str, Any]:
    users, *rest = params["feature_cols"]
    item = {**users, "name": "item_id", "pretrained_emb": str(file), "pretrain_dim": 4}
    return {**params, "feature_cols": [{**users, "name": ["user_id", "cate_id"]}, item, *rest]}


def test_the_digest_depends_on_no_folder_name_or_time(params, splits, tmp_path):
    first = built(params)
    assert len(first) == 16
    copies = shutil.copytree(splits, tmp_path / "copies")
    for split in ("train", "valid", "test"):
        os.utime(copies / f"{split}.parquet", (1, 1))
        params[f"{split}_data"] = str(copies / f"{split}.parquet")
    params.update(dataset_id="other", data_root=str(tmp_path / "elsewhere"))
    assert built(params) == first
    shutil.copytree(home(params), tmp_path / "moved", copy_function=shutil.copyfile)
    assert data_digest(tmp_path / "moved") == first


def test_the_digest_of_csv_and_parquet_splits_of_equal_rows_is_one(params, splits, tmp_path):
    first = built(params)
    for split in ("train", "valid", "test"):
        pl.read_parquet(splits / f"{split}.parquet").write_csv(tmp_path / f"{split}.csv")
        params[f"{split}_data"] = str(tmp_path / f"{split}.csv")
    assert built({**params, "data_format": "csv", "dataset_id": "csv"}) == first


@pytest.mark.parametrize("change", ["label", "item", "order", "token", "split", "max_len", "scope"])
def test_the_digest_differs_when_anything_differs(params, splits, tmp_path, change):
    first = built(params)
    copies = shutil.copytree(splits, tmp_path / "copies")
    rows = pl.read_parquet(copies / "test.parquet")
    if change == "label":
        rows[0, "label"] = 1 - rows[0, "label"]
    elif change == "item":
        rows[0, "item_id"] = rows[5, "item_id"]
    elif change == "order":
        rows = rows.reverse()
    elif change == "token":
        rows = rows.with_columns(pl.col("user_id").replace("u3", "user 3"))
    rows.write_parquet(copies / "test.parquet")
    params["test_data"] = None if change == "split" else str(copies / "test.parquet")
    if change == "max_len":
        for column in params["feature_cols"]:
            if "max_len" in column:
                column["max_len"] = 8
    if change == "scope":
        params["vocab_scope"] = "train"
    assert built(params) != first


def test_the_digest_is_computed_alike_for_data_without_a_stamp(params):
    """FuxiCTR writes none, and lists of any length instead of fixed ones."""
    first = built(params)
    (home(params) / "build.json").unlink()
    assert data_digest(home(params)) == first
    for split in ("train", "valid", "test"):
        file = home(params) / f"{split}.parquet"
        rows = pl.read_parquet(file)
        listed = [pl.col(name).arr.to_list() for name in ("item_history", "cate_history")]
        rows.with_columns(listed).to_pandas().to_parquet(file)
    assert data_digest(home(params)) == first
    (home(params) / "train").mkdir()
    rows = pl.read_parquet(home(params) / "train.parquet")
    for part in range(2):
        rows[part * 90 : part * 90 + 90].write_parquet(home(params) / f"train/part-{part}.parquet")
    (home(params) / "train.parquet").unlink()
    assert data_digest(home(params)) == first
    shutil.rmtree(home(params) / "train")
    assert data_digest(home(params)) != first


@pytest.mark.parametrize("name", ["train.parquet", "feature_vocab.json", "feature_map.json"])
def test_a_stamp_does_not_hide_that_a_file_was_changed(params, name):
    first = built(params)
    file = home(params) / name
    if name == "train.parquet":
        pl.read_parquet(file).reverse().write_parquet(file)
    else:
        file.write_text(
            file.read_text().replace('"i3"', '"x3"').replace('"max_len": 9', '"max_len": 8')
        )
    assert data_digest(home(params)) != first


def test_data_of_arrays_has_a_digest(tmp_path):
    (tmp_path / "feature_map.json").write_text(json.dumps({"dataset_id": "a", "features": []}))
    np.savez(tmp_path / "train.npz", item=np.arange(3))
    first = data_digest(tmp_path)
    np.savez(tmp_path / "train.npz", item=np.arange(4))
    assert data_digest(tmp_path) != first


def test_a_folder_without_encoded_data_is_named(tmp_path):
    with pytest.raises(InputError, match=r"feature_map.json cannot be read"):
        data_digest(tmp_path)


def test_the_content_of_the_stamp_is_that_of_the_inputs_alone(params, tmp_path):
    """An export finds the raw rows of its sample by it."""
    build_dataset(params)
    before = json.loads((home(params) / "build.json").read_text())["content"]
    assert before.keys() == {"train", "valid", "test"}
    vectors(tmp_path / "v.h5", ["i1", "i2"])
    build_dataset(with_vectors(params, tmp_path / "v.h5"))
    assert json.loads((home(params) / "build.json").read_text())["content"] == before


def test_another_content_of_an_embedding_file_is_another_digest_and_built_again(params, tmp_path):
    file = tmp_path / "v.h5"
    vectors(file, ["i1", "i2"])
    params = with_vectors(params, file)
    first = built(params)
    assert built(params) == first
    vectors(file, ["i1", "i2"], seed=2)
    second = built(params)
    assert second != first
    assert (home(params) / "pretrained_item_id.h5").read_bytes() == file.read_bytes()
    vectors(file, ["i1", "i2"])
    assert built(params) == first
