"""Logging to the screen and to one file per run."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from fuxictr_miss.outputs.curves import check_picture
from fuxictr_miss.outputs.run_files import not_ours

_OUR_LINE = re.compile(rb"\d\d:\d\d:\d\d [A-Z]+ ")


def set_logger(path: Path) -> int:
    """Log to the screen and to a file, behind the lines of an earlier run.

    Args:
        path: the log; the plot beside it ends in .png.

    Returns:
        The bytes of these lines, for `forget`.

    Raises:
        InputError: a log or a plot of that name exists that this package did not write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not _is_ours(path):
        raise not_ours(path)
    check_picture(path.with_suffix(".png"))
    logging.raiseExceptions = False  # a full disk must not end the run
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[
            logging.FileHandler(path, encoding="utf-8"),
            logging.StreamHandler(),
        ],
        force=True,
    )
    return path.stat().st_size


def forget(path: Path, size: int) -> None:
    """Take the lines of an earlier run, so many bytes, off a log that goes on being written."""
    with open(path, "rb+") as file:
        own = file.read()[size:]
        file.seek(0)
        file.write(own)
        file.truncate()


def _is_ours(path: Path) -> bool:
    """Whether the file is empty or starts with our log format, which differs from FuxiCTR's."""
    with open(path, "rb") as file:
        start = file.read(100)
    return not start or _OUR_LINE.match(start) is not None
