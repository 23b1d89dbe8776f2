"""Logging to the screen and to one file per run."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from fuxictr_miss.outputs.curves import check_picture
from fuxictr_miss.outputs.run_files import not_ours

_OUR_LINE = re.compile(rb"\d\d:\d\d:\d\d [A-Z]+ ")


class _RunLog(logging.FileHandler):
    """A log that goes on behind the lines of an earlier run, until it forgets them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.earlier = path.stat().st_size  # bytes

    def forget(self) -> None:
        with open(self.baseFilename, "rb+") as file:
            own = file.read()[self.earlier :]
            file.seek(0)
            file.write(own)
            file.truncate()
        self.earlier = 0


def set_logger(path: Path) -> None:
    """Log to the screen and to a file, behind the lines of an earlier run.

    Args:
        path: the log; the plot beside it ends in .png.

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
        handlers=[_RunLog(path), logging.StreamHandler()],
        force=True,
    )


def forget_earlier(path: Path) -> None:
    """Take the lines of an earlier run off a log, if `set_logger` has opened it."""
    for handler in logging.root.handlers:
        if isinstance(handler, _RunLog) and handler.baseFilename == os.path.abspath(path):
            handler.forget()


def _is_ours(path: Path) -> bool:
    """Whether the file is empty or starts with our log format, which differs from FuxiCTR's."""
    with open(path, "rb") as file:
        start = file.read(100)
    return not start or _OUR_LINE.match(start) is not None
