"""Embeddings that leave: FuxiCTR reads them as its own `pretrained_emb`, token by token."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import polars as pl
import pytest
import torch
from fuxictr.features import FeatureMap
from fuxictr.preprocess import FeatureProcessor
from fuxictr.pytorch.layers import FeatureEmbedding

from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.export import check_embeddings_path, export_embeddings
from fuxictr_miss.fuxictr_fixes.feature_processor import FROM_PACKAGE

CATEGORICAL = {"active": True, "dtype": "str", "type": "categorical"}


def build(params: dict[str, Any], model: str, **changes: Any) -> Any:
    """A model whose tables are far from their start."""
    built, _ = experiment.build({**params, "model": model, "model_id": model, **changes})
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter)
    return built


def read(file: Path) -> dict[str, list[float]]:
    with h5py.File(file) as content:
        keys = content["key"][:].astype(str)  # as FuxiCTR does
        return dict(zip(keys.tolist(), content["value"][:].tolist(), strict=True))


@pytest.mark.parametrize("name", ["DIN_MISS", "DNN"])
def test_each_table_becomes_one_file_of_tokens_and_vectors(params, tmp_path, name):
    model = build(params, name)
    files = export_embeddings(model, tmp_path / "out" / "mine.h5")
    assert [f.name for f in files] == [f"mine_{n}.h5" for n in ("user_id", "item_id", "cate_id")]
    folder = Path(model.feature_map.data_dir)
    vocabulary = json.loads((folder / "feature_vocab.json").read_text())["item_id"]
    place = "embedding_layer" if name == "DIN_MISS" else "embedding_layer.embedding_layer"
    weight = model.get_submodule(place).embedding_layers["item_id"].weight
    assert read(files[1]) == {
        token: weight[i].tolist()
        for token, i in vocabulary.items()
        if token not in ("__PAD__", "__OOV__")
    }
    assert not list(tmp_path.rglob("*.tmp"))


def started_by_fuxictr(folder: Path, tokens: list[str], file: Path) -> list[list[float]]:
    """FuxiCTR alone, on a data set of its own whose items start from `file`: their vectors."""
    columns = [
        {"name": "user", **CATEGORICAL},  # it cannot load a pretrained table for an only feature
        {
            "name": "item",
            **CATEGORICAL,
            "pretrained_emb": str(file),
            "pretrain_dim": 4,
            "pretrain_usage": "init",
            "freeze_emb": False,
        },
    ]
    label = {"name": "label", "dtype": "float"}
    processor = FeatureProcessor(columns, label, "theirs", str(folder))
    frame = pl.DataFrame({"user": tokens, "item": tokens, "label": [0.0] * len(tokens)})
    processor.fit(processor.preprocess(frame.lazy()))
    feature_map = FeatureMap("theirs", str(folder / "theirs"))
    feature_map.load(str(folder / "theirs" / "feature_map.json"), {"embedding_dim": 4})
    layer = FeatureEmbedding(feature_map, 4, required_feature_columns=["item"])
    rows = {"item": tokens}
    ids = processor.transform(rows if FROM_PACKAGE else pd.DataFrame(rows))["item"]
    return layer({"item": torch.tensor(list(ids))}, flatten_emb=True).tolist()


def test_plain_fuxictr_starts_with_the_same_vectors_for_the_same_tokens(params, tmp_path):
    file = export_embeddings(build(params, "DNN_MISS"), tmp_path / "mine.h5")[1]
    ours = read(file)
    tokens = [*sorted(ours)[::3], "never seen"]  # another data set, in another order
    vectors = started_by_fuxictr(tmp_path, tokens, file)
    assert vectors[:-1] == [ours[token] for token in tokens[:-1]]
    assert max(map(abs, vectors[-1])) < 1e-2  # FuxiCTR's own start, std 1e-4


def test_tokens_beyond_ascii_reach_fuxictr_too(params, tmp_path):
    model = build(params, "DNN")
    path = Path(model.feature_map.data_dir) / "feature_vocab.json"
    vocabulary = json.loads(path.read_text())
    vocabulary["item_id"] = {"__PAD__": 0, "né": 1, "日本": 2, "i": 3, "__OOV__": 4}
    path.write_text(json.dumps(vocabulary))
    file = export_embeddings(model, tmp_path / "mine.h5")[1]
    assert list(read(file)) == ["né", "日本", "i"]
    assert started_by_fuxictr(tmp_path, ["日本"], file) == [read(file)["日本"]]


def test_a_history_with_a_table_of_its_own_gets_a_file_of_its_own(params, tmp_path):
    del params["feature_cols"][1]["share_embedding"]
    files = export_embeddings(build(params, "DNN"), tmp_path / "mine.h5")
    assert "mine_item_history.h5" in {file.name for file in files}
    assert "mine_cate_history.h5" not in {file.name for file in files}


def test_a_run_exports_its_best_weights(params, tmp_path):
    params.update(model="DNN_MISS", epochs=1)
    experiment.run(params, embeddings=tmp_path / "run.h5")
    export_embeddings(experiment.load_trained(params), tmp_path / "later.h5")
    assert read(tmp_path / "run_item_id.h5") == read(tmp_path / "later_item_id.h5")


def test_a_finished_run_exports_without_being_trained_again(params, tmp_path):
    params.update(model="DNN_MISS", epochs=1, ssl_training="pretrain", ssl_pretrain_epochs=1,
                  ssl_label_gradient=0.0, ssl_other_gradient=0.0)  # fmt: skip
    experiment.run(params)
    trained = Path(experiment.load_trained(params).checkpoint).stat().st_mtime_ns
    experiment.run(params, resume=True, embeddings=tmp_path / "mine.h5")
    model = experiment.load_trained(params)
    assert Path(model.checkpoint).stat().st_mtime_ns == trained
    expected = model._self_supervision.sources[0].tables(model)[0].weight
    assert next(iter(read(tmp_path / "mine_item_id.h5").values())) == expected[1].tolist()


def test_what_cannot_be_exported_is_refused_in_one_sentence(params, tmp_path):
    with pytest.raises(InputError, match=r"end in \.h5, got 'mine\.csv'"):
        experiment.run(params, embeddings="mine.csv")
    params = {k: v for k, v in params.items() if not k.endswith("_regularizer")}
    with pytest.raises(InputError, match="LR has no embedding table"):
        export_embeddings(build(params, "LR"), tmp_path / "mine.h5")
    model = build(params, "DNN")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        export_embeddings(model, tmp_path / "file" / "mine.h5")
    (Path(model.feature_map.data_dir) / "feature_vocab.json").unlink()
    with pytest.raises(InputError, match=r"vocabulary .* cannot be read.*build the data set"):
        export_embeddings(model, tmp_path / "mine.h5")


def test_a_strangers_file_is_refused_before_the_training_and_stays(params, tmp_path):
    strangers = tmp_path / "mine_item_id.h5"
    with h5py.File(strangers, "w") as content:
        content["key"] = [b"i1"]
    before = strangers.read_bytes()
    params.update(model="DNN_MISS", epochs=1)
    with pytest.raises(InputError, match=r"mine_item_id\.h5 was not written by --export-embed"):
        experiment.run(params, embeddings=tmp_path / "mine.h5")
    assert not Path(params["data_root"]).exists()
    with pytest.raises(InputError, match="move it"):
        export_embeddings(build(params, "DNN"), tmp_path / "mine.h5")
    assert [path.name for path in tmp_path.glob("*.h5")] == [strangers.name]
    assert strangers.read_bytes() == before
    strangers.write_text("no h5 at all")
    with pytest.raises(InputError, match="move it"):
        check_embeddings_path(tmp_path / "mine.h5", params["feature_cols"])


def test_embeddings_are_written_all_or_none(params, tmp_path, monkeypatch):
    model, write, calls = build(params, "DNN"), Path.write_bytes, []

    def full(file: Path, content: bytes) -> None:
        calls.append(file)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"Cannot write .*No space left on device.*free some"):
        export_embeddings(model, tmp_path / "new" / "mine.h5")
    assert not list((tmp_path / "new").iterdir())


def test_files_beside_stay_and_our_own_are_replaced(params, tmp_path):
    model = build(params, "DNN")
    beside = [tmp_path / name for name in ("mine.h5", "mine_price.h5", "mine_item_history.h5")]
    for path in beside:
        path.write_text("somebody's")
    for _ in range(2):
        check_embeddings_path(tmp_path / "mine.h5", params["feature_cols"])
        export_embeddings(model, tmp_path / "mine.h5")
    assert {path.read_text() for path in beside} == {"somebody's"}


def test_what_the_experiment_starts_from_is_not_replaced(params, tmp_path):
    export_embeddings(build(params, "DNN"), tmp_path / "mine.h5")
    params["feature_cols"].insert(
        1,
        {"name": "item_id", "type": "categorical", "dtype": "str",
         "pretrained_emb": str(tmp_path / "x" / ".." / "mine_item_id.h5")},
    )  # fmt: skip
    with pytest.raises(InputError, match="is the pretrained_emb that this experiment starts from"):
        check_embeddings_path(tmp_path / "mine.h5", params["feature_cols"])
    assert (
        check_embeddings_path(tmp_path / "other.h5", params["feature_cols"])
        == tmp_path / "other.h5"
    )
