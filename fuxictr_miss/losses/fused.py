"""The sum of Eq. 15 over all anchors, part by part: three fifths of the plain form's time, or less.

Each part's gradient is taken in closed form right after its similarities, in the memory that they
already hold; so only the similarities of one part exist at a time. `benchmarks/large_batches.py`
measures both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

SIMILARITIES_PER_PART = 2**19  # at most 2 MB in float32, which a CPU's caches hold
SIMILARITIES_ON_A_GPU = 2**26  # the same there: 256 MB, as a GPU wants few large kernels
MIN_ANCHORS_PER_PART = 64  # thinner matrix products are slow
_LOG2_E = math.log2(math.e)  # 2^x takes a quarter of the time of e^x


class FusedSum(torch.autograd.Function):
    """Σ_x -log softmax_x'(z1_x · z2_x') at x' = x.

    Args of `apply`:
        plain: the same sum in differentiable operations, for derivatives of the gradient.
        z1: (P, A, D) anchors, unit vectors over τ.
        z2: (P, B, D) unit vectors.
        mask: (P, B) booleans.
        group: (P, B), or (1, B) for all sets, or None.
        chunk_size: anchors of a set at a time; None lets the size decide.
        first: the row of `z2` that belongs to the first anchor.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plain: Callable[[Tensor, Tensor, Tensor, Tensor | None, int], Tensor],
        z1: Tensor,
        z2: Tensor,
        mask: Tensor,
        group: Tensor | None,
        chunk_size: int | None,
        first: int,
    ) -> Tensor:
        by_z1, by_z2 = z1.new_empty(z1.mT.shape), z2.new_zeros(z2.mT.shape)
        # One dimension more: the product with 1 is so low that it excludes rows outside the mask.
        # Products are faster with the rows last.
        one, outside = z1.new_ones(*z1.shape[:2], 1), _far(z2) * (~mask).unsqueeze(1).to(z2)
        anchors_1 = torch.cat([z1 * _LOG2_E, one], dim=2)  # (P, A, D + 1)
        z2_columns = torch.cat([z2.mT, outside], dim=1)  # (P, D + 1, B)
        total = z1.new_zeros(())
        for sets, anchors in _parts(z1, mask.shape[1], chunk_size):
            rows = slice(first + anchors.start, first + anchors.stop)  # of z2
            a, z, of_anchor = z1[sets, anchors], z2_columns[sets], mask[sets, rows]
            groups = group if group is None or len(group) == 1 else group[sets]
            logits = _logits(anchors_1[sets, anchors], z, groups, rows)
            own = logits.diagonal(rows.start, 1, 2)  # (p, c), a view
            own_logit = own.clone()
            e = logits.exp2_()
            sums = e.sum(dim=-1)
            total += (sums.log2() - own_logit).where(of_anchor, 0).sum()
            if any(ctx.needs_input_grad):
                share = sums.reciprocal().where(of_anchor, 0)  # e · share is the softmax
                own.sub_(sums)  # now it is the gradient: the softmax, less 1 at the positive
                by_z1[sets, :, anchors] = (z[:, :-1] @ e.mT).mul_(share.unsqueeze(1))
                by_z2[sets] += (a * share.unsqueeze(-1)).mT @ e
        ctx.plain, ctx.group, ctx.first = plain, group, first
        ctx.save_for_backward(z1, z2, mask, by_z1, by_z2)
        return total / _LOG2_E

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        z1, z2, mask, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            total = ctx.plain(z1, z2, mask, ctx.group, ctx.first)
            by = torch.autograd.grad(total, (z1, z2), grad_output, create_graph=True)
        else:
            by = tuple(grad_output * each.mT for each in gradients)
        return None, *by, None, None, None, None


def _logits(z1: Tensor, z2: Tensor, group: Tensor | None, rows: slice) -> Tensor:
    """log2 exp(z1 · z2) of anchors (p, c, D + 1) and all rows (p, D + 1, B), at most 0.

    Returns:
        (p, c, B), less the anchor's largest; rows that are no negatives are so low that 2^x is 0.
    """
    logits = z1 @ z2
    if group is not None:
        same_group = group[:, rows, None] == group[:, None]  # (p or 1, c, B)
        same_group.diagonal(rows.start, 1, 2).fill_(False)  # the positive itself stays
        logits.add_(same_group, alpha=_far(logits))
    return logits.sub_(logits.amax(dim=-1, keepdim=True))


def _far(z: Tensor) -> float:
    """A logit so low that 2^x is 0; the sum of three is finite."""
    return torch.finfo(z.dtype).min / 4


def _parts(z1: Tensor, rows: int, chunk_size: int | None) -> Iterator[tuple[slice, slice]]:
    """Which sets and which anchors form a part: a few whole sets, or a chunk of one's anchors.

    Args:
        z1: (P, A, D) anchors.
        rows: B, with which each is contrasted.
        chunk_size: as in `FusedSum`.
    """
    sets, per_set, _ = z1.shape
    most = SIMILARITIES_ON_A_GPU if z1.is_cuda else SIMILARITIES_PER_PART
    number = max(1, -(-sets * per_set * rows // most))
    some = max(1, -(-sets // number))  # in parts of nearly equal size
    chunk = chunk_size or max(MIN_ANCHORS_PER_PART, most // max(1, rows))
    for first_set in range(0, sets, some):
        for first in range(0, per_set, chunk):
            yield slice(first_set, first_set + some), slice(first, min(first + chunk, per_set))
