"""The paired t-tests of a table: each of our rows against every other row of its block."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from fuxictr_miss.paper.compare import MIN_SEEDS, p_value
from fuxictr_miss.paper.source import Source
from fuxictr_miss.paper.tables import OURS, Report

COLUMNS = ("dataset", "metric", "row", "against", "seeds", "difference", "p")


def paired_tests(report: Report, source: Source) -> pd.DataFrame:
    """All pairs with at least `MIN_SEEDS` common seeds.

    Returns:
        COLUMNS: the difference is that of the means over the common seeds, `row` less `against`; p
        is two-sided, without correction.
    """
    tests = pd.DataFrame(_tests(report, source), columns=list(COLUMNS))
    return tests.assign(
        difference=tests["difference"].map("{:+.6f}".format), p=tests["p"].map("{:.2g}".format)
    )


def _tests(report: Report, source: Source) -> Iterator[tuple[object, ...]]:
    for dataset in source.datasets:
        for block in report.blocks:
            cells = {variant.name: source.find(variant, dataset) for variant in block}
            ours = [name for name, cell in cells.items() if cell.role == OURS]
            for metric in (each for each in report.metrics if each.sign):
                values = {name: cell.values(metric) for name, cell in cells.items()}
                for row, against in ((a, b) for a in ours for b in cells if b != a):
                    differences = (values[row] - values[against]).dropna()
                    if len(differences) >= MIN_SEEDS:
                        p = p_value(values[row], values[against])
                        n, mean = len(differences), differences.mean()
                        yield dataset, metric.name, row, against, n, mean, p
