"""The sum of a loss over its pairs, computed in parts that fit caches and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

SIMILARITIES_PER_PART = 2**18  # at most 1 MB in float32, which the caches hold
MIN_ANCHORS_PER_PART = 64  # thinner matrix products are slow
SIMILARITIES_KEPT = 2**23  # 34 MB in float32: up to these wait for the backward pass

# The sum over the anchors z1 (P, c, D), the rows from `first` on of z2 (P, D, B), given the mask
# (P, B) and the group (P, B), (1, B) or None.
Term = Callable[[Tensor, Tensor, Tensor, Tensor | None, int], Tensor]


def sum_over_parts(
    term: Term,
    z1: Tensor,
    z2: Tensor,
    mask: Tensor,
    group: Tensor | None,
    chunk_size: int | None,
) -> Tensor:
    """The sum of `term` over all anchors, a few sets or a chunk of the anchors of one at a time.

    Args:
        term: what to sum.
        z1: (P, B, D) anchors.
        z2: (P, B, D) what they are compared with.
        mask: (P, B).
        group: (P, B), or (1, B) for all sets, or None.
        chunk_size: anchors of a set at a time; None lets the size decide.

    Returns:
        Scalar. Unless there are few similarities, only those of one part exist at a time.
    """
    z2 = z2.mT.contiguous()  # in this order the gradient's product is up to twice as fast
    few = chunk_size is None and mask.numel() * mask.shape[-1] <= SIMILARITIES_KEPT
    if few or not z1.requires_grad:
        return _sum(term, z1, z2, mask, group, chunk_size)
    return _PartByPart.apply(term, z1, z2, mask, group, chunk_size)


def _sum(term: Term, *case: Any) -> Tensor:
    """The sum, which autograd can differentiate any number of times."""
    return torch.stack([term(*part) for part in _parts(*case)]).sum()


class _PartByPart(torch.autograd.Function):
    """`_sum` with the gradient of each part taken in the forward pass.

    `torch.utils.checkpoint` would compute every similarity twice; and it leaves small objects
    between the large buffers, so that the heap grows by a buffer a part. A second derivative keeps
    all similarities, as `_sum` does.
    """

    @staticmethod
    def forward(ctx: Any, term: Term, z1: Tensor, z2: Tensor, *rest: Any) -> Tensor:
        by_z1, by_z2 = torch.zeros_like(z1), torch.zeros_like(z2)  # the gradients
        total = z1.new_zeros(())
        parts = zip(_parts(z1, z2, *rest), _parts(by_z1, by_z2, *rest), strict=True)
        for (a, z, mask, group, first), (by_a, by_z, *_) in parts:
            inputs = a.detach().requires_grad_(), z.detach().requires_grad_()
            with torch.enable_grad():
                value = term(*inputs, mask, group, first)
            total += value.detach()
            for gradient, found in zip(
                (by_a, by_z), torch.autograd.grad(value, inputs), strict=True
            ):
                gradient += found
        ctx.term, ctx.rest = term, rest
        ctx.save_for_backward(z1, z2, by_z1, by_z2)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        z1, z2, by_z1, by_z2 = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            total = _sum(ctx.term, z1, z2, *ctx.rest)
            by = torch.autograd.grad(total, (z1, z2), grad_output, create_graph=True)
        else:
            by = (grad_output * by_z1, grad_output * by_z2)
        return None, *by, None, None, None


def _parts(
    z1: Tensor, z2: Tensor, mask: Tensor, group: Tensor | None, chunk_size: int | None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None, int]]:
    """The arguments of a `Term`, views all."""
    rows = max(1, z1.shape[1])
    number = max(1, -(-len(z1) * rows**2 // SIMILARITIES_PER_PART))
    sets = max(1, -(-len(z1) // number))  # in parts of nearly equal size
    anchors = chunk_size or max(MIN_ANCHORS_PER_PART, SIMILARITIES_PER_PART // rows)
    groups = repeat(group) if group is None or len(group) == 1 else group.split(sets)
    of_sets = zip(z1.split(sets), z2.split(sets), mask.split(sets), groups, strict=False)
    for z1, z2, mask, group in of_sets:
        for number, chunk in enumerate(z1.split(anchors, dim=1)):
            yield chunk, z2, mask, group, number * anchors
