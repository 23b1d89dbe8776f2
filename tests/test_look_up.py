"""Look-ups against PyTorch's own embedding, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fuxictr_miss.look_up import keep_dense, look_up

FEW, MANY = (2, 3), (40, 5)  # ids, of a table of 20 rows: a sparse gradient pays for the few only


def make_table(**kind: object) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(20, 4, dtype=torch.float64, **({"padding_idx": 0} | kind))


def make_ids(shape: tuple[int, ...]) -> Tensor:
    """With padding, and with ids that repeat."""
    return torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(1))


def gradient_of(embedded: Tensor, table: nn.Embedding) -> Tensor:
    torch.manual_seed(2)
    return torch.autograd.grad((embedded * torch.randn_like(embedded)).sum(), table.weight)[0]


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("shape", [FEW, MANY])
def test_embeddings_and_gradient_are_those_of_the_table(shape, beside):
    table, ids = make_table(), make_ids(shape)
    embedded = look_up(table, ids, beside)
    assert torch.equal(embedded, table(ids))
    gradient = gradient_of(embedded, table)
    assert gradient.is_sparse == (beside and shape == FEW)
    torch.testing.assert_close(gradient.to_dense(), gradient_of(table(ids), table))


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("shape", [FEW, MANY])
def test_a_transposed_view_of_ids_is_looked_up_in_its_own_order(shape, beside):
    table, ids = make_table(), make_ids(shape).T
    embedded = look_up(table, ids, beside)
    assert torch.equal(embedded, table(ids))
    gradient = gradient_of(embedded, table).to_dense()
    torch.testing.assert_close(gradient, gradient_of(table(ids), table))


@pytest.mark.parametrize("beside", [False, True])
def test_a_table_with_a_learned_padding_row_shows_zeros_for_it_and_does_not_move_it(beside):
    table, ids = make_table(padding_idx=None), make_ids(FEW)
    embedded = look_up(table, ids, beside)
    assert not embedded[ids == 0].any()
    assert torch.equal(embedded[ids != 0], table(ids)[ids != 0])
    gradient = gradient_of(embedded, table)
    assert not gradient[0].any()
    assert gradient[1:].any()


@pytest.mark.parametrize("others", [False, True], ids=["alone", "with another loss"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense table", "sparse table"])
def test_a_gradient_stays_sparse_only_if_the_table_is(sparse, others):
    table, ids = make_table(sparse=sparse), make_ids(FEW)
    keep_dense(table)
    loss = look_up(table, ids, beside=True).sum()
    (loss + table(ids).square().sum() if others else loss).backward()
    assert table.weight.grad.is_sparse == sparse
