"""The distinct items of the training rows, and how NextItem and IRSSL draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fuxictr_miss.behavior import in_parts


class Catalogue(NamedTuple):
    """The distinct items of the training rows; an item is a tuple of J attributes."""

    items: Tensor  # (I, J) ids
    up_to: Tensor  # (I,) float64 cumulative probabilities of the draw of negatives
    log_q: Tensor  # (I,) the logarithm of the probability


def catalogue(columns: Sequence[Tensor], power: float) -> Catalogue:
    """The distinct behaviors of some rows, and how they are drawn as negatives.

    Args:
        columns: J sequences, (rows, L) ids each; there is a behavior in them.
        power: of an item's frequency.
    """
    parts = []
    for behavior in in_parts(columns):
        ids = torch.stack([c[behavior.mask].long() for c in behavior.columns], dim=1)
        if len(ids):
            parts.append(_distinct(ids, ids.new_ones(len(ids))))
    items, count = _distinct(*(torch.cat(each) for each in zip(*parts, strict=True)))
    q = count.double() ** power
    q /= q.sum()
    return Catalogue(items, q.cumsum(0), q.log())


def _distinct(ids: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of (N, J) ids, and the sums of their counts (N,)."""
    place = torch.zeros_like(count)
    for column in ids.unbind(1):  # one column after another, as a product of all would overflow
        _, place = (place * (column.amax() + 1) + column).unique(return_inverse=True)
    total = count.new_zeros(int(place.max()) + 1).index_add(0, place, count)
    one_of_each = place.new_empty(len(total)).scatter(
        0, place, torch.arange(len(ids), device=ids.device)
    )
    return ids[one_of_each], total
