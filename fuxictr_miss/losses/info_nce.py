"""InfoNCE with in-batch negatives: Eq. 15 on interests, Eq. 16 on features."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fuxictr_miss.distributed import processes
from fuxictr_miss.losses.checks import check_masks, check_size, check_temperature, check_views
from fuxictr_miss.losses.fused import FusedSum

_NO_PAIR = -100  # the target that cross entropy ignores


def info_nce(
    anchor: Tensor,
    positive: Tensor,
    temperature: float | list[float] | Tensor = 0.1,
    group: Tensor | None = None,
    chunk_size: int | None = None,
    mask: Tensor | None = None,
    block_size: int | None = None,
) -> Tensor:
    """InfoNCE of MISS (https://arxiv.org/abs/2111.15068) over P sets of B positive pairs.

    -1/|mask| Σ_p Σ_x log( exp(s(z1_px, z2_px)/τ) / Σ_x' exp(s(z1_px, z2_px')/τ) )  (Eq. 15, 16)

    s is the cosine, and the negatives of a row are the other rows of the batch. float16 and
    bfloat16 views are computed in float32, also under autocast.

    Args:
        anchor: z1, (B, D) or (P, B, D).
        positive: z2, same shape; row b of `anchor` and row b of `positive` are a positive pair.
        temperature: τ > 0, a number or P of them, one of each set; or a tensor of one or (P,),
            which may be learnable.
        group: (B,) integers; rows of one group are never each other's negatives. None: every row
            is a group of its own.
        chunk_size: anchors per matrix product, to bound the memory. None: only large batches are
            chunked. The loss is the same.
        mask: (B,) or (P, B) booleans; a row outside the mask is neither anchor nor negative. None:
            all rows are in it.
        block_size: the most rows that are each other's negatives: a larger batch is cut into
            blocks of nearly equal size, in row order. None: the whole batch is one block.

    Returns:
        Scalar, the mean over the pairs in the mask; exactly 0 if there is none.

    Raises:
        InputError: a size or the temperature is not positive, or shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from fuxictr_miss.losses import info_nce
        >>> views = torch.eye(3)  # similarity 1 with the positive, 0 with the two negatives
        >>> info_nce(views, views, temperature=1.0)  # log(e + 2) - 1
        tensor(0.5514)
        >>> info_nce(views, views, temperature=1.0, group=torch.tensor([7, 7, 8]))
        tensor(0.3927)
        >>> info_nce(views, views, temperature=1.0, mask=torch.tensor([True, True, False]))
        tensor(0.3133)
    """
    check_size("chunk_size", chunk_size)
    check_size("block_size", block_size)
    check_views("anchor and positive", anchor, positive, (2, 3))
    check_temperature(temperature, sets=len(anchor) if anchor.dim() == 3 else 1)
    check_masks(anchor, group, mask)
    rows, share = anchor.shape[-2], processes.share()  # B, of which a process may have a share
    everyone = rows if share is None or not share.gather else rows // share.rows * share.total
    blocks = 1 if block_size is None else max(1, -(-everyone // block_size))  # K
    size = max(1, -(-everyone // blocks))  # rows of a block
    with torch.autocast(anchor.device.type, enabled=False):
        kind = torch.promote_types(anchor.dtype, torch.float32)
        z1, z2 = (
            z if z.dim() == 3 else z.unsqueeze(0) for z in (anchor.to(kind), positive.to(kind))
        )
        tau = temperature
        if isinstance(tau, list):
            tau = _on_device(tuple(tau), kind, z1.device)
        elif isinstance(tau, Tensor):
            tau = tau.to(z1.device, kind).view(-1, 1, 1)
        z1 = z1 * (_inverse_length(z1) / tau)  # (P, B, D)
        z2 = z2 * _inverse_length(z2)
        mask = z1.new_ones(rows, dtype=torch.bool) if mask is None else mask
        mask = mask.expand(z1.shape[:2])  # (P, B)
        if share is None or not share.gather or _whole_blocks(share, rows, size):
            if group is not None:
                group = _cut(group.expand(1 if rows <= size else len(z1), -1), size)
            z1, z2, in_mask = _cut(z1, size), _cut(z2, size), _cut(mask, size)
            total = FusedSum.apply(_sum_of_terms, z1, z2, in_mask, group, chunk_size, 0)
        else:
            total = _against_everyone(share, z1, z2, mask, group, chunk_size, size)
        return (total / processes.number_of_pairs(mask)).to(anchor.dtype)


def _whole_blocks(share: processes.Share, rows: int, size: int) -> bool:
    """Whether every process has all rows of its blocks."""
    times = rows // share.rows
    return all(edge * times % size == 0 for edge in share.edges[:-1])


def _against_everyone(
    share: processes.Share,
    z1: Tensor,
    z2: Tensor,
    mask: Tensor,
    group: Tensor | None,
    chunk_size: int | None,
    size: int,
) -> Tensor:
    """The sum over this process's anchors, contrasted with the rows of all processes."""
    times = z1.shape[1] // share.rows
    start, stop = share.own.start * times, share.own.stop * times
    z2 = processes.gather(z2, dim=1)
    mask = processes.gather(mask, dim=1, gradient=False)
    group = None if group is None else processes.gather(group[None], dim=1, gradient=False)
    terms = []
    for block in range(start - start % size, stop, size):  # those with rows of this process
        rows = slice(max(start, block), min(stop, block + size))
        inside = slice(block, min(block + size, z2.shape[1]))
        anchors = z1[:, rows.start - start : rows.stop - start]
        groups = group if group is None else group[:, inside]
        terms.append(
            FusedSum.apply(
                _sum_of_terms, anchors, z2[:, inside], mask[:, inside], groups, chunk_size,
                rows.start - block,
            )
        )  # fmt: skip
    return torch.stack(terms).sum()


@lru_cache(maxsize=64)
def _on_device(temperatures: tuple[float, ...], kind: torch.dtype, device: torch.device) -> Tensor:
    """(P, 1, 1) temperatures; kept, as a copy to a GPU is waited for."""
    with torch.inference_mode(False):
        return torch.tensor(temperatures, dtype=kind, device=device).view(-1, 1, 1)


def _inverse_length(z: Tensor) -> Tensor:
    """(P, B, 1) one over the lengths of the views, which count as 1e-12 at least."""
    return z.square().sum(dim=-1, keepdim=True).clamp(min=1e-24).rsqrt()


def _sum_of_terms(z1: Tensor, z2: Tensor, mask: Tensor, group: Tensor | None, first: int) -> Tensor:
    """Σ_p Σ_x -log( ... ) of Eq. 15.

    Args:
        z1: (P, A, D) anchors, unit vectors over τ.
        z2: (P, B, D) unit vectors.
        mask: (P, B).
        group: (P, B), or (1, B) for all sets, or None.
        first: the row of `z2` that belongs to the first anchor.
    """
    row = torch.arange(z2.shape[1], device=z1.device)
    anchor = row[first : first + z1.shape[1]]
    excluded = ~mask.unsqueeze(1)  # (P, 1, B)
    if group is not None:
        same_group = (group[:, anchor, None] == group[:, None]) & (anchor[:, None] != row)
        excluded = excluded | same_group  # (P, A, B), row = anchor
    logits = (z1 @ z2.mT).masked_fill(excluded, torch.finfo(z1.dtype).min)  # (P, A, B)
    target = anchor.where(mask[:, anchor], _NO_PAIR)
    return F.cross_entropy(
        logits.flatten(0, 1), target.flatten(), reduction="sum", ignore_index=_NO_PAIR
    )


def _cut(x: Tensor, size: int) -> Tensor:
    """(P, B, ...) to (PK, B/K, ...): every block is a set; zeros fill up the last one."""
    blocks = -(-x.shape[1] // size)
    if blocks == 1:
        return x
    padding = (0, 0) * (x.dim() - 2) + (0, blocks * size - x.shape[1])
    return F.pad(x, padding).unflatten(1, (blocks, size)).flatten(0, 1)
