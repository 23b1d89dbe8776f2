"""Which views are positive pairs: Aug_i (Eq. 11, 21) and Aug_if (Eq. 12, 24), drawn at random.

Only indices of windows and rows are drawn here; the extractors compute no others.
The axis order is that of `fuxictr_miss.behavior`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fuxictr_miss.methods.draws import numbers, shuffle, uniform

Distance = Literal["uniform", "gaussian", "geometric"]


class InterestPairs(NamedTuple):
    """Windows l and l + h of each branch m (Eq. 21)."""

    windows: Tensor  # (B, M, P, 2) index of the first behavior in the window of each view
    mask: Tensor  # (B, M, P) whether branch m has two windows in this history


class FeaturePairs(NamedTuple):
    """Rows j and j' of one window's Ĝ_{m,n} (Eq. 24)."""

    window: Tensor  # (B, M, N', Q) index of the first behavior in the window
    rows: Tensor  # (B, M, N', Q, 2) j and j'
    mask: Tensor  # (B, M, N', Q) whether branch m has a window in this history


def draw_interest_pairs(
    length: Tensor,
    max_width: int,
    max_distance: int | None,
    num_pairs: int,
    generator: torch.Generator,
    distance: Distance = "uniform",
    num_far_pairs: int = 0,
) -> InterestPairs:
    """RS_i of Eq. 21: P pairs of windows of equal width at a random distance h ∈ [1, H].

    A history has `length` - m + 1 windows of width m, and none of them touches padding.
    Where there are at most H windows, only the distances that exist are drawn. The start is
    uniform among those that keep both windows inside the history. The last pairs may be far ones,
    any two different windows in either order.

    Args:
        length: (B,) behaviors per row.
        max_width: M.
        max_distance: H; None: all pairs are far ones.
        num_pairs: P.
        generator: source of all randomness, on the device of `length`.
        distance: the distribution of h; the paper's is "uniform".
        num_far_pairs: how many of the P pairs are far ones.
    """
    shape = (len(length), max_width, num_pairs)
    width = torch.arange(1, max_width + 1, device=length.device)
    count = (length[:, None] - width + 1).unsqueeze(-1).expand(shape)  # windows: length - m + 1
    num_near_pairs = 0 if max_distance is None else num_pairs - num_far_pairs
    near, far = count.split([num_near_pairs, num_pairs - num_near_pairs], dim=-1)
    h = _distances(near, max_distance or 1, distance, generator)
    first = uniform(near - h, generator)
    one = uniform(far, generator)
    other = (one + 1 + uniform(far - 1, generator)) % far.clamp(min=1)
    near_pairs = torch.stack([first, first + h], dim=-1)  # Eq. 21
    far_pairs = torch.stack([one, other], dim=-1)
    return InterestPairs(torch.cat([near_pairs, far_pairs], dim=2), count >= 2)


def draw_halves(
    length: Tensor, max_len: int, num_pairs: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Aug_s of Eq. 8, for the variant without M: P random splits of a history into two halves.

    Args:
        length: (B,) behaviors per row.
        max_len: L.
        num_pairs: P.
        generator: source of all randomness, on the device of `length`.

    Returns:
        (B, P, 2, L) booleans: which behaviors each view has (an odd one goes to view 1); (B, P)
        booleans: whether both views have any.
    """
    present = torch.arange(max_len, device=length.device) < length[:, None]
    present = present.unsqueeze(1).expand(-1, num_pairs, -1)
    first = shuffle(present, generator) < ((length + 1) // 2)[:, None, None]
    halves = torch.stack([present & first, present & ~first], dim=2)  # Eq. 8
    return halves, (length >= 2)[:, None].expand(-1, num_pairs)


def draw_feature_pairs(
    length: Tensor,
    num_sequences: int,
    max_width: int,
    max_height: int,
    num_pairs: int,
    generator: torch.Generator,
) -> FeaturePairs:
    """RS_if of Eq. 24: Q pairs of different rows of Ĝ_{m,n}, both of the same random window.

    The paper draws "totally random" rows because features have no order. Both rows come from the
    same window, as the intra-item correlation is one "within each interest" (Section V.C). A
    kernel height n that leaves fewer than two rows (J - n + 1 < 2) has no pair, so
    N' = min(N, J - 1) heights remain.

    Args:
        length: (B,) behaviors per row.
        num_sequences: J.
        max_width: M.
        max_height: N.
        num_pairs: Q.
        generator: source of all randomness, on the device of `length`.
    """
    heights = usable_heights(num_sequences, max_height)
    shape = (len(length), max_width, heights, num_pairs)
    width = torch.arange(1, max_width + 1, device=length.device)
    count = (length[:, None] - width + 1)[..., None, None].expand(shape)  # windows: length - m + 1
    window = uniform(count, generator)
    height = torch.arange(1, heights + 1, device=length.device)
    rows = (num_sequences - height + 1)[:, None].expand(shape)  # of Ĝ_{m,n}: J - n + 1
    j = uniform(rows, generator)
    other = (j + 1 + uniform(rows - 1, generator)) % rows.clamp(min=1)
    return FeaturePairs(window, torch.stack([j, other], dim=-1), count >= 1)  # Eq. 24


def usable_heights(num_sequences: int, max_height: int) -> int:
    """N': how many of the kernel heights 1 to N leave two rows to compare."""
    return min(max_height, num_sequences - 1)


def _distances(
    count: Tensor, max_distance: int, distribution: str, generator: torch.Generator
) -> Tensor:
    """h between `count` windows, at most H.

    P(h) is constant, ∝ exp(-(h - 1)²/2σ²) with σ = H/2, or ∝ 2^-h.
    """
    available = (count - 1).clamp(min=1, max=max_distance)  # without a pair: 1, as of two windows
    if distribution == "uniform":
        return 1 + uniform(available, generator)
    step = torch.arange(max_distance, dtype=torch.float64, device=available.device)  # h - 1
    sigma = max_distance / 2
    weight = torch.exp(-((step / sigma) ** 2) / 2) if distribution == "gaussian" else 0.5**step
    up_to = torch.cat([weight.new_zeros(1), weight.cumsum(0)])  # of the distances 1..h
    draw = numbers(available.shape, generator, available.device)
    h = torch.searchsorted(up_to, draw * up_to[available], right=True)
    return h.minimum(available)
