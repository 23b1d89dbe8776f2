"""Keep FuxiCTR's lines out of the log of a run.

Fault: FuxiCTR (fuxictr/pytorch/models/rank_model.py and others) logs to the root logger, so that no
level of its own can be set; a run's screen and log would fill with its INFO lines.
Obsolete when its modules log by `logging.getLogger(__name__)`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_fuxictr_info() -> Iterator[None]:
    """Drop the INFO lines that FuxiCTR writes to the root logger, and keep ours."""

    def above_info(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO

    root = logging.getLogger()
    root.addFilter(above_info)
    try:
        yield
    finally:
        root.removeFilter(above_info)
