"""What a method sees that reads fields."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fuxictr_miss.fields import Fields

K = 3


@pytest.fixture
def fields() -> Fields:
    """An id, a number, and a history of the id's table; rows of all, of none, and of some."""
    table, weights = nn.Embedding(9, K, padding_idx=0), nn.Linear(1, K, bias=False)
    item, price = torch.tensor([4, 0, 2]), torch.tensor([0.5, 0.0, 2.0])
    history = torch.tensor([[0, 3, 5], [0, 0, 0], [0, 0, 7]], dtype=torch.int32)
    kinds = ["categorical", "numeric", "sequence"]
    return Fields([item, price, history], kinds, [9, 0, 9], [table, weights, table])


def test_a_field_is_an_embedding_a_weighted_number_or_the_mean_of_a_history(fields):
    table, weights = fields.tables[0].weight, fields.tables[1].weight[:, 0]
    nothing = torch.zeros(K)
    expected = [
        [table[4], weights * 0.5, (table[3] + table[5]) / 2],
        [nothing, nothing, nothing],
        [table[2], weights * 2, table[7]],
    ]
    torch.testing.assert_close(fields.vectors, torch.stack([torch.stack(r) for r in expected]))


def test_padding_and_an_empty_history_are_absent_and_a_number_never_is(fields):
    assert fields.present.tolist() == [[True, True, True], [False, True, False], [True] * 3]
    assert fields.ids.tolist() == [[4, 0, 0], [0, 0, 0], [2, 0, 0]]
    assert fields.ids.dtype == torch.long


def test_padding_gets_no_gradient(fields):
    fields.vectors.sum().backward()
    assert not fields.tables[0].weight.grad[0].any()
    assert fields.tables[0].weight.grad[[2, 3, 4, 5, 7]].all()


def test_other_ids_of_a_field_are_looked_up_in_its_table(fields):
    ids = torch.tensor([[1, 2], [3, 0]])
    assert torch.equal(fields.embed(0, ids), fields.tables[0].weight[ids])


def test_a_table_without_a_padding_row_sends_nothing_there_either(fields):
    table = nn.Embedding(9, K)
    some = Fields([torch.tensor([0, 2])], ["categorical"], [9], [table])
    some.vectors.sum().backward()
    assert not some.vectors[0].any()
    assert not table.weight.grad[0].any()
