"""The CSV that run_expid.py adds a row to: whether it is one, asked before the run and after it."""

from __future__ import annotations

import csv
from pathlib import Path

from fuxictr_miss.errors import InputError
from fuxictr_miss.files import writable


def check_result_table(path: Path) -> None:
    """Refuse a table that this package did not write, and a folder that takes no table.

    Raises:
        InputError: says which, and what to do.
    """
    if not writable(path.absolute().parent):
        raise InputError(
            f"The row of this run goes to {path.absolute()}, and that folder cannot be written: "
            "start the command in another folder."
        )
    if path.exists() and not _is_ours(path):
        raise InputError(
            f"{path.absolute()} would get the row of this run, but is no table of run_expid.py: "
            "move it, or start the command in another folder."
        )


def _is_ours(path: Path) -> bool:
    """A table of `append_result` begins with the time, and has a column of expids."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return header[:1] == ["time"] and "expid" in header
