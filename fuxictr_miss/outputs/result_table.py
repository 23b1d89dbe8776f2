"""The CSV to which run_expid.py appends a row: checked before the run, written after it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import atomic_write, writable


def check_result_table(path: Path) -> None:
    """Refuse a file that is not a result table of this package, and an unwritable folder.

    Raises:
        InputError: `path` is such a file, or its folder is not writable.
    """
    if not writable(path.absolute().parent):
        raise InputError(
            f"The result of this run goes to {path.absolute()}, but that folder cannot be written: "
            "start the command in another folder."
        )
    if path.exists() and not _is_ours(path):
        raise InputError(
            f"The result of this run goes to {path.absolute()}, which is no table of run_expid.py: "
            "move it, or start the command in another folder."
        )


def append_result(result: Mapping[str, Any], params: Mapping[str, Any], path: Path) -> None:
    """Append a row to a CSV: the result, then every parameter. New keys become new columns.

    Raises:
        InputError: the file is not a result table of ours, or cannot be written.
    """
    row = {"time": datetime.now().strftime("%Y-%m-%d %H:%M:%S"), **result}
    for key, value in sorted(params.items()):
        if key not in row:
            row[key] = (
                value if isinstance(value, int | float | str) else json.dumps(value, default=str)
            )
    row = {key: "" if value != value else value for key, value in row.items()}  # NaN
    check_result_table(path)
    with FileLock(path.with_name(f".{path.name}.lock")):
        header, rows = _read(path) if path.exists() else ([], [])
        with (
            atomic_write(path) as unfinished,
            open(unfinished, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            writer = csv.DictWriter(file, dict.fromkeys((*header, *row)), lineterminator="\n")
            writer.writeheader()
            writer.writerows((*rows, row))


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The header and the rows of a table."""
    csv.field_size_limit(sys.maxsize)  # a parameter is as long as it is
    with (
        explained((ValueError, csv.Error), f"{path} cannot be read as a table", "move it"),
        open(path, encoding="utf-8-sig", newline="") as file,
    ):
        header, *rows = filter(None, csv.reader(file, strict=True))
        if any(len(row) > len(header) for row in rows):
            raise ValueError(f"a row has more than the {len(header)} fields of the header")
        return header, [dict(zip(header, row, strict=False)) for row in rows]


def _is_ours(path: Path) -> bool:
    """Whether the header has the columns of `append_result`: `time` first, and `expid`."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return header[:1] == ["time"] and "expid" in header
