"""InfoNCE with in-batch negatives: Eq. 15 on interests, Eq. 16 on features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fuxictr_miss.losses.checks import check_masks, check_size, check_temperature, check_views
from fuxictr_miss.losses.fused import FusedSum

_NO_PAIR = -100  # the target that cross entropy ignores


def info_nce(
    anchor: Tensor,
    positive: Tensor,
    temperature: float | Tensor = 0.1,
    group: Tensor | None = None,
    chunk_size: int | None = None,
    mask: Tensor | None = None,
    block_size: int | None = None,
) -> Tensor:
    """InfoNCE over P sets of B positive pairs: cosine similarity, in-batch negatives.

    -1/|mask| Σ_p Σ_x log( exp(s(z1_px, z2_px)/τ) / Σ_x' exp(s(z1_px, z2_px')/τ) )  (Eq. 15, 16)

    float16 and bfloat16 views are computed in float32, also under autocast.

    Args:
        anchor: z1, (B, D) or (P, B, D).
        positive: z2, same shape; row b of `anchor` and row b of `positive` are a positive pair.
        temperature: τ > 0, a number or a scalar tensor, which may be learnable.
        group: (B,) integers; rows of one group are never each other's negatives. None: every row
            is a group of its own.
        chunk_size: anchors a matrix product, to bound the memory. None: only large batches are
            chunked. The loss is the same.
        mask: (B,) or (P, B) booleans; a row outside the mask is neither anchor nor negative. None:
            all rows are in it.
        block_size: at most so many rows are each other's negatives: a larger batch is cut into
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
    check_temperature(temperature)
    check_views("anchor and positive", anchor, positive, (2, 3))
    check_masks(anchor, group, mask)
    rows = anchor.shape[-2]  # B
    blocks = 1 if block_size is None else max(1, -(-rows // block_size))  # K
    with torch.autocast(anchor.device.type, enabled=False):
        kind = torch.promote_types(anchor.dtype, torch.float32)
        z1, z2 = (
            z if z.dim() == 3 else z.unsqueeze(0) for z in (anchor.to(kind), positive.to(kind))
        )
        tau = torch.as_tensor(temperature, dtype=kind, device=z1.device)
        z1 = z1 / (tau * _norm(z1))  # (P, B, D)
        z2 = z2 / _norm(z2)
        mask = z1.new_ones(rows, dtype=torch.bool) if mask is None else mask
        mask = mask.expand(z1.shape[:2])  # (P, B)
        if group is not None:
            group = _cut(group.expand(1 if blocks == 1 else len(z1), -1), blocks)
        z1, z2, in_mask = _cut(z1, blocks), _cut(z2, blocks), _cut(mask, blocks)
        total = FusedSum.apply(_sum_of_terms, z1, z2, in_mask, group, chunk_size)
        return (total / mask.sum().clamp(min=1)).to(anchor.dtype)


def _norm(z: Tensor) -> Tensor:
    """(P, B, 1) lengths of the views, at least 1e-12."""
    return torch.linalg.vector_norm(z, dim=-1, keepdim=True).clamp(min=1e-12)


def _sum_of_terms(z1: Tensor, z2: Tensor, mask: Tensor, group: Tensor | None) -> Tensor:
    """Σ_p Σ_x -log( ... ) of Eq. 15.

    Args:
        z1: (P, B, D) anchors, unit vectors over τ.
        z2: (P, B, D) unit vectors.
        mask: (P, B).
        group: (P, B), or (1, B) for all sets, or None.
    """
    row = torch.arange(z1.shape[1], device=z1.device)
    excluded = ~mask.unsqueeze(1)  # (P, 1, B)
    if group is not None:
        same_group = (group[:, :, None] == group[:, None]) & (row[:, None] != row)
        excluded = excluded | same_group  # (P, B, B), row = anchor
    logits = (z1 @ z2.mT).masked_fill(excluded, torch.finfo(z1.dtype).min)  # (P, B, B)
    target = row.where(mask, _NO_PAIR)
    return F.cross_entropy(
        logits.flatten(0, 1), target.flatten(), reduction="sum", ignore_index=_NO_PAIR
    )


def _cut(x: Tensor, blocks: int) -> Tensor:
    """(P, B, ...) to (PK, B/K, ...): every block is a set; zeros fill up the last one."""
    if blocks == 1:
        return x
    size = -(-x.shape[1] // blocks)
    padding = (0, 0) * (x.dim() - 2) + (0, blocks * size - x.shape[1])
    return F.pad(x, padding).unflatten(1, (blocks, size)).flatten(0, 1)
