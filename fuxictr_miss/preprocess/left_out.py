"""Malformed lines: the first is an error, or they are left out, counted and named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl

from fuxictr_miss.errors import InputError

_NAMED = 3  # lines of each kind


class LeftOut:
    """The malformed lines of a run: how many for each reason, and where the first of them are.

    Args:
        skip: leave such lines out; otherwise the first is an error.
    """

    def __init__(self, skip: bool = True) -> None:
        self._skip = skip
        self._count: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}

    def add(self, path: Path, lines: pl.DataFrame, unit: str = "line") -> None:
        """Count `lines`: `line` (its number), `why` ("no user") and `text` (null in Parquet).

        Raises:
            InputError: names the first, if such lines are not left out.
        """
        for line, why, text in lines.iter_rows() if not self._skip else ():
            shown = "" if text is None else f": {text.strip()[:60]!r}"
            raise InputError(
                f"{path}, {unit} {line}{shown} has {why}. Repair the {unit}, or leave such {unit}s "
                "out by --skip-malformed."
            )
        for why, numbers, count in (
            lines.group_by("why", maintain_order=True)
            .agg(pl.col("line").head(_NAMED), pl.len())
            .iter_rows()
        ):
            self._count[why] += count
            first = self._first.setdefault(why, [])
            room = _NAMED - len(first)
            first += [f"{path}, {unit} {number}" for number in numbers[:room]]

    def __len__(self) -> int:
        return self._count.total()

    def report(self) -> None:
        """Print how many lines were left out, why, and where the first of them are."""
        if not self._count:
            return
        print(f"{len(self):,} malformed lines left out:")
        for why, count in self._count.most_common():
            more = "; .." if count > _NAMED else ""
            print(f"  {count:,} with {why}: {'; '.join(self._first[why])}{more}")


STRICT = LeftOut(skip=False)  # the first malformed line is an error
