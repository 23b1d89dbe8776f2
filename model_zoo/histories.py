"""Move all padding of a history to one side."""

from __future__ import annotations

import torch
from torch import Tensor


def padding_last(mask: Tensor) -> Tensor:
    """Positions (B, L) that sort the behaviors of `mask` (B, L) first, the oldest at 0."""
    return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)


def padding_first(mask: Tensor) -> Tensor:
    """Positions (B, L) that sort the behaviors of `mask` (B, L) last, the newest at L - 1."""
    return mask.to(torch.uint8).argsort(dim=1, stable=True)


def reorder(history: Tensor, positions: Tensor) -> Tensor:
    """Reorder `history` (B, L) or (B, L, K) by `positions` (B, L)."""
    if history.dim() == 3:
        positions = positions.unsqueeze(-1).expand(-1, -1, history.shape[-1])
    return history.gather(1, positions)
