"""Contrastive losses with in-batch negatives: InfoNCE of Eq. 15 and 16, and NT-Xent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fuxictr_miss.errors import InputError

# Similarities computed at once (1 MB in float32): more than that leaves the processor's caches.
_SIMILARITIES_AT_ONCE = 2**18
_ANCHORS_AT_ONCE = 64  # at least, or the products get too thin


def info_nce(
    anchor: Tensor,
    positive: Tensor,
    temperature: float = 0.1,
    group: Tensor | None = None,
    chunk_size: int | None = None,
    valid: Tensor | None = None,
    block_size: int | None = None,
) -> Tensor:
    """InfoNCE over P sets of positive pairs, cosine similarity, in-batch negatives (Eq. 15, 16).

    -1/|valid| Σ_p Σ_x log( exp(s(z1_px, z2_px)/τ) / Σ_x' exp(s(z1_px, z2_px')/τ) )

    Args:
        anchor: z1, (B, D) or (P, B, D).
        positive: z2, same shape; row b of `anchor` and `positive` is a positive pair.
        temperature: τ > 0.
        group: (B,) integers; rows of one group are never each other's negatives.
        chunk_size: anchors per matrix product, to bound memory; None lets the size decide. It does
            not change the loss.
        valid: (B,) or (P, B) booleans; a row that is not valid is neither anchor nor negative.
        block_size: at most so many rows are each other's negatives: a larger batch is cut into
            blocks of nearly equal size, in their order, and B of Eq. 15 is one of them. None: the
            whole batch.

    Returns:
        Scalar, the mean over the valid pairs; exactly 0 where there is none.

    Raises:
        InputError: τ, `chunk_size` or `block_size` is not positive, or shapes do not fit.
    """
    for name, size in (("chunk_size", chunk_size), ("block_size", block_size)):
        if size is not None and size < 1:
            raise InputError(f"{name} must be 1 or more, got {size}.")
    if not temperature > 0:
        raise InputError(f"The temperature must be positive, got {temperature}.")
    if anchor.shape != positive.shape or anchor.dim() not in (2, 3):
        raise InputError(
            "anchor and positive must both be (B, D) or (P, B, D), got "
            f"{tuple(anchor.shape)} and {tuple(positive.shape)}."
        )
    if anchor.dim() == 2:
        anchor, positive = anchor.unsqueeze(0), positive.unsqueeze(0)
    p, b, _ = anchor.shape
    valid = None if valid is None else valid.expand(p, b)
    terms = contrast(
        torch.stack([anchor, positive]), temperature, group, valid, chunk_size, block_size
    )
    return terms.sum() / (p * b if valid is None else valid.sum().clamp(min=1))


def contrast(
    views: Tensor,
    temperature: float,
    group: Tensor | None,
    valid: Tensor | None,
    chunk_size: int | None = None,
    block_size: int | None = None,
) -> Tensor:
    """The terms of `info_nce`, summed set by set, so that one call serves several losses.

    Args:
        views: (2, P, B, D), z1 and z2.
        temperature: as the other arguments for `info_nce`.
        valid: (P, B), or None.

    Returns:
        (P,): -Σ_x log( ... ) over the valid rows of a set.
    """
    _, p, b, _ = views.shape
    if block_size is None or b <= block_size:
        return _InfoNCE.apply(views, temperature, group, valid, chunk_size)
    blocks = -(-b // block_size)
    size = -(-b // blocks)
    missing = blocks * size - b
    if valid is None:
        valid = views.new_ones((p, b), dtype=torch.bool)
    views = F.pad(views, (0, 0, 0, missing)).unflatten(2, (blocks, size))
    valid = F.pad(valid, (0, missing)).unflatten(1, (blocks, size))
    if group is not None:
        group = F.pad(group, (0, missing)).view(blocks, size)
    terms = _InfoNCE.apply(
        views.transpose(1, 2).flatten(1, 2),  # all sets of a block, then all of the next
        temperature,
        group,
        valid.transpose(0, 1).flatten(0, 1),
        chunk_size,
    )
    return terms.unflatten(0, (blocks, p)).sum(dim=0)


def nt_xent(
    first: Tensor,
    second: Tensor,
    temperature: float = 0.1,
    group: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """NT-Xent of SimCLR (arXiv 2002.05709): each of 2B views against the 2(B - 1) of other rows.

    -1/(2|valid|) Σ_i log( exp(s(z_i, z_i⁺)/τ) / Σ_{k≠i} exp(s(z_i, z_k)/τ) ), s the cosine

    Args:
        first: (B, D) one view of each row.
        second: (B, D) the other.
        temperature: τ > 0.
        group: (B,) integers; rows of one group are never each other's negatives.
        valid: (B,) booleans; a row that is not valid is neither anchor nor negative.

    Returns:
        Scalar, the mean over both views of the valid rows; exactly 0 where there is none.

    Raises:
        InputError: τ is not positive, or shapes do not fit.
    """
    if not temperature > 0:
        raise InputError(f"The temperature must be positive, got {temperature}.")
    if first.shape != second.shape or first.dim() != 2:
        raise InputError(
            f"first and second must both be (B, D), got {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    b = len(first)
    z = F.normalize(torch.cat([first, second]), dim=-1)  # (2B, D)
    row = torch.arange(b, device=z.device).repeat(2)  # (2B,) the row a view is of
    valid = first.new_ones(b, dtype=torch.bool) if valid is None else valid
    group = row if group is None else group.repeat(2)
    excluded = ~valid.repeat(2) | (group[:, None] == group)  # (2B, 2B), row = anchor
    views = torch.arange(2 * b, device=z.device)
    twin = views.roll(b)
    excluded[views, twin] = False  # the positive itself always stays
    logits = (z @ z.mT / temperature).masked_fill(excluded, -torch.inf)
    own = logits.gather(1, twin.unsqueeze(1)).squeeze(1)
    weight = valid.repeat(2).to(z.dtype) / (2 * valid.sum()).clamp(min=1)
    return ((logits.logsumexp(dim=-1) - own) * weight).sum()


class _InfoNCE(torch.autograd.Function):
    """The sums, a few sets or anchors at a time.

    Each is a scalar, so its gradient is known up to one factor as soon as the similarities are: it
    is summed up in the forward pass and no similarity outlives its part.
    """

    @staticmethod
    def forward(
        ctx: Any,
        views: Tensor,
        temperature: float,
        group: Tensor | None,
        valid: Tensor | None,
        chunk_size: int | None,
    ) -> Tensor:
        norm = views.norm(dim=-1, keepdim=True).clamp_(min=1e-12)  # as `F.normalize`
        unit = views / norm  # (2, P, B, D)
        a, z = unit
        p, b, _ = a.shape
        apart = -(2000 + 6 / temperature)  # 2 to its power is 0 beside any similarity
        if valid is None:
            w = unit.new_full((p, b, 1), 1 / temperature)
        else:
            exists = valid.to(unit.dtype)
            w = exists.unsqueeze(-1) / temperature
            absent = (1 - exists).mul_(apart).unsqueeze(1)  # (P, 1, B)
        needs_gradient = ctx.needs_input_grad[0]
        if needs_gradient:
            grad = torch.empty_like(unit)  # of -(a · z)/τ, by a and by z
            grad_a, grad_z = torch.mul(z, -w, out=grad[0]), torch.mul(a, -w, out=grad[1])
        scaled = a * (math.log2(math.e) / temperature)  # 2^x takes half the time of e^x
        group = None if group is None else group.view(-1, b)
        blocks = 1 if group is None else len(group)
        sums = unit.new_zeros(p)
        for rows, parts in _parts(p // blocks, blocks, b, chunk_size):
            alike = None if group is None else _alike(group, rows, unit) * apart
            for block, sets in parts:
                z_part, w_part = z[sets], w[sets, rows]
                logits = scaled[sets, rows] @ z_part.mT  # (p, c, B)
                if valid is not None:
                    logits += absent[sets]
                if alike is not None:
                    logits += alike[block]
                own = logits.diagonal(offset=rows.start, dim1=1, dim2=2).clone()
                top = logits.amax(dim=-1, keepdim=True)
                e = logits.sub_(top).exp2_()
                total = e.sum(dim=-1, keepdim=True)  # (p, c, 1)
                lse = top.add_(total.log2()).squeeze(-1)
                terms = lse.sub_(own)
                if valid is not None:
                    terms *= exists[sets, rows]
                sums[sets] += terms.sum(dim=-1)
                if needs_gradient:
                    share = w_part / total  # e * share: the softmax by which the negatives push
                    grad_a[sets, rows] += (e @ z_part) * share
                    grad_z[sets] += e.mT @ (a[sets, rows] * share)
        if needs_gradient:  # through the norm: what is along a unit vector does not move it
            along = (unit * grad).sum(dim=-1, keepdim=True)
            ctx.save_for_backward(grad.addcmul_(unit, along, value=-1).div_(norm))
        return sums.mul_(math.log(2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        (scale,) = grad_outputs
        return grad * scale[:, None, None], None, None, None, None


def _parts(
    p: int, blocks: int, b: int, chunk_size: int | None
) -> Iterator[tuple[slice, list[tuple[int, slice]]]]:
    """Anchors to compute together, and for them the slices of sets, p a block, each of one block."""
    sets = p
    if chunk_size is None:
        sets = max(1, min(p, _SIMILARITIES_AT_ONCE // b**2))
        chunk_size = max(_ANCHORS_AT_ONCE, _SIMILARITIES_AT_ONCE // b)
    parts = [
        (block, slice(block * p + first, block * p + min(first + sets, p)))
        for block in range(blocks)
        for first in range(0, p, sets)
    ]
    for start in range(0, b, chunk_size):
        yield slice(start, min(start + chunk_size, b)), parts


def _alike(group: Tensor, rows: slice, like: Tensor) -> Tensor:
    """(blocks, c, B): 1 where a column is of the row's group and not its own positive, else 0."""
    same = (group[:, rows, None] == group[:, None]).to(like.dtype)
    same.diagonal(offset=rows.start, dim1=1, dim2=2).fill_(0)
    return same
