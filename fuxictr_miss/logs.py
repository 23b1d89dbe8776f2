"""Where log lines go: the screen and one file a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def set_logger(params: Mapping[str, Any], append: bool) -> Path:
    """Log to the screen and to `<model_root>/<dataset_id>/<model_id>.log`, which is returned."""
    path = Path(params["model_root"]) / params["dataset_id"] / f"{params['model_id']}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[logging.FileHandler(path, "a" if append else "w"), logging.StreamHandler()],
        force=True,
    )
    return path


@contextmanager
def without_fuxictr_info() -> Iterator[None]:
    """Drop the INFO lines that FuxiCTR writes to the root logger; ours go on being written."""

    def above_info(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO

    root = logging.getLogger()
    root.addFilter(above_info)
    try:
        yield
    finally:
        root.removeFilter(above_info)
