"""Files that are either whole or not there."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from fuxictr_miss.errors import InputError


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` with torch beside `path`, then rename.

    Raises:
        InputError: the disk is full or not writable; what was at `path` before stays.
    """
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with open(unfinished, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        raise unwritable(unfinished, error) from error


def unwritable(path: Path, error: Exception) -> InputError:
    """What to tell the user when `path` could not be written; its half-written file goes."""
    path.unlink(missing_ok=True)
    return InputError(
        f"Cannot write {path}: {error}. Free some space or set model_root to another folder."
    )


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} cannot be read as a checkpoint ({error}).") from error
