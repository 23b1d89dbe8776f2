"""InfoNCE (Eq. 15, 16) against plain loops over listed pairs, in float64."""

from __future__ import annotations

import math
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fuxictr_miss.errors import InputError
from fuxictr_miss.losses import fused, info_nce

EXACT = {"rtol": 1e-10, "atol": 1e-10}

GROUPS = {
    "no group": None,
    "all differ": [3, -1, 8, 0, 5, 6],
    "pairs": [4, 4, -7, -7, 2**62, 2**62],
    "one group": [9] * 6,
}
MASKS = {
    "all rows": None,
    "by row": [True, False, True, True, False, True],
    "by set and row": [
        [True, True, False, True, True, True],
        [False, False, True, False, False, False],  # a set with a single pair
        [False] * 6,  # a set without any
    ],
}


def by_loops(
    anchor: Tensor,
    positive: Tensor,
    temperature: float = 0.1,
    group: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Eq. 15 as it is written, over (P, B, D)."""
    sets, rows, _ = anchor.shape
    exists = torch.ones(sets, rows) if mask is None else mask.expand(sets, rows)
    terms = []
    for p in range(sets):
        for x in range(rows):
            if not exists[p, x]:
                continue
            own = torch.exp(cosine(anchor[p, x], positive[p, x]) / temperature)
            total = own
            for other in range(rows):
                same_group = group is not None and group[other] == group[x]
                if other != x and exists[p, other] and not same_group:
                    total = total + torch.exp(
                        cosine(anchor[p, x], positive[p, other]) / temperature
                    )
            terms.append(torch.log(own / total))
    return -sum(terms) / len(terms) if terms else 0 * anchor.sum()


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """s(·, ·)."""
    return (first * second).sum() / ((first * first).sum() * (second * second).sum()).sqrt()


def views(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Two random views that ask for gradients."""
    draw = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, *shape, generator=draw, dtype=torch.float64).to(dtype)
    return first.requires_grad_(), second.requires_grad_()


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs, retain_graph=True)


@pytest.mark.parametrize("chunk_size", [None, 1, 4, 6, 100])
@pytest.mark.parametrize("temperature", [0.3, 0.005])  # 2^x of the latter is too large for us
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_loss_and_gradients_equal_loops_over_all_pairs(
    group: list[int] | None, mask: list | None, chunk_size: int | None, temperature: float
) -> None:
    z1, z2 = views(3, 6, 4)
    groups = None if group is None else torch.tensor(group)
    exists = None if mask is None else torch.tensor(mask)
    loss = info_nce(z1, z2, temperature, groups, chunk_size, exists)
    expected = by_loops(z1, z2, temperature, groups, exists)
    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(gradients(loss, z1, z2), gradients(expected, z1, z2), **EXACT)


@pytest.mark.parametrize("shape", [(5, 3), (2, 3), (1, 3)])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_two_dimensions_are_one_set_of_pairs(
    shape: tuple[int, int], chunk_size: int | None
) -> None:
    z1, z2 = views(*shape)
    loss = info_nce(z1, z2, chunk_size=chunk_size)
    assert loss.shape == ()
    torch.testing.assert_close(loss, by_loops(z1[None], z2[None]), **EXACT)


def test_loss_is_the_mean_over_the_sets() -> None:
    z1, z2 = views(4, 5, 3)
    one_by_one = [info_nce(z1[p], z2[p]) for p in range(4)]
    torch.testing.assert_close(info_nce(z1, z2), sum(one_by_one) / 4, **EXACT)


def test_anchor_is_the_first_view_and_negatives_come_from_the_second() -> None:
    z1, z2 = views(5, 3)
    assert not torch.allclose(info_nce(z1, z2), info_nce(z2, z1))
    torch.testing.assert_close(info_nce(z2, z1), by_loops(z2[None], z1[None]), **EXACT)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0, 20.0])
def test_temperature_divides_the_similarity(temperature: float) -> None:
    z1, z2 = views(2, 5, 3)
    loss = info_nce(z1, z2, temperature)
    torch.testing.assert_close(loss, by_loops(z1, z2, temperature), **EXACT)


@pytest.mark.parametrize("block_size", [None, 2])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_each_set_may_have_a_temperature_of_its_own(
    mask: list | None, block_size: int | None
) -> None:
    z1, z2 = views(3, 6, 4)
    exists = torch.ones(3, 6, dtype=torch.bool) if mask is None else torch.tensor(mask).expand(3, 6)
    tau = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    loss = info_nce(z1, z2, tau, mask=exists, block_size=block_size)
    alone = [
        info_nce(z1[p], z2[p], tau[p], mask=exists[p], block_size=block_size) * exists[p].sum()
        for p in range(3)
    ]
    expected = sum(alone) / exists.sum()
    torch.testing.assert_close(loss, expected, **EXACT)
    inputs = (z1, z2, tau)
    for one, other in zip(gradients(loss, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_default_temperature_is_a_tenth() -> None:
    z1, z2 = views(5, 3)
    assert info_nce(z1, z2) == info_nce(z1, z2, 0.1)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("block_size", [None, 3])
@pytest.mark.parametrize(
    "check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck], ids=["first", "second"]
)
def test_derivatives_by_views_and_temperature_are_those_of_the_values(
    check: Any, chunk_size: int | None, block_size: int | None
) -> None:
    group = torch.tensor([0, 1, 1, 2, 0])
    mask = torch.tensor([[True, True, False, True, True], [True] * 5])
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def loss(z1: Tensor, z2: Tensor, temperature: Tensor) -> Tensor:
        return 3 * info_nce(z1, z2, temperature, group, chunk_size, mask, block_size)

    assert check(loss, (*views(2, 5, 3), tau))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_a_gradient_that_can_be_derived_again_is_the_same_gradient(
    group: list[int] | None, mask: list | None
) -> None:
    """It comes from the plain form of Eq. 15; the other from the fused one."""
    both = views(3, 6, 4)
    groups = None if group is None else torch.tensor(group)
    masks = None if mask is None else torch.tensor(mask)
    loss = info_nce(*both, 0.3, groups, mask=masks)
    plain = torch.autograd.grad(loss, both, create_graph=True)
    fused_ones = torch.autograd.grad(info_nce(*both, 0.3, groups, mask=masks), both)
    for one, other in zip(plain, fused_ones, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_temperature_may_be_learnt(
    mask: list | None, dtype: torch.dtype, shape: tuple[int, ...], chunk_size: int | None
) -> None:
    """Also where masks put pairs infinitely far apart: its gradient stays a number."""
    z1, z2 = views(3, 6, 4)
    group, exists = torch.tensor(GROUPS["pairs"]), None if mask is None else torch.tensor(mask)
    tau = torch.full(shape, 0.25, dtype=dtype, requires_grad=True)
    loss = info_nce(z1, z2, tau, group, chunk_size, exists)
    exact = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    expected = by_loops(z1, z2, exact, group, exists)
    assert loss.shape == ()
    torch.testing.assert_close(loss, expected, **EXACT)
    (gradient,), (wanted,) = gradients(loss, tau), gradients(expected, exact)
    torch.testing.assert_close(gradient.squeeze().double(), wanted, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("learns", ["anchor", "positive", "temperature", "nothing", "no_grad"])
def test_any_of_the_arguments_may_be_fixed(learns: str, chunk_size: int | None) -> None:
    tensors = dict(zip(("anchor", "positive"), (z.detach() for z in views(2, 5, 3)), strict=True))
    tensors["temperature"] = torch.tensor(0.5, dtype=torch.float64)
    expected = by_loops(**tensors)
    for tensor in [tensors[learns]] if learns in tensors else tensors.values():
        tensor.requires_grad_(learns != "nothing")
    with torch.set_grad_enabled(learns != "no_grad"):
        loss = info_nce(**tensors, chunk_size=chunk_size)
    torch.testing.assert_close(loss.detach(), expected, **EXACT)
    assert loss.requires_grad == (learns in tensors)
    if learns in tensors:
        found, wanted = (gradients(form, tensors[learns]) for form in (loss, by_loops(**tensors)))
        torch.testing.assert_close(found, wanted, **EXACT)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_one_tensor_as_both_views_sums_its_gradients(chunk_size: int | None) -> None:
    z, _ = views(2, 5, 3)
    loss, expected = info_nce(z, z, chunk_size=chunk_size), by_loops(z, z)
    torch.testing.assert_close(gradients(loss, z), gradients(expected, z), **EXACT)


class _LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_similarities_that_do_not_fit_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    z1, z2 = views(2, 40, 3)
    group, mask = torch.arange(40) // 2, torch.arange(40) % 7 > 0
    whole = info_nce(z1, z2, 0.1, group, None, mask)
    monkeypatch.setattr(fused, "SIMILARITIES_PER_PART", 1000)  # of 2 * 40 * 40 = 3200
    monkeypatch.setattr(fused, "MIN_ANCHORS_PER_PART", 1)
    with _LargestTensor() as largest:
        cut = info_nce(z1, z2, 0.1, group, None, mask)
        cut.backward()
    torch.testing.assert_close(cut, whole, **EXACT)
    torch.testing.assert_close((z1.grad, z2.grad), gradients(whole, z1, z2), **EXACT)
    assert largest.numel <= 1000


class _Held:
    """A tensor that waits for the backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_similarities_do_not_wait_for_the_backward_pass(chunk_size: int | None) -> None:
    held: weakref.WeakSet[_Held] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Held:
        held.add(waiting := _Held(tensor))
        return waiting

    z1, z2 = views(2, 40, 3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda waiting: waiting.tensor):
        loss = info_nce(z1, z2, chunk_size=chunk_size)
    a_view, cosines = 2 * 40 * 3, 2 * 40 * 40
    assert max(waiting.tensor.numel() for waiting in held) == a_view < cosines
    expected = by_loops(z1, z2)
    torch.testing.assert_close(gradients(loss, z1, z2), gradients(expected, z1, z2), **EXACT)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize(("block_size", "cuts"), [(6, [6]), (4, [3, 3]), (5, [3, 3]), (1, [1] * 6)])
def test_blocks_are_batches_of_their_own(
    block_size: int, cuts: list[int], group: list | None, mask: list | None
) -> None:
    """The mean is over the pairs of all blocks; only negatives of the own block remain."""
    z1, z2 = views(3, 6, 4)
    exists = torch.ones(3, 6, dtype=torch.bool) if mask is None else torch.tensor(mask).expand(3, 6)
    expected, start = torch.zeros((), dtype=torch.float64), 0
    for size in cuts:
        part = slice(start, start + size)
        groups = None if group is None else torch.tensor(group)[part]
        mean = by_loops(z1[:, part], z2[:, part], 0.3, groups, exists[:, part])
        expected = expected + mean * exists[:, part].sum()
        start += size
    expected = expected / exists.sum().clamp(min=1)
    groups = None if group is None else torch.tensor(group)
    for chunk_size in (None, 2):
        loss = info_nce(
            z1, z2, 0.3, groups, chunk_size, None if mask is None else exists, block_size
        )
        torch.testing.assert_close(loss, expected, **EXACT)
        torch.testing.assert_close(gradients(loss, z1, z2), gradients(expected, z1, z2), **EXACT)


@pytest.mark.parametrize("at_once", [1, 4, 8, 12, 10**6])
def test_blocks_are_the_same_however_many_are_computed_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    z1, z2 = views(3, 7, 4)
    group, exists = torch.tensor([0, 1, 1, 2, 2, 3, 3]), torch.tensor(MASKS["by row"] + [True])
    expected = info_nce(z1, z2, 0.3, group, 1, exists, block_size=2)
    monkeypatch.setattr(fused, "SIMILARITIES_PER_PART", at_once)
    loss = info_nce(z1, z2, 0.3, group, None, exists, block_size=2)
    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(gradients(loss, z1, z2), gradients(expected, z1, z2), **EXACT)


@pytest.mark.parametrize("exists", [None, torch.ones(2, 7, dtype=torch.bool)])
def test_the_last_block_may_be_smaller(exists: Tensor | None) -> None:
    z1, z2 = views(2, 7, 4)
    mean = sum(
        by_loops(z1[:, part], z2[:, part]) * 2 * len(range(7)[part])
        for part in (slice(0, 4), slice(4, 7))
    )
    loss = info_nce(z1, z2, mask=exists, block_size=4)
    torch.testing.assert_close(loss, mean / 14, **EXACT)


def test_half_a_block_more_is_two_equal_blocks() -> None:
    z1, z2 = views(1, 6, 4)
    halves = [info_nce(z1[:, part], z2[:, part]) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(info_nce(z1, z2, block_size=4), sum(halves) / 2, **EXACT)


@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_views_that_are_all_alike_cost_log_b(rows: int, sets: int) -> None:
    same = torch.ones(sets, rows, 4, dtype=torch.float64)
    assert info_nce(same, same).item() == pytest.approx(math.log(rows), abs=1e-12)


def test_identical_orthogonal_views_have_a_closed_form() -> None:
    z = torch.eye(6, dtype=torch.float64)
    # own similarity 1, the five others 0
    expected = math.log(math.exp(1 / 0.2) + 5) - 1 / 0.2
    assert info_nce(z, z, 0.2).item() == pytest.approx(expected, abs=1e-12)


def test_length_of_a_view_does_not_matter() -> None:
    z1, z2 = views(2, 6, 4)
    draw = torch.Generator().manual_seed(1)
    stretch1, stretch2 = 1e-3 + 100 * torch.rand(2, 2, 6, 1, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(info_nce(z1 * stretch1, z2 * stretch2), info_nce(z1, z2), **EXACT)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_order_of_the_rows_does_not_matter(chunk_size: int | None) -> None:
    z1, z2 = views(2, 6, 4)
    group = torch.tensor([0, 1, 0, 2, 2, 3])
    mask = torch.tensor([True, True, True, False, True, True])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    loss = info_nce(z1, z2, 0.2, group, chunk_size, mask)
    moved = info_nce(z1[:, order], z2[:, order], 0.2, group[order], chunk_size, mask[order])
    torch.testing.assert_close(moved, loss, **EXACT)
    torch.testing.assert_close(gradients(moved, z1, z2), gradients(loss, z1, z2), **EXACT)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64])
def test_group_may_be_any_integers(dtype: torch.dtype) -> None:
    z1, z2 = views(2, 4, 3)
    group = torch.tensor([-5, 7, -5, 0], dtype=dtype)
    torch.testing.assert_close(
        info_nce(z1, z2, group=group), by_loops(z1, z2, group=group), **EXACT
    )


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_rows_of_one_group_do_not_push_each_other(chunk_size: int | None) -> None:
    """With all else invalid, only rows 0 and 2 could push; they share a group, so none does."""
    z1, z2 = views(4, 3)
    group = torch.tensor([1, 2, 1, 3])
    mask = torch.tensor([True, False, True, False])
    loss = info_nce(z1, z2, group=group, chunk_size=chunk_size, mask=mask)
    assert loss.item() == 0
    assert all(not gradient.any() for gradient in gradients(loss, z1, z2))


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize(
    "case",
    [
        {"mask": torch.zeros(5, dtype=torch.bool)},
        {"mask": torch.zeros(2, 5, dtype=torch.bool)},
        {"mask": torch.tensor([False, False, True, False, False])},
        {"group": torch.full((5,), 3)},
    ],
    ids=["no row", "no pair", "a single pair", "one group"],
)
def test_without_anything_to_contrast_loss_and_gradients_are_exactly_zero(
    case: dict[str, Tensor], chunk_size: int | None
) -> None:
    z1, z2 = views(2, 5, 3)
    loss = info_nce(z1, z2, chunk_size=chunk_size, **case)
    assert loss.item() == 0
    assert all(not gradient.any() for gradient in gradients(loss, z1, z2))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_batch_of_one_row_costs_exactly_zero(chunk_size: int | None) -> None:
    z1, z2 = views(3, 1, 4)
    loss = info_nce(z1, z2, chunk_size=chunk_size)
    assert loss.item() == 0
    assert all(not gradient.any() for gradient in gradients(loss, z1, z2))


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("content", [0.0, 1e-200, 1e150])
def test_invalid_rows_neither_act_nor_learn(content: float, chunk_size: int | None) -> None:
    z1, z2 = views(2, 5, 3)
    mask = torch.tensor([True, False, True, True, False])
    expected = info_nce(z1[:, mask], z2[:, mask])
    other1, other2 = (
        torch.where(mask[:, None], z, torch.full_like(z, content)).detach().requires_grad_()
        for z in (z1, z2)
    )
    loss = info_nce(other1, other2, mask=mask, chunk_size=chunk_size)
    torch.testing.assert_close(loss, expected, **EXACT)
    for gradient in gradients(loss, other1, other2):
        assert not gradient[:, ~mask].any()
        assert gradient[:, mask].isfinite().all()


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_views_are_no_nan(dtype: torch.dtype, chunk_size: int | None) -> None:
    z1, z2 = (torch.zeros(2, 5, 3, dtype=dtype, requires_grad=True) for _ in range(2))
    loss = info_nce(z1, z2, chunk_size=chunk_size)
    assert loss.item() == pytest.approx(math.log(5))  # the similarity of nothing is 0 with all
    assert all(gradient.isfinite().all() for gradient in gradients(loss, z1, z2))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_tiny_temperature_does_not_overflow(chunk_size: int | None) -> None:
    z1, z2 = views(2, 5, 3, dtype=torch.float32)
    loss = info_nce(z1, z2, 1e-6, chunk_size=chunk_size)  # exp(1e6) would be infinite
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(loss, z1, z2))


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("mask", [None, [True, True, False, True, True, True]])
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)]
)
def test_lower_precision_keeps_its_type_and_comes_close(
    dtype: torch.dtype, bound: float, mask: list | None, chunk_size: int | None
) -> None:
    """To the exact loss of the rounded views, as close as one rounding of the result."""
    z1, z2 = views(2, 6, 4, dtype=dtype)
    exact = [z.detach().double().requires_grad_() for z in (z1, z2)]
    rows = None if mask is None else torch.tensor(mask)
    loss = info_nce(z1, z2, 0.1, chunk_size=chunk_size, mask=rows)
    expected = by_loops(*exact, 0.1, mask=rows)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(expected.item(), rel=bound)
    for gradient, wanted in zip(gradients(loss, z1, z2), gradients(expected, *exact), strict=True):
        assert gradient.dtype == dtype
        assert (gradient.double() - wanted).abs().max() <= bound * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_sum_over_many_pairs_does_not_overflow_half_precision(dtype: torch.dtype) -> None:
    sets, rows = 60, 300
    same = torch.ones(sets, rows, 1, dtype=dtype)
    assert sets * rows * math.log(rows) > torch.finfo(torch.float16).max
    assert info_nce(same, same).item() == pytest.approx(math.log(rows), rel=4e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_round_the_similarities(dtype: torch.dtype) -> None:
    z1, z2 = views(2, 6, 4, dtype=torch.float32)
    case = (0.1, torch.tensor(GROUPS["pairs"]), None, torch.tensor(MASKS["by row"]))
    expected = info_nce(z1, z2, *case)
    with torch.autocast("cpu", dtype=dtype):
        loss = info_nce(z1, z2, *case)
        chunked = info_nce(z1, z2, case[0], case[1], 2, case[3])
    assert loss == expected
    torch.testing.assert_close(chunked, expected)
    assert gradients(loss, z1)[0].equal(gradients(expected, z1)[0])


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0, 4, 3)])
@pytest.mark.parametrize("block_size", [None, 2])
def test_an_empty_batch_costs_exactly_zero(shape: tuple, block_size: int | None) -> None:
    z1, z2 = views(*shape)
    loss = info_nce(z1, z2, block_size=block_size)
    assert loss.item() == 0
    assert gradients(loss, z1)[0].shape == shape


@pytest.mark.parametrize("temperature", [0, -0.1, math.nan, torch.tensor(-1.0), torch.ones(2)])
def test_temperature_that_is_no_positive_number_is_refused(temperature: Any) -> None:
    z1, z2 = views(4, 3)
    with pytest.raises(InputError, match="temperature must be a positive number, got"):
        info_nce(z1, z2, temperature)


@pytest.mark.parametrize("temperatures", [[0.1, 0.2, 0.3], [0.1, 0.0], [[0.1, 0.2]]])
def test_temperatures_that_are_not_one_of_each_set_are_refused(temperatures: list) -> None:
    z1, z2 = views(2, 4, 3)
    with pytest.raises(InputError, match="must be a positive number, or 2 of them, got"):
        info_nce(z1, z2, torch.tensor(temperatures))


@pytest.mark.parametrize(
    ("first", "second"), [((4, 3), (5, 3)), ((4, 3), (1, 4, 3)), ((4,), (4,)), ((1, 1, 4, 3),) * 2]
)
def test_views_of_other_shapes_are_refused(first: tuple, second: tuple) -> None:
    with pytest.raises(InputError, match=r"\(B, D\) or \(P, B, D\)"):
        info_nce(torch.ones(first), torch.ones(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [(torch.int64, torch.int64), (torch.float32, torch.float64), (torch.float16, torch.float32)],
)
def test_views_of_other_dtypes_are_refused(first: torch.dtype, second: torch.dtype) -> None:
    with pytest.raises(InputError, match="one floating-point dtype"):
        info_nce(torch.ones(4, 3, dtype=first), torch.ones(4, 3, dtype=second))


@pytest.mark.parametrize(
    "case",
    [
        {"mask": torch.ones(4)},
        {"mask": torch.ones(4, dtype=torch.int64)},
        {"mask": torch.ones(5, dtype=torch.bool)},
        {"mask": torch.ones(1, dtype=torch.bool)},
        {"mask": torch.ones(3, 4, dtype=torch.bool)},
        {"mask": torch.ones(4, 2, dtype=torch.bool)},
        {"mask": torch.ones(2, 4)},
        {"group": torch.ones(4)},
        {"group": torch.ones(5, dtype=torch.int64)},
        {"group": torch.ones(2, 4, dtype=torch.int64)},
    ],
)
def test_masks_and_groups_that_do_not_fit_are_refused(case: dict[str, Tensor]) -> None:
    """A mask of 0 and 1 is no mask: ~1 is -2."""
    z1, z2 = views(2, 4, 3)
    with pytest.raises(InputError, match=rf"{next(iter(case))} must be \(4,\)"):
        info_nce(z1, z2, **case)


@pytest.mark.parametrize("name", ["chunk_size", "block_size"])
@pytest.mark.parametrize("size", [0, -3])
def test_sizes_below_one_are_refused(name: str, size: int) -> None:
    with pytest.raises(InputError, match=f"{name} must be 1 or more, got {size}"):
        info_nce(*views(4, 3), **{name: size})
