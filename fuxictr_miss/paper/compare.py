"""Compare means over seeds: the best, and whether MISS beats the strongest baseline."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

SIGNIFICANCE = 0.05
MIN_SEEDS = 3  # for a test


@dataclasses.dataclass(frozen=True)
class Measured:
    """The values of one metric of one model, by seed."""

    values: Mapping[int, float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values.values())

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for a single seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Mark:
    """How a cell is highlighted: bold, underlined, starred."""

    best: bool = False
    strongest_baseline: bool = False
    significant: bool = False


def marks(
    cells: Sequence[Measured | None], ours: Sequence[bool], higher_is_better: bool
) -> list[Mark]:
    """Choose the highlighting of the cells of one column of a block.

    Args:
        cells: one per row; None if there is no result.
        ours: one per row, whether it is compared with the strongest of the other rows.
        higher_is_better: true for AUC, false for logloss.

    Returns:
        One mark per row.
    """
    sign = 1 if higher_is_better else -1
    best = _best(cells, range(len(cells)), sign)
    baseline = _best(cells, [i for i, own in enumerate(ours) if not own], sign)
    found = []
    for i, cell in enumerate(cells):
        strongest = cells[baseline] if baseline is not None else None
        beats = bool(ours[i] and cell and strongest and significantly_better(cell, strongest, sign))
        found.append(Mark(i == best, i == baseline, beats))
    return found


def significantly_better(ours: Measured, baseline: Measured, sign: int) -> bool:
    """Whether ours is better on the common seeds, with p < 0.05 in a two-sided paired t-test.

    Args:
        ours: our values of a metric.
        baseline: the baseline's values of the same metric.
        sign: 1 if higher is better, -1 if lower is.
    """
    from scipy.stats import ttest_rel  # late: half a second

    seeds = sorted(ours.values.keys() & baseline.values.keys())
    if len(seeds) < MIN_SEEDS:
        return False
    first = [sign * ours.values[seed] for seed in seeds]
    second = [sign * baseline.values[seed] for seed in seeds]
    if statistics.fmean(first) <= statistics.fmean(second):
        return False
    return bool(ttest_rel(first, second).pvalue < SIGNIFICANCE)


def improvement(ours: float, baseline: float, higher_is_better: bool) -> float:
    """Relative improvement in percent, positive if ours is better."""
    return (1 if higher_is_better else -1) * 100 * (ours - baseline) / baseline


def _best(cells: Sequence[Measured | None], among: Sequence[int], sign: int) -> int | None:
    there = [(sign * cell.mean, -i) for i in among if (cell := cells[i]) is not None]
    return -max(there)[1] if there else None
