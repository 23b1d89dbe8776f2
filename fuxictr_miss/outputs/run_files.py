"""Small JSON files beside a run's checkpoint, marked as ours; what a finished run was."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fuxictr.version import __version__ as fuxictr_version

from fuxictr_miss import __version__
from fuxictr_miss.errors import InputError
from fuxictr_miss.files import atomic_write

METRICS = ".metrics.json"  # the ending of the file with a finished run's metrics
TRACKER = ".tracker.json"  # of the file with what a tracker has of the run
_MARK = {"written_by": "fuxictr_miss"}


def read_run_file(path: Path) -> dict[str, Any] | None:
    """Read a JSON file of a run.

    Returns:
        Its content; None if it does not exist.

    Raises:
        InputError: this package did not write the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:  # no JSON, no UTF-8
        content = None
    if not (isinstance(content, dict) and _MARK.items() <= content.items()):
        raise not_ours(path)
    return content


def write_run_file(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file of a run atomically; numbers that JSON does not know become null.

    Raises:
        InputError: the file belongs to someone else, or cannot be written.
    """
    read_run_file(path)
    text = json.dumps(_valid({**_MARK, **content}), indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def remove_run_file(path: Path) -> None:
    """Remove the file of an earlier run, so that it is not mistaken for this run's.

    Raises:
        InputError: this package did not write the file.
    """
    if read_run_file(path) is not None:
        path.unlink()


def not_ours(path: Path) -> InputError:
    """The error for somebody else's file where a run would write one."""
    return InputError(
        f"{path} was not written by fuxictr_miss: move it, or set another model_root."
    )


def versions() -> dict[str, str]:
    """The versions that a run's numbers depend on."""
    return {
        "fuxictr_miss": __version__,
        "fuxictr": fuxictr_version,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _valid(value: Any) -> Any:
    """The same value without NaN and infinities."""
    if isinstance(value, Mapping):
        return {key: _valid(each) for key, each in value.items()}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
