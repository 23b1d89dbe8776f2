"""Encoders that turn views into the vectors to contrast, and the similarity of a pair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.distributed import processes


def mlp(width: int, sizes: list[int]) -> nn.Sequential:
    """ReLU between the layers; the last layer is linear, so that outputs have both signs."""
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers[:-1])


def similarities(
    first: Tensor, second: Tensor, mask: Tensor, group: Tensor, watched: bool
) -> tuple[Tensor, Tensor | None]:
    """Mean cosine similarity of the positive pairs and, if `watched`, of the negatives.

    A negative is the second view of a row of another group. Sums of unit vectors give the mean over
    all of them in the time of one look at each view.

    Args:
        first: (B, ..., D) one view of each pair.
        second: (B, ..., D) the other view.
        mask: (B, ...) whether the pair exists.
        group: (B,) integers, equal for rows of one user.
        watched: whether the second mean is wanted.

    Returns:
        Scalars without a gradient, 0 if there is no such pair; None if not `watched`.
    """
    positive = mean_similarity(first, second, mask)
    if not watched:
        return positive, None
    with torch.no_grad():
        exists = mask.reshape(len(mask), -1, 1)  # (B, P, 1)
        views = (z.reshape(len(z), -1, z.shape[-1]) for z in (first, second))
        a, b = (exists * F.normalize(z, dim=-1) for z in views)
        _, of_row = group.unique(return_inverse=True)
        alike = a.new_zeros(len(a), *a.shape[1:])  # (groups, P, D)
        same = (alike.index_add(0, of_row, a) * alike.index_add(0, of_row, b)).sum()
        counts = alike[..., :1].index_add(0, of_row, exists.to(a))
        number = (counts.sum(dim=0).square() - counts.square().sum(dim=0)).sum()
        total = (a.sum(dim=0) * b.sum(dim=0)).sum() - same
        return positive, total / number.clamp(min=1)


def mean_similarity(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Mean cosine similarity of the pairs that exist, as in Fig. 5; 0 if there is none.

    Args:
        first: (..., D) one view of each pair.
        second: (..., D) the other view.
        mask: (...) whether the pair exists.

    Returns:
        A scalar without a gradient.
    """
    with torch.no_grad():
        dot = torch.linalg.vecdot
        lengths = (dot(first, first) * dot(second, second)).sqrt().clamp(min=1e-8)
        return (dot(first, second) / lengths * mask).sum() / processes.number_of_pairs(mask)
