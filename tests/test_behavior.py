"""The behavior tensor C (Eq. 18) against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior

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
