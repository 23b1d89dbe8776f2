"""Compare means over seeds: the best row, the strongest baseline, and whether ours beats it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from operator import itemgetter
from typing import TypeVar

import pandas as pd

from fuxictr_miss.paper.tables import BASELINE, CONTROL, OURS

SIGNIFICANCE = 0.05
MIN_SEEDS = 3  # for a test

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric of one block of a table; a row is its index.

    Args:
        best: the best row; None without results, or if neither direction is better.
        rivals: the strongest row of each role that ours is compared with.
        p_values: of each of our rows, the larger one if it has two rivals.
        gains: relative improvement of our best row over each rival, in percent.
    """

    best: int | None
    rivals: Mapping[str, int]
    p_values: Mapping[int, float]
    gains: Mapping[str, float]


def compare(values: Sequence[pd.Series], roles: Sequence[str], sign: int) -> Comparison:
    """Compare the rows of one block.

    Args:
        values: one per row, by seed; empty without results.
        roles: one per row: `BASELINE`, `CONTROL` or `OURS`; others are left out.
        sign: 1 if higher is better, -1 if lower is, 0 if neither.
    """

    def strongest(*among: str) -> int | None:
        means = [
            (sign * each.mean(), -i)
            for i, (each, role) in enumerate(zip(values, roles, strict=True))
            if len(each) and role in among
        ]
        return -max(means)[1] if means and sign else None

    strong = {role: strongest(role) for role in (BASELINE, CONTROL)}
    rivals = {role: i for role, i in strong.items() if i is not None}
    p_values, gains = {}, {}
    for i, role in enumerate(roles):
        if role == OURS and rivals:
            p = [_p_if_better(values[i], values[rival], sign) for rival in rivals.values()]
            p_values[i] = float(pd.Series(p).max(skipna=False))
    if (ours := strongest(OURS)) is not None:
        for role, rival in rivals.items():
            gains[role] = improvement(values[ours].mean(), values[rival].mean(), sign)
    return Comparison(strongest(BASELINE, CONTROL, OURS), rivals, p_values, gains)


def p_value(ours: pd.Series, rival: pd.Series) -> float:
    """p of a two-sided paired t-test on the common seeds, NaN with fewer than `MIN_SEEDS`."""
    from scipy.stats import ttest_rel  # late: half a second

    seeds = ours.index.intersection(rival.index)
    if len(seeds) < MIN_SEEDS:
        return math.nan
    if (ours[seeds] == rival[seeds]).all():
        return 1.0  # where t is 0 / 0
    return float(ttest_rel(ours[seeds], rival[seeds]).pvalue)


def _p_if_better(ours: pd.Series, rival: pd.Series, sign: int) -> float:
    """`p_value`, but 1 if ours is not better."""
    p = p_value(ours, rival)
    better = sign * (ours - rival).mean() > 0  # over the common seeds
    return p if better or math.isnan(p) else 1.0


def holm(p_values: Mapping[KeyT, float]) -> dict[KeyT, float]:
    """Adjust the p-values of several tests by Holm's step-down method; NaN is no test."""
    tests = {key: p for key, p in p_values.items() if not math.isnan(p)}
    adjusted, largest = {}, 0.0
    for rank, (key, p) in enumerate(sorted(tests.items(), key=itemgetter(1))):
        largest = max(largest, min(1.0, (len(tests) - rank) * p))
        adjusted[key] = largest
    return adjusted


def improvement(ours: float, rival: float, sign: int) -> float:
    """Relative improvement in percent, positive if ours is better."""
    return sign * 100 * (ours - rival) / rival
