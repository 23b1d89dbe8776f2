"""Contrastive losses with in-batch negatives: InfoNCE of Eq. 15 and 16, and NT-Xent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
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
    rows = None if valid is None else valid.expand(anchor.shape[:-1])
    kinds = [torch.stack([anchor, positive])]
    return contrast(kinds, temperature, group, [rows], chunk_size, block_size)[0]


def contrast(
    kinds: Sequence[Tensor],
    temperature: float,
    group: Tensor | None,
    valid: Sequence[Tensor | None],
    chunk_size: int | None = None,
    block_size: int | None = None,
) -> tuple[Tensor, ...]:
    """`info_nce` of several kinds of pairs in the products of one.

    Args:
        kinds: (2, ..., B, D) each, z1 and z2; D may differ.
        temperature: as the other arguments for `info_nce`.
        valid: (..., B) of each kind, or None.

    Returns:
        A scalar each.
    """
    return _InfoNCE.apply(temperature, group, valid, chunk_size, block_size, *kinds)


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
    """The means, a few sets or anchors at a time.

    Each is a scalar, so its gradient is known up to one factor as soon as the similarities are: it
    is summed up in the forward pass and no similarity outlives its part.
    """

    @staticmethod
    def forward(
        ctx: Any,
        temperature: float,
        group: Tensor | None,
        valid: Sequence[Tensor | None],
        chunk_size: int | None,
        block_size: int | None,
        *kinds: Tensor,
    ) -> tuple[Tensor, ...]:
        sets = _slices([math.prod(z.shape[1:-2]) for z in kinds])  # of each kind
        b = kinds[0].shape[-2]
        blocks = 1 if block_size is None else max(1, -(-b // block_size))
        size = -(-b // blocks)
        depth = max(z.shape[-1] for z in kinds)  # D
        needs_gradient = any(ctx.needs_input_grad)
        # the unit vectors of both views and, where one is needed, the gradient by them
        both = kinds[0].new_zeros(1 + needs_gradient, 2, sets[-1].stop, blocks, depth, size)
        w = both.new_zeros(sets[-1].stop, blocks * size)  # of an anchor in its mean, over τ
        pairs, norms, columns = [], [], []
        for z, rows, kind in zip(kinds, valid, sets, strict=True):
            z = _widened(z.movedim(-1, 0), blocks * size)  # (D, 2, ..., B), D outermost
            z = z.reshape(len(z), 2, -1, blocks, size)
            norms.append((z * z).sum(dim=0).sqrt_().clamp_(min=1e-12))  # as `F.normalize`
            columns.append(_columns(both, kind, len(z)))
            torch.div(z, norms[-1], out=columns[-1][0])
            pairs.append(z)
            if rows is None:
                w[kind, :b].fill_(1 / (temperature * z.shape[2] * b))
            else:
                exist = rows.reshape(-1, b).to(w.dtype)
                w[kind, :b] = exist / (temperature * exist.sum().clamp(min=1))
        sums = _contrast_blocks(
            both.flatten(2, 3),  # block after block of one set
            [len(z) for z in pairs for _ in range(z.shape[2])],
            w.view(-1, size),
            temperature,
            None if group is None else _widened(group, blocks * size).view(blocks, size),
            all(rows is None for rows in valid) and blocks * size == b,
            chunk_size,
        )
        if needs_gradient:  # through the norm: what is along a unit vector does not move it
            saved = []
            for z, norm, (u, g), of in zip(pairs, norms, columns, kinds, strict=True):
                along = (u * g).sum(dim=0)
                z_grad = torch.addcmul(g, u, along, value=-1, out=torch.empty_like(z)).div_(norm)
                z_grad = z_grad.flatten(3).narrow(-1, 0, b)
                saved.append(z_grad.movedim(0, -1).view(of.shape))
            ctx.save_for_backward(*saved)
        sums = (sums * (temperature * math.log(2))).view(-1, blocks)
        return tuple(sums[kind].sum() for kind in sets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients = zip(ctx.saved_tensors, grad_outputs, strict=True)
        return None, None, None, None, None, *(grad * scale for grad, scale in gradients)


def _contrast_blocks(
    both: Tensor,
    depths: list[int],
    w: Tensor,
    temperature: float,
    group: Tensor | None,
    all_exist: bool,
    chunk_size: int | None,
) -> Tensor:
    """Σ_x w_x τ log2( ... ) of Eq. 15 in S sets of B rows, without the factor τ: (S,).

    Args:
        both: (1 or 2, 2, S, D, B): unit vectors, z1 and z2, and zeros that become the gradient by
            them of the ln 2-fold, unless none is needed. Products are faster with the rows last.
        depths: how much of D is used, zeros follow, by each of as many equal parts of S.
        w: (S, B); 0 where there is no pair.
        group: (S / P, B), the sets taking turns, or None.
        all_exist: whether `w` has no 0.
    """
    unit = both[0]
    a, z = unit
    grad = both[1] if len(both) > 1 else None
    scale = math.log2(math.e) / temperature  # 2^x takes half the time of e^x
    floor = torch.finfo(unit.dtype).max ** -0.25
    may_overflow = scale > -math.log2(floor)  # else no 2^x is below the floor, nor too large
    apart = -(2000 + 4 * scale)  # 2 to its power is 0 beside any similarity
    absent = None if all_exist else _filled(w == 0, apart, unit).unsqueeze(1)  # (S, 1, B)
    sums = unit.new_zeros(len(w))
    blocks = 1 if group is None else len(group)
    each = len(w) // len(depths)
    at_once, chunk_size = _sizes(len(w), unit.shape[3], chunk_size)
    memory = unit.new_empty(at_once, chunk_size, unit.shape[3])  # of the similarities of a part
    for rows, parts in _parts(len(w), blocks, unit.shape[3], at_once, chunk_size):
        alike = None if group is None else _filled(_alike(group, rows), apart, unit)
        for part, of_group in parts:
            depth = max(depths[part.start // each : -(-part.stop // each)])
            a_part, z_part, w_part = a[part, :depth, rows], z[part, :depth], w[part, rows]
            logits = memory[: len(a_part), : a_part.shape[2]]  # (p, c, B)
            if alike is not None:
                torch.baddbmm(alike[of_group], a_part.mT, z_part, alpha=scale, out=logits)
            else:
                torch.baddbmm(logits, a_part.mT, z_part, beta=0, alpha=scale, out=logits)
            if absent is not None:
                logits += absent[part]
            own = logits.diagonal(offset=rows.start, dim1=1, dim2=2)  # a view, soon of e
            if may_overflow:
                top = logits.amax(dim=-1, keepdim=True)
                below = own - top.squeeze(-1)
                logits -= top
            e = logits.exp2_()
            total = e.sum(dim=-1)  # (p, c)
            if absent is not None:  # a row without a pair may see no column, not even its own
                total.clamp_(min=floor)
                own.clamp_(min=floor)
            lost = total.log2() - below if may_overflow else (total / own).log2()
            sums[part].add_(torch.linalg.vecdot(lost, w_part))
            if grad is not None:
                # e / total is the softmax by which the negatives push, the positive pulls by 1
                own.sub_(total)
                share = (w_part / total).unsqueeze(1)
                torch.mul(torch.bmm(z_part, e.mT), share, out=grad[0, part, :depth, rows])
                grad[1, part, :depth].add_(torch.bmm(a_part * share, e))
    return sums


def _columns(both: Tensor, kind: slice, depth: int) -> tuple[Tensor, ...]:
    """A kind's (D, 2, P, blocks, size) in each part of a buffer of (..., 2, S, blocks, D, size)."""
    return both[:, :, kind, :, :depth].permute(0, 4, 1, 2, 3, 5).unbind()


def _filled(where: Tensor, value: float, like: Tensor) -> Tensor:
    """`value` where a condition holds, else 0."""
    return where.to(like.dtype).mul_(value)


def _widened(x: Tensor, width: int) -> Tensor:
    """Zeros behind the last dimension."""
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def _slices(sizes: Iterable[int]) -> list[slice]:
    ends = list(itertools.accumulate(sizes, initial=0))
    return list(itertools.starmap(slice, itertools.pairwise(ends)))


def _sizes(sets: int, b: int, chunk_size: int | None) -> tuple[int, int]:
    """How many sets, and of each how many anchors, to compute together."""
    if chunk_size is not None:
        return sets, min(chunk_size, b)
    anchors = max(_ANCHORS_AT_ONCE, _SIMILARITIES_AT_ONCE // b)
    return min(sets, max(1, _SIMILARITIES_AT_ONCE // b**2)), min(anchors, b)


def _parts(
    sets: int, blocks: int, b: int, at_once: int, chunk_size: int
) -> Iterator[tuple[slice, list[tuple[slice, slice]]]]:
    """Anchors to compute together, and for them the slices of sets, each with that of its groups.

    The groups of `blocks` sets follow each other, again and again.
    """
    if blocks == 1:
        parts = [(slice(s, s + at_once), slice(None)) for s in range(0, sets, at_once)]
    else:
        parts = [
            (slice(s + k, s + min(k + at_once, blocks)), slice(k, k + at_once))
            for s in range(0, sets, blocks)
            for k in range(0, blocks, at_once)
        ]
    for start in range(0, b, chunk_size):
        yield slice(start, min(start + chunk_size, b)), parts


def _alike(group: Tensor, rows: slice) -> Tensor:
    """(blocks, c, B): whether a column is of the row's group and not its own positive."""
    same = group[:, rows, None] == group[:, None]
    same.diagonal(offset=rows.start, dim1=1, dim2=2).fill_(False)
    return same
