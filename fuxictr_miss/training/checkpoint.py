"""Checkpoints and run states: written atomically, read without running code, tied to their data."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from fuxictr.pytorch.models import BaseModel

from fuxictr_miss.data import data_digest
from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import atomic_write

_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError)


def data_of(model: BaseModel) -> str:
    """The digest of the encoded data that a model was built on; "" if it is not on disk."""
    folder = getattr(model.feature_map, "data_dir", "")
    if not folder or not os.path.exists(os.path.join(folder, "feature_map.json")):
        return ""
    return data_digest(folder, getattr(model.feature_map, "files", None))


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` with `torch.save` to a temporary file, then rename it to `path`.

    Raises:
        InputError: the disk is full or not writable; the old file at `path` stays.
    """
    # torch reports a failed write as a RuntimeError
    with (
        explained(RuntimeError, f"Cannot write {path}", "free some space"),
        atomic_write(path) as unfinished,
    ):
        torch.save(state, unfinished)


def write_error(path: Path, error: Exception) -> InputError:
    """Remove the half-written file `path` and return the error to raise."""
    path.unlink(missing_ok=True)
    return InputError(
        f"Cannot write {path}: {error}. Free some space or set model_root to another folder."
    )


def load(path: Path, data: str | None = None) -> dict[str, Any]:
    """Read a state or a checkpoint of ours, without running code from the file.

    Args:
        path: the file.
        data: digest of the data that it must have been trained on; None accepts any.

    Raises:
        InputError: it cannot be read, or it was trained on other data.
    """
    what = f"{path} cannot be read as a checkpoint of fuxictr_miss"
    then = "train again without --resume, or fetch the file again"
    try:
        with explained(OSError, what, then):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except _UNREADABLE as error:  # PyTorch's text advises to run what is in the file
        raise InputError(f"{what}: {then}.") from error
    trained_on = _data_in(content)
    if data is not None and trained_on != data:
        said = f"was trained on other data (digest {trained_on})"
        if trained_on is None:
            said = "does not say on which data it was trained"
        raise InputError(
            f"{path} {said}, and ids may differ in the current data (digest {data}). "
            "Train again without --resume, or restore the data."
        )
    return content


def remove_own(path: Path) -> None:
    """Remove the state or checkpoint of an earlier run, so that it is not mistaken for this run's.

    Raises:
        InputError: this version of fuxictr_miss did not write the file.
    """
    if not path.exists():
        return
    try:
        ours = _data_in(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except _UNREADABLE:
        ours = None
    if ours is None:
        raise InputError(
            f"{path} was not written by this version of fuxictr_miss: move it, or set another "
            "model_root."
        )
    path.unlink()


def _data_in(content: Any) -> str | None:
    """The data digest in a state's settings or a checkpoint's metadata; None if missing."""
    if not isinstance(content, dict):
        return None
    settings = content.get("settings")
    if isinstance(settings, dict):
        return settings.get("data")
    return getattr(content, "_metadata", {}).get("", {}).get("data")
