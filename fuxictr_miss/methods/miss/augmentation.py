"""Which views are positive pairs: Aug_i (Eq. 11, 21) and Aug_if (Eq. 12, 24), drawn at random.

Only numbers of windows and rows are drawn here; the extractors then compute those and no others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class InterestPairs(NamedTuple):
    """Windows l and l+h of each branch m (Eq. 21)."""

    first: Tensor  # (B, M, P) start of the window of view 1, counted in behaviors
    second: Tensor  # (B, M, P) start of the window of view 2
    valid: Tensor  # (B, M) whether branch m has two windows in this history


class FeaturePairs(NamedTuple):
    """Rows j and j' of one window's Ĝ_{m,n} (Eq. 24)."""

    window: Tensor  # (B, M, N', Q) start of the window
    rows: Tensor  # (B, M, N', Q, 2) j and j'
    valid: Tensor  # (B, M) whether branch m has a window in this history


def draw_interest_pairs(
    length: Tensor, max_width: int, max_distance: int, num_pairs: int, generator: torch.Generator
) -> InterestPairs:
    """RS_i of Eq. 21: P pairs of windows of equal width at a distance h, uniform on [1, H].

    A history of n behaviors has n - m + 1 windows of width m, none of which touches padding.
    Where fewer than H + 1 windows exist, h is uniform on the distances that do; the start is
    uniform on those that keep both windows inside.

    Args:
        length: (B,) behaviors a row, n.
        max_width: M.
        max_distance: H.
        num_pairs: P.
        generator: source of all randomness, on the device of `length`.
    """
    shape = (len(length), max_width, num_pairs)
    width = torch.arange(1, max_width + 1, device=length.device)
    windows = (length[:, None] - width + 1).unsqueeze(-1).expand(shape)  # (B, M, P): L - m + 1
    distance = 1 + _uniform((windows - 1).clamp(max=max_distance), generator)
    first = _uniform(windows - distance, generator)
    return InterestPairs(first, first + distance, windows[..., 0] >= 2)


def draw_feature_pairs(
    length: Tensor,
    num_sequences: int,
    max_width: int,
    max_height: int,
    num_pairs: int,
    generator: torch.Generator,
) -> FeaturePairs:
    """RS_if of Eq. 24: Q pairs of different rows of Ĝ_{m,n}, both of the same random window.

    The paper draws "totally random" rows because features have no order; the window is one for
    both views, as the intra-item correlation is one "within each interest" (Section V.C). Kernel
    heights n with fewer than two rows, J - n + 1 < 2, have no pair: N' = min(N, J - 1) remain.

    Args:
        length: (B,) behaviors a row.
        num_sequences: J.
        max_width: M.
        max_height: N.
        num_pairs: Q.
        generator: source of all randomness, on the device of `length`.
    """
    heights = usable_heights(num_sequences, max_height)
    shape = (len(length), max_width, heights, num_pairs)
    width = torch.arange(1, max_width + 1, device=length.device)
    windows = length[:, None] - width + 1  # (B, M)
    window = _uniform(windows[..., None, None].expand(shape), generator)
    height = torch.arange(1, heights + 1, device=length.device)
    rows = (num_sequences - height + 1)[:, None].expand(shape)  # (B, M, N', Q): J - n + 1
    first = _uniform(rows, generator)
    second = (first + 1 + _uniform(rows - 1, generator)) % rows.clamp(min=1)
    return FeaturePairs(window, torch.stack([first, second], dim=-1), windows >= 1)


def usable_heights(num_sequences: int, max_height: int) -> int:
    """N': how many of the kernel heights 1..N leave two rows to compare."""
    return min(max_height, num_sequences - 1)


def _uniform(count: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform integers on [0, count); 0 where count is not positive."""
    draw = torch.rand(count.shape, generator=generator, device=count.device)
    return (draw * count).long().clamp(min=0).minimum((count - 1).clamp(min=0))
