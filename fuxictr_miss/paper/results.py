"""The results file: one row per experiment, updated atomically."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from fuxictr_miss.errors import InputError
from fuxictr_miss.files import atomic_write

NAME = "experiments.csv"
# the order of the columns: these, the metrics, then _LAST
_ALWAYS = ["key", "dataset", "model", "purpose", "seed", "status"]
_FIRST = [*_ALWAYS, "reason"]
_LAST = ["epochs", "seconds", "processor_seconds", "peak_memory_mb", "digest", "params", "curve"]
_LAST += ["data", "versions", "commit", "host", "finished"]
_TYPES: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("seed", "epochs"), int),
    **dict.fromkeys(("seconds", "processor_seconds", "peak_memory_mb"), float),
    **dict.fromkeys(("params", "curve", "versions"), json.loads),
}


class Results:
    """The rows of `<folder>/experiments.csv` by key; each row is a dict.

    Several processes may add to the same file. A new row replaces the row with the same key.

    Raises:
        InputError: the file exists and is not a results file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / NAME
        self.rows = _read(self.path)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add or replace a row, and rewrite the file atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{NAME}.lock")):
            self.rows = {**_read(self.path), row["key"]: dict(row)}
            _write(self.path, self.rows.values())

    def finished(self, key: str) -> dict[str, Any] | None:
        """The row of an experiment if it succeeded, else None."""
        row = self.rows.get(key)
        return row if row and row["status"] == "ok" else None


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    rows = {}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(table.columns[: len(_ALWAYS)]) != _ALWAYS:
            raise ValueError(f"it does not begin with the columns {', '.join(_ALWAYS)}")
        for record in table.to_dict("records"):
            row = {str(k): _value(str(k), text) for k, text in record.items() if text != ""}
            if not row.keys() >= set(_ALWAYS):
                raise ValueError(f"a row lacks one of {', '.join(_ALWAYS)}")
            rows[row["key"]] = row
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not a results file of run_benchmark.py ({reason}): move it, or name "
            "another folder by --results."
        ) from error
    return rows


def _value(name: str, text: str) -> Any:
    return _TYPES.get(name, float if name.startswith(("valid_", "test_")) else str)(text)


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows sorted by experiment instead of by time, for small git diffs."""
    order = ("dataset", "purpose", "model", "digest", "seed")
    rows = sorted(rows, key=lambda row: tuple(row[name] for name in order))
    names = {name for row in rows for name in row}
    metrics = sorted(names - {*_FIRST, *_LAST}, key=lambda name: (name.startswith("test_"), name))
    columns = [name for name in (*_FIRST, *metrics, *_LAST) if name in names]
    text = [{k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()}
            for row in rows]  # fmt: skip
    with atomic_write(path) as unfinished:
        # as objects: a whole number stays one, and every digit of a metric is kept
        pd.DataFrame(text, columns=columns, dtype=object).to_csv(unfinished, index=False)
