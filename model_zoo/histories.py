"""Move all padding of a history to one side."""

from __future__ import annotations

import torch
from torch import Tensor


def padding_last(mask: Tensor) -> Tensor:
    """Positions (B, L) that sort the behaviors of `mask` (B, L) first, the oldest at 0.

    They are those of a stable argsort, which has no ONNX form: a behavior goes behind the behaviors
    before it, padding behind all behaviors and the padding before it.
    """
    here = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    behaviors = mask.cumsum(dim=1)  # up to and including each position
    target = torch.where(mask, behaviors - 1, behaviors[:, -1:] + here - behaviors)
    return torch.zeros_like(here).scatter(1, target, here)


def padding_first(mask: Tensor) -> Tensor:
    """Positions (B, L) that sort the behaviors of `mask` (B, L) last, the newest at L - 1."""
    return padding_last(~mask)


def reorder(history: Tensor, positions: Tensor) -> Tensor:
    """Reorder `history` (B, L) or (B, L, K) by `positions` (B, L)."""
    if history.dim() == 3:
        positions = positions.unsqueeze(-1).expand(-1, -1, history.shape[-1])
    return history.gather(1, positions)
