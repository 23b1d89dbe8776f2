"""The results file: one row an experiment, kept whole whatever happens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

NAME = "experiments.csv"
# what a row says first; the metrics come between, what it was run with last
_FIRST = ["key", "dataset", "model", "purpose", "seed", "status", "reason"]
_LAST = ["epochs", "seconds", "peak_memory_mb", "digest", "params", "curve", "data", "versions"]
_LAST += ["commit", "host", "finished"]
_NUMBERS = ("seconds", "peak_memory_mb")


class Results:
    """Rows by key in `<folder>/experiments.csv`. A row is a dict of text and numbers.

    Two processes may add to the same file; a row of a key replaces the earlier one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / NAME
        self.rows = _read(self.path)

    def add(self, row: Mapping[str, Any]) -> None:
        """Put a row into the file: a copy is written, then renamed over it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{NAME}.lock")):
            self.rows = {**_read(self.path), row["key"]: dict(row)}
            _write(self.path, self.rows.values())

    def finished(self, key: str) -> dict[str, Any] | None:
        """The row of an experiment that ended well."""
        row = self.rows.get(key)
        return row if row and row["status"] == "ok" else None


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    rows = {}
    for record in pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records"):
        row = {str(name): _value(str(name), text) for name, text in record.items() if text != ""}
        rows[row["key"]] = row
    return rows


def _value(name: str, text: str) -> Any:
    if name in ("seed", "epochs"):
        return int(text)
    if name in _NUMBERS or name.startswith(("valid_", "test_")):
        return float(text)
    return json.loads(text) if name in ("params", "curve", "versions") else text


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows in an order that does not depend on when they were run: a clean git diff."""
    order = ("dataset", "purpose", "model", "digest", "seed")
    rows = sorted(rows, key=lambda row: tuple(row[name] for name in order))
    names = {name for row in rows for name in row}
    metrics = sorted(names - {*_FIRST, *_LAST}, key=lambda name: (name.startswith("test_"), name))
    columns = [name for name in (*_FIRST, *metrics, *_LAST) if name in names]
    text = [{k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()}
            for row in rows]  # fmt: skip
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "w", encoding="utf-8", newline="") as file:
        # as objects: a whole number stays one, and every digit of a metric is kept
        pd.DataFrame(text, columns=columns, dtype=object).to_csv(file, index=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
