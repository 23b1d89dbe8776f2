"""Where a backbone's tables are found, and what of them is seen."""

from __future__ import annotations

import copy
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding, FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel
from torch import nn

from fuxictr_miss.embeddings import BehaviorSource, FieldSource
from fuxictr_miss.errors import InputError

K = 3


class Tables(BaseModel):
    """As much of a FuxiCTR model as a `BehaviorSource` looks at."""

    def __init__(self, feature_map: FeatureMap, **layers: nn.Module) -> None:
        super().__init__(feature_map, verbose=0, metrics=[], model_root="")
        for name, layer in layers.items():
            self.add_module(name, layer)


Maker = Callable[..., FeatureMap]


@pytest.fixture
def make_feature_map(tmp_path: Path) -> Maker:
    """(sequences, pooled) -> item, cate and the named sequences with their overrides."""

    def make(sequences: dict[str, dict[str, Any]], pooled: bool = False) -> FeatureMap:
        feature_map = FeatureMap("tiny", str(tmp_path))
        feature_map.features = OrderedDict(
            (name, {"source": "", "type": "categorical", "vocab_size": 7, "padding_idx": 0})
            for name in ("item_id", "cate_id")
        )
        for name, overrides in sequences.items():
            feature_map.features[name] = {
                "source": "",
                "type": "sequence",
                "vocab_size": 7,
                "padding_idx": 0,
                "max_len": 4,
                "feature_encoder": "layers.MaskedAveragePooling()" if pooled else None,
            } | overrides
        feature_map.labels = ["label"]
        return feature_map

    return make


SHARED = {
    "item_history": {"share_embedding": "item_id"},
    "cate_history": {"share_embedding": "cate_id"},
}


def test_sequences_are_embedded_in_the_order_given(make_feature_map: Maker) -> None:
    feature_map = make_feature_map(SHARED)
    model = Tables(feature_map, embedding_layer=FeatureEmbeddingDict(feature_map, K))
    assert BehaviorSource(model, ["cate_history"]).features == ["cate_history"]
    both = BehaviorSource(model, ["cate_history", "item_history"])
    layers = model.embedding_layer.embedding_layers
    assert both.tables(model) == [layers["cate_id"], layers["item_id"]]
    assert both.dim == K


@pytest.mark.parametrize("order", [(1, 4, 8), (8, 4, 1), (1, 8, 4)])
def test_the_widest_table_is_taken_wherever_it_stands(
    order: tuple[int, ...], make_feature_map: Maker
) -> None:
    feature_map = make_feature_map(SHARED, pooled=True)
    layers = {f"width_{width}": FeatureEmbedding(feature_map, width) for width in order}
    model = Tables(feature_map, **layers)
    source = BehaviorSource(model, list(SHARED))
    assert source.dim == 8
    inside = model.width_8.embedding_layer.embedding_layers
    assert source.tables(model) == [inside["item_history"], inside["cate_history"]]


def test_of_equally_wide_tables_the_first_is_taken(make_feature_map: Maker) -> None:
    feature_map = make_feature_map(SHARED)
    first, second = (FeatureEmbeddingDict(feature_map, K) for _ in range(2))
    model = Tables(feature_map, first=first, second=second)
    assert (
        BehaviorSource(model, list(SHARED)).tables(model)[0]
        is first.embedding_layers["item_history"]
    )


def test_a_wider_table_that_lacks_a_sequence_is_passed_over(make_feature_map: Maker) -> None:
    feature_map = make_feature_map(SHARED)
    wide = FeatureEmbeddingDict(feature_map, 8, required_feature_columns=["item_history"])
    model = Tables(feature_map, wide=wide, whole=FeatureEmbeddingDict(feature_map, K))
    assert BehaviorSource(model, list(SHARED)).dim == K
    assert BehaviorSource(model, ["item_history"]).dim == 8


def test_of_equally_wide_tables_the_embedding_layer_is_taken(make_feature_map: Maker) -> None:
    feature_map = make_feature_map(SHARED, pooled=True)
    linear, main, gate = (FeatureEmbedding(feature_map, width) for width in (1, K, K))
    model = Tables(feature_map, gate=gate, linear=linear, embedding_layer=main)
    table = main.embedding_layer.embedding_layers["item_history"]
    assert BehaviorSource(model, list(SHARED)).tables(model)[0] is table


def test_tables_in_a_list_are_one_embedding_in_parts(make_feature_map: Maker) -> None:
    """FFM keeps a table for each field that a feature meets; it learns in all of them."""
    feature_map = make_feature_map(SHARED, pooled=True)
    parts = [FeatureEmbedding(feature_map, width) for width in (K, K, 2)]
    linear = FeatureEmbedding(feature_map, 1)
    model = Tables(feature_map, lr_layer=linear, embedding_layers=nn.ModuleList(parts))
    source = BehaviorSource(model, list(SHARED))
    assert source.dim == 2 * K + 2
    ids = torch.tensor([[3, 1, 0, 0]])
    batch = {"item_history": ids, "cate_history": ids}
    source.read(model, batch).tensor.sum().backward()
    expected = torch.tensor([0.0, 1, 0, 1, 0, 0, 0])
    for part in parts:
        weight = part.embedding_layer.embedding_layers["item_id"].weight
        assert torch.equal(weight.grad, expected.unsqueeze(1).expand_as(weight))
    assert linear.embedding_layer.embedding_layers["item_id"].weight.grad is None


def test_pooling_of_the_backbone_is_bypassed_and_left_in_place(make_feature_map: Maker) -> None:
    feature_map = make_feature_map(SHARED, pooled=True)
    model = Tables(feature_map, embedding_layer=FeatureEmbedding(feature_map, K)).double()
    ids = torch.tensor([[[3, 1, 4], [1, 5, 2]], [[2, 0, 0], [6, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    batch = dict(zip(SHARED, ids.unbind(dim=1), strict=True))
    before = model.embedding_layer(batch)
    behavior = BehaviorSource(model, list(SHARED)).read(model, batch)
    tables = model.embedding_layer.embedding_layer.embedding_layers
    expected = [tables[name](column) for name, column in batch.items()]  # row 0 is zero
    torch.testing.assert_close(behavior.tensor, torch.stack(expected, dim=2))
    assert behavior.tensor.dtype == torch.float64
    assert torch.equal(model.embedding_layer(batch), before)


def test_a_batch_is_read_with_more_columns_and_ids_of_any_type(make_feature_map: Maker) -> None:
    feature_map = make_feature_map(SHARED)
    model = Tables(feature_map, embedding_layer=FeatureEmbeddingDict(feature_map, K))
    batch = {
        "cate_history": torch.tensor([[2.0, 0.0]]),
        "item_history": torch.tensor([[1, 0]], dtype=torch.int32),
        "item_id": torch.tensor([3]),
        "view_of_another_method": torch.zeros(1),
    }
    behavior = BehaviorSource(model, list(SHARED)).read(model, batch)
    tokens = behavior.tokens(behavior.indices)
    assert tokens.tolist() == [[[1, 2], [0, 0]]]
    assert tokens.dtype == torch.long


def test_tables_are_those_of_the_model_that_is_asked(make_feature_map: Maker) -> None:
    feature_map = make_feature_map(SHARED)
    model = Tables(feature_map, embedding_layer=FeatureEmbeddingDict(feature_map, K))
    source = BehaviorSource(model, list(SHARED))
    twin = copy.deepcopy(model)
    assert source.tables(twin)[0] is twin.embedding_layer.embedding_layers["item_history"]


@pytest.mark.parametrize("usage", ["init", "sum", "concat"])
def test_a_pretrained_table_has_the_width_it_answers_with_and_no_padding(
    usage: str, make_feature_map: Maker, tmp_path: Path
) -> None:
    pretrained = {
        "pretrained_emb": "vectors.npz",
        "pretrain_dim": 5,
        "pretrain_usage": usage,
        "freeze_emb": False,
        "oov_idx": 6,
    }
    vocabulary = {f"i{n}": n for n in range(1, 6)}
    np.savez(tmp_path / "vectors.npz", key=list(vocabulary), value=np.ones((5, 5)))
    (tmp_path / "feature_vocab.json").write_text(
        json.dumps({"item_id": {}, "item_history": vocabulary})
    )
    feature_map = make_feature_map({"item_history": pretrained})
    model = Tables(feature_map, embedding_layer=FeatureEmbeddingDict(feature_map, K))
    source = BehaviorSource(model, ["item_history"])
    assert source.dim == K
    (table,) = source.tables(model)
    table.pretrain_embedding.weight.data[0] = 9.0
    ids = torch.tensor([[4, 2, 0], [0, 0, 0]])
    c = source.read(model, {"item_history": ids}).tensor
    assert c.shape == (2, 3, 1, K)
    torch.testing.assert_close(c[0, :2, 0], table(ids[0, :2]))
    assert not c[0, 2].any()
    assert not c[1].any()
    c.sum().backward()
    assert not table.pretrain_embedding.weight.grad[0].any()
    assert table.pretrain_embedding.weight.grad[4].any()


PROJECTION, POOLING = "nn.Linear(5, 3, bias=False)", "layers.MaskedAveragePooling()"


def projected(make_feature_map: Maker, tmp_path: Path, encoder: list[str] | str) -> Tables:
    """MicroVideo's form: frozen pretrained items behind a trainable projection."""
    vocabulary = {f"i{n}": n for n in range(1, 6)}
    vectors = np.arange(25.0).reshape(5, 5)
    np.savez(tmp_path / "vectors.npz", key=list(vocabulary), value=vectors)
    (tmp_path / "feature_vocab.json").write_text(
        json.dumps({"item_id": {}, "item_history": vocabulary})
    )
    feature_map = make_feature_map(
        {
            "item_history": {
                "pretrained_emb": "vectors.npz",
                "pretrain_dim": 5,
                "embedding_dim": 5,
                "freeze_emb": True,
                "oov_idx": 6,
                "feature_encoder": encoder,
            }
        }
    )
    return Tables(feature_map, embedding_layer=FeatureEmbeddingDict(feature_map, K))


@pytest.mark.parametrize(
    "encoder",
    [[PROJECTION, POOLING], [POOLING, PROJECTION], [PROJECTION], PROJECTION],
    ids=["projected, pooled", "pooled, projected", "in a list", "alone"],
)
def test_a_projection_behind_a_frozen_table_is_what_is_seen(
    encoder: list[str] | str, make_feature_map: Maker, tmp_path: Path
) -> None:
    """FuxiCTR's benchmark has it before the pooling, behind it, and without any."""
    model = projected(make_feature_map, tmp_path, encoder)
    source = BehaviorSource(model, ["item_history"])
    layers = model.embedding_layer.feature_encoders["item_history"].modules()
    projection = next(layer for layer in layers if isinstance(layer, nn.Linear))
    assert source.projections(model) == [[projection]]
    assert source.dim == 3
    assert source.parameters(model) == [projection.weight]
    c = source.read(model, {"item_history": torch.tensor([[4, 2, 0, 0]])}).tensor
    vectors = torch.tensor([[15.0, 16, 17, 18, 19], [5, 6, 7, 8, 9]])
    torch.testing.assert_close(c[0, :2, 0], vectors @ projection.weight.T)
    assert not c[0, 2:].any()
    c.sum().backward()
    assert projection.weight.grad.any()
    assert "frozen" not in source.described(model)


def test_a_behavior_is_what_the_encoder_makes_of_a_history_of_it_alone(
    make_feature_map: Maker, tmp_path: Path
) -> None:
    model = projected(make_feature_map, tmp_path, [POOLING, "nn.Linear(5, 3)", "nn.ReLU()"])
    source = BehaviorSource(model, ["item_history"])
    c = source.read(model, {"item_history": torch.tensor([[4, 2, 0, 0]])}).tensor
    alone = {"item_history": torch.tensor([[4, 0, 0, 0], [2, 0, 0, 0]])}
    torch.testing.assert_close(c[0, :2, 0], model.embedding_layer(alone)["item_history"])


@pytest.mark.parametrize("width", [None, 1], ids=["no table", "linear part only"])
def test_a_model_without_a_table_of_interests_is_refused(
    width: int | None, make_feature_map: Maker
) -> None:
    feature_map = make_feature_map(SHARED)
    layers = {"linear": FeatureEmbedding(feature_map, width, use_sharing=False)} if width else {}
    with pytest.raises(InputError, match="Tables embeds item_history, cate_history in no table"):
        BehaviorSource(Tables(feature_map, **layers), list(SHARED))


@pytest.mark.parametrize(
    ("overrides", "shapes"),
    [
        (
            {"max_len": 6},
            "item_history: length 4, dimension 3, cate_history: length 6, dimension 3",
        ),
        (
            {"embedding_dim": 5},
            "item_history: length 4, dimension 3, cate_history: length 4, dimension 5",
        ),
    ],
    ids=["length", "dimension"],
)
def test_sequences_of_different_shapes_are_refused_until_some_are_named(
    overrides: dict[str, int], shapes: str, make_feature_map: Maker
) -> None:
    feature_map = make_feature_map({"item_history": {}, "cate_history": overrides})
    model = Tables(feature_map, embedding_layer=FeatureEmbeddingDict(feature_map, K))
    with pytest.raises(InputError, match=re.escape(shapes)) as error:
        BehaviorSource(model, list(SHARED))
    assert "ssl_sequences" in str(error.value)
    assert BehaviorSource(model, ["item_history"]).dim == K


def with_a_number(feature_map: FeatureMap) -> FeatureMap:
    feature_map.features["price"] = {"source": "", "type": "numeric"}
    feature_map.features["user"] = {"source": "", "type": "meta"}
    return feature_map


def test_fields_are_all_features_of_the_main_table_and_no_meta_column(
    make_feature_map: Maker,
) -> None:
    feature_map = with_a_number(make_feature_map(SHARED, pooled=True))
    linear, main = FeatureEmbedding(feature_map, 1), FeatureEmbedding(feature_map, K)
    few = FeatureEmbedding(feature_map, 9, required_feature_columns=["item_id", "price"])
    source = FieldSource(Tables(feature_map, few=few, lr_layer=linear, embedding_layer=main))
    assert source.features == ["item_id", "cate_id", "item_history", "cate_history", "price"]
    assert source.id_features == source.features[:-1]
    assert source.dim == K
    layers = main.embedding_layer.embedding_layers
    model = Tables(feature_map, few=few, lr_layer=linear, embedding_layer=main)
    assert source.tables(model) == [layers[name] for name in source.features]


@pytest.mark.parametrize("pooled", [True, False])
def test_a_field_is_what_the_backbone_sees_with_a_history_pooled_to_its_mean(
    pooled: bool, make_feature_map: Maker
) -> None:
    feature_map = with_a_number(make_feature_map(SHARED, pooled=pooled))
    layer = FeatureEmbeddingDict(feature_map, K)
    model = Tables(feature_map, embedding_layer=layer)
    history = torch.tensor([[3, 1, 0, 0], [0, 0, 0, 0]])
    batch = {"item_id": torch.tensor([1, 4]), "cate_id": torch.tensor([2, 0]),
             "item_history": history, "cate_history": history,
             "price": torch.tensor([0.5, 2.0])}  # fmt: skip
    fields = FieldSource(model).read(model, batch)
    seen = layer(batch)
    for f, name in enumerate(batch):
        expected = seen[name]
        if expected.dim() == 3:
            expected = expected.sum(dim=1) / (history != 0).sum(dim=1, keepdim=True).clamp(min=1)
        torch.testing.assert_close(fields.vectors[:, f], expected)
    assert fields.sizes == (7, 7, 7, 7, 0)


def test_fields_in_tables_of_several_parts_are_put_side_by_side(make_feature_map: Maker) -> None:
    feature_map = make_feature_map(SHARED, pooled=True)
    parts = nn.ModuleList(FeatureEmbedding(feature_map, width) for width in (K, 2))
    model = Tables(feature_map, embedding_layers=parts)
    source = FieldSource(model)
    assert source.dim == K + 2
    ids = torch.tensor([[3, 1, 0, 0]])
    batch = {"item_id": ids[:, 0], "cate_id": ids[:, 1], "item_history": ids, "cate_history": ids}
    vectors = source.read(model, batch).vectors
    assert vectors.shape == (1, 4, K + 2)
    first = parts[0].embedding_layer.embedding_layers["item_id"].weight[3]
    second = parts[1].embedding_layer.embedding_layers["item_id"].weight[3]
    torch.testing.assert_close(vectors[0, 0], torch.cat([first, second]))
