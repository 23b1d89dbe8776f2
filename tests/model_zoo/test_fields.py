"""How groups of fields may be written, and how long histories are laid out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.fields import FieldKey, read_groups
from model_zoo.histories import padding_first, padding_last, reorder


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        (None, []),
        ([], []),
        ("item_id", [("item_id",)]),
        (["item_id", "cate_id"], [("item_id",), ("cate_id",)]),
        ([["item_id", "cate_id"]], [("item_id", "cate_id")]),
        (("item_id", "cate_id"), [("item_id", "cate_id")]),
        ([("item_id", "cate_id"), "user_id"], [("item_id", "cate_id"), ("user_id",)]),
    ],
)
def test_groups_are_read_in_every_form(
    written: FieldKey, groups: list[tuple[str, ...]], make_feature_map: Callable
) -> None:
    assert read_groups("key", written, make_feature_map(pooled=True)) == groups


def test_histories_keep_their_order_whatever_the_padding() -> None:
    ids = torch.tensor([[7, 8, 0, 0], [0, 0, 7, 8], [7, 0, 8, 9], [0, 0, 0, 0]])
    mask = ids != 0
    last = torch.tensor([[7, 8, 0, 0], [7, 8, 0, 0], [7, 8, 9, 0], [0, 0, 0, 0]])
    first = torch.tensor([[0, 0, 7, 8], [0, 0, 7, 8], [0, 7, 8, 9], [0, 0, 0, 0]])
    assert torch.equal(reorder(ids, padding_last(mask)), last)
    assert torch.equal(reorder(ids, padding_first(mask)), first)
    vectors = torch.randn(10, 3)[ids] * mask.unsqueeze(-1)
    assert torch.equal(
        reorder(vectors, padding_last(mask)).ne(0).any(dim=-1), reorder(mask, padding_last(mask))
    )


ROWS = st.integers(1, 12).flatmap(
    lambda length: st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=1)
)


@given(ROWS)
def test_padding_moves_as_by_a_stable_argsort_with_the_same_gradient(
    rows: list[list[bool]],
) -> None:
    mask = torch.tensor(rows)
    for move, padding_is_last in ((padding_last, True), (padding_first, False)):
        order = mask.byte().argsort(dim=1, descending=padding_is_last, stable=True)
        assert torch.equal(move(mask), order)
        weight = torch.arange(mask.numel() * 2.0).view(*mask.shape, 2)
        gradients = []
        for positions in (order, move(mask)):
            history = torch.randn(*mask.shape, 2, requires_grad=True)
            (reorder(history, positions) * weight).sum().backward()
            gradients.append(history.grad)
        assert torch.equal(*gradients)
