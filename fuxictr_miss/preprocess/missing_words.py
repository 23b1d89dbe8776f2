"""Words for a missing value, which are ids like any other here: an id is its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import closing

import polars as pl

WORDS = ("NULL", "null", "None", "nan", "NaN", "<NA>", "N/A", "\\N")  # of SQL, Python and Hive


class MissingWords:
    """Counts the rows of a log whose user or item is such a word."""

    def __init__(self) -> None:
        self._rows: Counter[tuple[str, str]] = Counter()

    def watch(self, tables: Generator[pl.DataFrame]) -> Generator[pl.DataFrame]:
        """The same tables, each counted as it passes."""
        with closing(tables):
            for table in tables:
                for name in ("user_id", "item_id"):
                    found = table[name].filter(table[name].is_in(WORDS))
                    for word, rows in found.value_counts().iter_rows():
                        self._rows[name, word] += rows
                yield table

    def report(self) -> None:
        """Print the words, and what became of them."""
        for (name, word), rows in self._rows.most_common():
            who = name.removesuffix("_id")
            print(
                f"{rows:,} rows have the {who} {word!r}, which is one {who} like any other here. "
                "If it stands for a missing one, take these rows out of the log and run this again."
            )
