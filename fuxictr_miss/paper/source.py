"""The data from which reports are made: the results of each variant, over its seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fuxictr_miss.paper.plan import Planner
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.search import Winner
from fuxictr_miss.paper.tables import Metric, Report, Variant

ABSENT, NOT_YET, FAILED = "–", "…", "failed"  # what a table shows in place of a number


@dataclasses.dataclass(frozen=True)
class Cell:
    """The results of one variant on one data set."""

    rows: Sequence[Mapping[str, Any]]  # of the results file, one per finished seed
    role: str
    text: str = ""  # shown if there is no result
    notes: Sequence[str] = ()

    def values(self, metric: Metric) -> pd.Series:
        """The metric by seed; empty unless all rows have it."""
        values = pd.Series({row["seed"]: metric.read(row) for row in self.rows}, dtype=float)
        return values if values.notna().all() else values[:0]


@dataclasses.dataclass
class Source:
    """The data from which reports are made."""

    planner: Planner
    results: Results
    datasets: Sequence[str]
    seeds: int
    budget: int  # trials of the search per model; 0 for no search
    winners: Mapping[tuple[str, str], Winner]

    def find(self, variant: Variant, dataset: str) -> Cell:
        """The results of a variant over the seeds, with footnotes."""
        experiments = self.planner.experiments([variant], [dataset], self.seeds)
        if not experiments:
            note = self.planner.absence(variant, dataset)
            return Cell((), variant.role, ABSENT, (note,))
        rows = [row for each in experiments if (row := self.results.rows.get(each.key))]
        done = [row for row in rows if row["status"] == "ok"]
        bad = [row for row in rows if row["status"] != "ok"]
        note = self.planner.note(variant, dataset)
        notes = [note] if note else []
        role = "" if note else variant.role  # a row that equals MISS is not compared with it
        if bad:
            notes.append(
                f"{variant.name} on {dataset}: {len(bad)} of {self.seeds} seeds without a result "
                f"({bad[0]['status']}, {bad[0].get('reason', '')})."
            )
        if done and len(rows) < self.seeds:
            notes.append(f"n = {len(done)}: not all seeds are finished.")
        text = ABSENT if done else FAILED if bad else NOT_YET  # done: without this metric
        return Cell(done, role, text, notes)

    def has_results(self, report: Report) -> bool:
        """Whether a report has a number of ours; Table II needs no runs."""
        variants = [variant for block in report.blocks for variant in block]
        cells = (self.find(v, dataset) for v in variants for dataset in self.datasets)
        return not variants or any(cell.rows for cell in cells)
