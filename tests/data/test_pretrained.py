"""Files of pretrained embeddings: checked before anything is encoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fuxictr_miss import experiment
from fuxictr_miss.data import build_dataset
from fuxictr_miss.errors import InputError

TOKENS = ["i1", "i2", "i3"]


def write(file: Path, **arrays: Any) -> None:
    content = {"key": np.array(TOKENS, "S"), "value": np.ones((3, 4)), **arrays}
    content = {name: array for name, array in content.items() if array is not None}
    if file.suffix == ".npz":
        np.savez(file, **content)
    else:
        with h5py.File(file, "w") as target:
            target.update(content)


def config(params: dict[str, Any], file: Path, **changes: Any) -> dict[str, Any]:
    users, *rest = params["feature_cols"]
    item = {**users, "name": "item_id", "pretrained_emb": str(file), "pretrain_dim": 4, **changes}
    return {**params, "feature_cols": [{**users, "name": ["user_id", "cate_id"]}, item, *rest]}


@pytest.mark.parametrize("ending", ["h5", "npz"])
@pytest.mark.parametrize(
    "keys",
    [np.array(TOKENS, "S"), np.array(TOKENS, h5py.opaque_dtype(np.dtype("U2")))],
    ids=["S", "U"],
)  # fmt: skip
def test_a_table_starts_from_the_vectors_of_a_file(params, tmp_path, ending, keys):
    file = tmp_path / f"v.{ending}"
    value = np.random.default_rng(1).normal(size=(3, 4))
    write(file, value=value, key=keys if ending == "h5" else keys.astype("U2"))
    model, _ = experiment.build(config(params, file))
    table = model.embedding_layer.embedding_layers["item_id"].pretrain_embedding.weight
    folder = Path(params["data_root"]) / "small"
    vocabulary = json.loads((folder / "feature_vocab.json").read_text())["item_id"]
    ids = [vocabulary[token] for token in TOKENS]
    assert np.allclose(table[ids].detach().numpy(), value, atol=1e-6)


def test_a_user_out_of_the_vocabulary_is_not_the_last_token_of_the_file(params, tmp_path):
    write(tmp_path / "v.npz", value=np.ones((2, 4)), key=np.array(["u1", "nobody"]))
    users, *rest = params["feature_cols"]
    own = {**users, "name": "user_id", "pretrained_emb": str(tmp_path / "v.npz"), "pretrain_dim": 4}
    columns = [own, {**users, "name": ["item_id", "cate_id"]}, *rest]
    model, _ = experiment.build({**params, "feature_cols": columns, "model": "DIN_MISS"})
    folder = Path(params["data_root"]) / "small"
    vocabulary = json.loads((folder / "feature_vocab.json").read_text())["user_id"]
    assert model._self_supervision.unknown_user == vocabulary["__OOV__"] < vocabulary["nobody"]


@pytest.mark.parametrize("ending", ["h5", "npz"])
@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"value": np.ones((3, 5))}, "width 5, but 'item_id' expects 4.*pretrain_dim: 5"),
        ({"value": np.ones((2, 4))}, r"\(3,\), 'value' \(2, 4\)"),
        ({"value": np.ones(3)}, "one vector a token"),
        ({"value": None}, "with 'key' and 'value'"),
        ({"key": None}, "with 'key' and 'value'"),
        ({"value": np.array([[1, 2, np.nan, 4]] * 3)}, "the vector of 'i1' is not finite"),
        ({"value": np.array([[1, 2, 3, np.inf]] * 3)}, "not finite"),
        ({"key": np.array(["i1", "i2", "i1"], "S")}, "holds 'i1' 2 times"),
        ({"key": np.array(["4", "5", "6"], "S")}, "no token in common with 'item_id'.*'4'"),
        ({"key": np.arange(3)}, "no token in common"),
        ({"key": np.array(["é".encode(), b"a", b"b"])}, "ASCII"),
        ({"key": np.array([], "S1"), "value": np.ones((0, 4))}, "no vector"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(params, tmp_path, ending, arrays, match):
    file = tmp_path / f"v.{ending}"
    write(file, **arrays)
    with pytest.raises(InputError, match=match):
        build_dataset(config(params, file))
    assert not (Path(params["data_root"]) / "small").exists()


@pytest.mark.parametrize(
    ("name", "match"),
    [("nowhere.h5", "is not there"), ("v.csv", "must end in"), ("v.h5", "read as")],
)  # fmt: skip
def test_a_file_that_is_missing_or_none_is_refused(params, tmp_path, name, match):
    (tmp_path / "v.h5").write_bytes(b"none")
    with pytest.raises(InputError, match=match):
        build_dataset(config(params, tmp_path / name))
    assert not Path(params["data_root"]).exists()


def test_a_usage_that_fuxictr_does_not_know_is_refused(params, tmp_path):
    file = tmp_path / "v.h5"
    write(file, value=np.ones((3, 4)), key=np.array(TOKENS, "S"))
    with pytest.raises(InputError, match=r"pretrain_usage of .*'average'.*concat, init, sum"):
        build_dataset(config(params, file, pretrain_usage="average"))


def test_without_pretrain_dim_the_width_is_the_models(params, tmp_path):
    file = tmp_path / "v.h5"
    write(file, value=np.ones((3, 6)))
    without = config(params, file)
    del without["feature_cols"][1]["pretrain_dim"]
    with pytest.raises(InputError, match="width 6, but 'item_id' expects 4"):
        build_dataset(without)
    build_dataset({**without, "embedding_dim": 6})


def test_a_file_of_an_inactive_feature_is_not_read(params, tmp_path):
    params["feature_cols"].append(
        {"name": "other", "active": False, "dtype": "str", "type": "categorical",
         "pretrained_emb": "nowhere.h5"}
    )  # fmt: skip
    build_dataset(params)


def test_a_file_where_its_copy_would_lie_is_refused(params, tmp_path):
    folder = Path(params["data_root"]) / "small"
    folder.mkdir(parents=True)
    file = folder / "pretrained_item_id.h5"
    write(file)
    before = file.read_bytes()
    with pytest.raises(InputError, match="is read, and the encoded data"):
        build_dataset(config(params, file))
    assert file.read_bytes() == before


def test_the_log_says_how_many_tokens_have_a_vector(params, tmp_path, caplog):
    caplog.set_level("INFO")
    write(tmp_path / "v.h5")
    build_dataset(config(params, tmp_path / "v.h5"))
    assert "7.5% of the tokens of item_id have a vector" in caplog.text  # 3 of 40
