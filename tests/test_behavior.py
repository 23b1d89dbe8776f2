"""The behavior tensor C (Eq. 18) against plain loops, and where its tables are found."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior, BehaviorSource
from fuxictr_miss.errors import InputError

VOCABULARY = 9
K = 3

# (B, J, L) ids, every kind of padding that a loader can hand over
IDS = {
    "post": [[[3, 1, 4, 0, 0]], [[1, 0, 0, 0, 0]], [[0, 0, 0, 0, 0]], [[2, 7, 1, 8, 2]]],
    "pre": [[[0, 0, 3, 1, 4]], [[0, 0, 0, 0, 1]], [[0, 0, 0, 0, 0]], [[2, 7, 1, 8, 2]]],
    "holes": [[[3, 0, 1, 0, 4]], [[0, 0, 1, 0, 0]], [[0, 5, 0, 5, 0]], [[2, 0, 0, 8, 2]]],
    "two sequences": [[[3, 1, 4], [1, 5, 8]], [[2, 0, 0], [6, 0, 0]], [[0, 0, 0], [0, 0, 0]]],
    "sequences that disagree": [[[3, 0, 4, 7], [1, 5, 0, 2]], [[0, 0, 2, 2], [6, 6, 0, 0]]],
    "three sequences": [[[1, 2], [3, 4], [5, 6]], [[7, 0], [8, 0], [1, 0]]],
    "one row": [[[0, 8, 8, 0]]],
    "one position": [[[5], [6]], [[0], [0]], [[1], [0]]],
    "all empty": [[[0, 0, 0]], [[0, 0, 0]]],
}


def histories(ids: list) -> list[list[tuple[int, ...]]]:
    """Row by row the behaviors in time order, each as the ids of its J features."""
    return [[step for step in zip(*row, strict=True) if all(step)] for row in ids]


def make_tables(number: int, padding_row: float = 0.0) -> list[nn.Embedding]:
    """Tables in float64; one whose padding row is not zero also learns it."""
    torch.manual_seed(number)
    tables = [
        nn.Embedding(VOCABULARY, K, padding_idx=None if padding_row else 0, dtype=torch.float64)
        for _ in range(number)
    ]
    for table in tables:
        table.weight.data[0] = padding_row
    return tables


def embedded_by_loops(ids: list, behaviors: list[list[int]], tables: list[nn.Embedding]) -> Tensor:
    """(B, S, J, K)"""
    rows = []
    for history, wanted in zip(histories(ids), behaviors, strict=True):
        zero = torch.zeros(K, dtype=torch.float64)
        features = [
            torch.stack([table.weight[history[s][j]] if s < len(history) else zero for s in wanted])
            for j, table in enumerate(tables)
        ]
        rows.append(torch.stack(features, dim=1))
    return torch.stack(rows)


@pytest.fixture(params=IDS.values(), ids=IDS)
def ids(request: pytest.FixtureRequest) -> list:
    return request.param


class NeverAsked(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        raise AssertionError("nothing has asked for an embedding")


def test_mask_length_and_group_embed_nothing(ids: list) -> None:
    behavior = Behavior(torch.tensor(ids).unbind(1), [NeverAsked()] * len(ids[0]))
    assert behavior.mask.shape == (len(ids), len(ids[0][0]))
    assert behavior.length.shape == behavior.group.shape == (len(ids),)


def test_position_is_a_behavior_where_no_sequence_is_padding(ids: list) -> None:
    behavior = Behavior(torch.tensor(ids).unbind(1), make_tables(len(ids[0])))
    for b, row in enumerate(ids):
        for position in range(len(row[0])):
            assert behavior.mask[b, position] == all(sequence[position] for sequence in row)


def test_length_counts_the_behaviors(ids: list) -> None:
    behavior = Behavior(torch.tensor(ids).unbind(1), make_tables(len(ids[0])))
    assert behavior.length.tolist() == [len(history) for history in histories(ids)]


@pytest.mark.parametrize("padding_row", [0.0, 7.0])
def test_tensor_holds_the_behaviors_first_then_zeros(ids: list, padding_row: float) -> None:
    tables = make_tables(len(ids[0]), padding_row)
    everything = [list(range(len(row[0]))) for row in ids]
    c = Behavior(torch.tensor(ids).unbind(1), tables).tensor
    torch.testing.assert_close(c, embedded_by_loops(ids, everything, tables), rtol=0, atol=0)


@pytest.mark.parametrize("padding_row", [0.0, 7.0])
def test_embed_takes_any_behaviors_in_any_order_and_past_the_end(
    ids: list, padding_row: float
) -> None:
    tables = make_tables(len(ids[0]), padding_row)
    draw = torch.Generator().manual_seed(5)
    wanted = torch.randint(len(ids[0][0]) + 3, (len(ids), 11), generator=draw)
    embedded = Behavior(torch.tensor(ids).unbind(1), tables).embed(wanted)
    expected = embedded_by_loops(ids, wanted.tolist(), tables)
    torch.testing.assert_close(embedded, expected, rtol=0, atol=0)


@pytest.mark.parametrize("padding_row", [0.0, 7.0])
def test_gradient_reaches_the_behaviors_and_never_the_padding_row(
    ids: list, padding_row: float
) -> None:
    tables = make_tables(len(ids[0]), padding_row)
    weights = [table.weight for table in tables]
    behavior = Behavior(torch.tensor(ids).unbind(1), tables)
    behaviors = torch.arange(len(ids[0][0]) + 2).expand(len(ids), -1)
    embedded = behavior.embed(behaviors)
    weighting = torch.randn(embedded.shape, dtype=torch.float64)
    gradients = torch.autograd.grad((embedded * weighting).sum(), weights)
    expected = [torch.zeros(VOCABULARY, K, dtype=torch.float64) for _ in tables]
    for b, history in enumerate(histories(ids)):
        for s, step in enumerate(history):
            for j, token in enumerate(step):
                expected[j][token] += weighting[b, s, j]
    for gradient, right in zip(gradients, expected, strict=True):
        assert not gradient[0].any()
        torch.testing.assert_close(gradient, right)


def test_a_table_shared_by_two_sequences_learns_from_both() -> None:
    (table,) = make_tables(1)
    behavior = Behavior(torch.tensor([[[1, 2, 0]], [[2, 3, 0]]]), [table, table])
    (gradient,) = torch.autograd.grad(behavior.tensor.sum(), table.weight)
    assert gradient[:, 0].tolist() == [0, 1, 2, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "view",
    [
        lambda ids: torch.nn.functional.pad(ids, (2, 3))[:, 2:-3],  # of longer rows
        lambda ids: ids.T.contiguous().T,
        lambda ids: ids[1:2].expand(4, -1),  # one row in memory
        lambda ids: ids[2:3],
    ],
)
def test_columns_may_be_views_of_any_memory(view: Callable[[Tensor], Tensor]) -> None:
    ids = view(torch.tensor(IDS["post"])[:, 0])
    asked = torch.tensor([[4, 0, 2, 1, 5]]).expand(len(ids), -1)
    tokens = Behavior([ids], make_tables(1)).tokens(asked)
    for row, numbers in zip(tokens[..., 0].tolist(), ids.tolist(), strict=True):
        assert row == [numbers[4], numbers[0], numbers[2], numbers[1], 0]


def test_ids_may_be_32_bit() -> None:
    ids = IDS["two sequences"]
    tables = make_tables(2)
    short, long = (
        Behavior(torch.tensor(ids, dtype=d).unbind(1), tables) for d in (torch.int32, torch.long)
    )
    assert torch.equal(short.tensor, long.tensor)
    assert torch.equal(short.group, long.group)


@pytest.mark.parametrize("sequences", [1, 2])
@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_group_is_equal_exactly_where_histories_are(sequences: int, data: st.DataObject) -> None:
    """Padded behind, as every loader does it; few ids, so that equal histories do occur."""
    step = st.tuples(*[st.integers(1, 2)] * sequences)
    batch = data.draw(st.lists(st.lists(step, max_size=4), min_size=2, max_size=8))
    ids = torch.zeros(len(batch), sequences, 4, dtype=torch.long)
    for b, history in enumerate(batch):
        for position, token in enumerate(history):
            ids[b, :, position] = torch.tensor(token)
    longest = max(1, *map(len, batch))
    for given_ids in (ids, ids[:, :, :longest], ids.roll(1, dims=2)):
        group = Behavior(given_ids.unbind(1), []).group.tolist()
        for a, first in enumerate(batch):
            for b, second in enumerate(batch):
                assert (group[a] == group[b]) == (first == second)


def test_histories_of_another_length_or_another_recent_past_differ_in_group() -> None:
    """The newest behaviors and the length are read, as many as tell histories apart."""
    long = torch.randint(1, 100, (1, 90))
    older, newer, shorter = long.clone(), long.clone(), long.clone()
    newer[0, 88] += 100
    shorter[0, 0] = 0
    group = Behavior([torch.cat([long, older, newer, shorter])], []).group.tolist()
    assert group[0] == group[1]
    assert len(set(group)) == 3


def test_group_sees_the_order_and_which_sequence_an_id_stands_in() -> None:
    ids = [
        [[1, 2], [3, 4]],
        [[2, 1], [3, 4]],  # another order
        [[3, 4], [1, 2]],  # another sequence
        [[1, 3], [2, 4]],
        [[1, 2], [3, 4]],
    ]
    group = Behavior(torch.tensor(ids).unbind(1), []).group.tolist()
    assert group[0] == group[4]
    assert len(set(group)) == 4


def test_group_does_not_collide_among_many_histories() -> None:
    every = torch.cartesian_prod(*[torch.arange(1, 8)] * 5).unsqueeze(1)  # 7^5 histories
    assert len(Behavior(every.unbind(1), []).group.unique()) == 7**5


def test_group_is_that_of_the_behaviors_wherever_the_padding_stands() -> None:
    ids = [
        [[3, 1, 0, 0], [5, 6, 0, 0]],
        [[0, 0, 3, 1], [0, 0, 5, 6]],
        [[3, 0, 0, 1], [5, 0, 0, 6]],
        [[3, 8, 1, 0], [5, 0, 6, 0]],  # 8 without its feature is no behavior
        [[1, 3, 0, 0], [6, 5, 0, 0]],
    ]
    group = Behavior(torch.tensor(ids).unbind(1), []).group.tolist()
    assert len(set(group[:4])) == 1
    assert group[4] != group[0]


# ----------------------------------------------------------------- where a backbone's tables are


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
    assert BehaviorSource(model, ["cate_history"]).sequences == ["cate_history"]
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
    ids = IDS["two sequences"]
    columns = torch.tensor(ids).unbind(dim=1)
    batch = dict(zip(SHARED, (each % 7 for each in columns), strict=True))
    before = model.embedding_layer(batch)
    behavior = BehaviorSource(model, list(SHARED)).read(model, batch)
    small = (torch.tensor(ids) % 7).tolist()
    tables = [model.embedding_layer.embedding_layer.embedding_layers[name] for name in SHARED]
    everything = [[0, 1, 2]] * 3
    torch.testing.assert_close(behavior.tensor, embedded_by_loops(small, everything, tables))
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
    tokens = behavior.tokens(behavior.every)
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


def projected(make_feature_map: Maker, tmp_path: Path, freeze: bool = True) -> Tables:
    """MicroVideo's form: frozen pretrained items behind a trainable projection, then pooled."""
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
                "freeze_emb": freeze,
                "oov_idx": 6,
                "feature_encoder": ["nn.Linear(5, 3, bias=False)", "layers.MaskedAveragePooling()"],
            }
        }
    )
    return Tables(feature_map, embedding_layer=FeatureEmbeddingDict(feature_map, K))


def test_a_projection_behind_a_frozen_table_is_what_is_seen(
    make_feature_map: Maker, tmp_path: Path
) -> None:
    model = projected(make_feature_map, tmp_path)
    source = BehaviorSource(model, ["item_history"])
    projection = model.embedding_layer.feature_encoders["item_history"][0]
    assert source.dim == 3
    assert source.parameters(model) == [projection.weight]
    c = source.read(model, {"item_history": torch.tensor([[4, 2, 0, 0]])}).tensor
    vectors = torch.tensor([[15.0, 16, 17, 18, 19], [5, 6, 7, 8, 9]])
    torch.testing.assert_close(c[0, :2, 0], vectors @ projection.weight.T)
    assert not c[0, 2:].any()
    c.sum().backward()
    assert projection.weight.grad.any()
    assert "frozen" not in source.described(model)


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
