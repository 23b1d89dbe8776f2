"""Check the CSV to which run_expid.py appends a row, before and after the run."""

from __future__ import annotations

import csv
from pathlib import Path

from fuxictr_miss.errors import InputError
from fuxictr_miss.files import writable


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


def _is_ours(path: Path) -> bool:
    """Whether the header has the columns of `append_result`: `time` first, and `expid`."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return header[:1] == ["time"] and "expid" in header
