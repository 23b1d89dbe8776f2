"""NT-Xent against the sum over listed views."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fuxictr_miss.errors import InputError
from fuxictr_miss.losses import nt_xent

TAU = 0.3


def by_loops(
    first: Tensor, second: Tensor, tau: float, group: list[int] | None, mask: list[bool]
) -> Tensor:
    """Every view in turn as the anchor; view (row, side)."""
    rows = [b for b in range(len(first)) if mask[b]]
    views = {(b, side): view[b] for b in rows for side, view in enumerate((first, second))}
    terms = []
    for (b, side), anchor in views.items():
        own = torch.exp(torch.cosine_similarity(anchor, views[b, 1 - side], dim=0) / tau)
        total = own
        for (other, _), view in views.items():
            if other != b and (group is None or group[other] != group[b]):
                total = total + torch.exp(torch.cosine_similarity(anchor, view, dim=0) / tau)
        terms.append(-torch.log(own / total))
    return sum(terms) / len(terms) if terms else (first + second).sum() * 0


@pytest.fixture
def views() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(6, 5, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2)
    )


@pytest.mark.parametrize("group", [None, [0, 1, 2, 3, 4, 5], [7, 7, 1, 2, 1, 3], [4] * 6])
@pytest.mark.parametrize(
    "mask", [[True] * 6, [True, False, True, True, False, True], [False] * 5 + [True], [False] * 6]
)
def test_value_and_gradient_equal_the_sum_over_views(views, group, mask):
    ids = None if group is None else torch.tensor(group)
    loss = nt_xent(*views, TAU, ids, torch.tensor(mask))
    expected = by_loops(*views, TAU, group, mask)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_alike_views_give_log_of_all_that_are_compared(dtype):
    """One positive and 2(B - 1) negatives: log(2B - 1), in any number format."""
    ones = torch.ones(4, 3, dtype=dtype)
    assert nt_xent(ones, ones).item() == pytest.approx(math.log(2 * 4 - 1), rel=1e-2)


def test_no_pair_and_no_negative_cost_exactly_nothing(views):
    one = [view[:1] for view in views]
    nobody = torch.zeros(6, dtype=torch.bool)
    for loss in (nt_xent(*one), nt_xent(*views, mask=nobody), nt_xent(*views, group=nobody.int())):
        assert loss.item() == 0
        assert not any(grad.any() for grad in torch.autograd.grad(loss, views))


def test_the_two_views_are_treated_alike(views):
    torch.testing.assert_close(nt_xent(*views), nt_xent(*views[::-1]))


def test_zero_vectors_are_no_nan():
    zeros = torch.zeros(3, 4, requires_grad=True)
    loss = nt_xent(zeros, torch.zeros(3, 4))
    loss.backward()
    assert loss.isfinite()
    assert zeros.grad.isfinite().all()


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(views, tau):
    with pytest.raises(InputError, match="temperature"):
        nt_xent(*views, tau)


@pytest.mark.parametrize("shape", [(5, 5), (6, 4), (2, 6, 5)])
def test_shapes_that_do_not_fit_are_refused(views, shape):
    with pytest.raises(InputError, match="first and second"):
        nt_xent(views[0], torch.zeros(shape))


def test_derivatives_by_views_and_temperature_are_those_of_the_values(views):
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    group, mask = torch.tensor([7, 7, 1, 2, 1, 3]), torch.arange(6) != 2

    def loss(first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        return nt_xent(first, second, temperature, group, mask)

    assert torch.autograd.gradcheck(loss, (*views, tau))
    assert torch.autograd.gradgradcheck(loss, (*views, tau))


def test_half_precision_comes_close(views):
    expected = nt_xent(*views, mask=torch.arange(6) != 2)
    loss = nt_xent(*(view.half() for view in views), mask=torch.arange(6) != 2)
    assert loss.dtype == torch.float16
    assert loss.item() == pytest.approx(expected.item(), rel=5e-3)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("mask", torch.ones(6)), ("mask", torch.ones(5) > 0), ("group", torch.ones(5).long())],
)
def test_masks_and_groups_that_do_not_fit_are_refused(views, name, tensor):
    with pytest.raises(InputError, match=rf"{name} must be \(6,\)"):
        nt_xent(*views, **{name: tensor})
