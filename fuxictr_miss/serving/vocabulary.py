"""Open the `vocab.json` of an artefact: how a raw row is encoded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import hash_of

FORMAT = 1
AGAIN = "export the model again"  # what to do with a damaged artefact


def read_vocabulary(folder: Path) -> dict[str, Any]:
    """Read the `vocab.json` in a folder.

    Raises:
        InputError: it is none, or of another version.
    """
    path = folder / "vocab.json"
    what = f"{path} cannot be read"
    with explained((OSError, ValueError), what, "name a folder that `fuxictr-miss export` wrote"):
        content = json.loads(path.read_text(encoding="utf-8"))
    form = content.get("format") if isinstance(content, dict) else None
    if form != FORMAT:
        raise InputError(
            f"{path} is of format {form!r}, and this version reads format {FORMAT}: {AGAIN} with "
            "this version, or install the one that wrote it."
        )
    return content


def digests_of(folder: Path, names: list[str]) -> dict[str, str]:
    """The sha256 of files in a folder, by name."""
    return {name: hash_of(folder / name, hashlib.sha256()) for name in names}


def check_file(folder: Path, content: Mapping[str, Any], name: str) -> None:
    """Refuse a file that is of another export than the `vocab.json` beside it.

    Args:
        folder: of the artefact.
        content: of its `vocab.json`.
        name: of the file.

    Raises:
        InputError: the file is missing, or is another one.
    """
    known = content.get("files")
    wanted = known.get(name) if isinstance(known, dict) else None
    what, then = f"{folder / name} cannot be read", AGAIN
    with explained(OSError, what, then):
        found = digests_of(folder, [name])[name]
    if found != wanted:
        raise InputError(
            f"{folder / name} is not the file that {folder / 'vocab.json'} was exported with, so "
            f"ids may have other numbers in it: copy the whole folder, or {AGAIN}."
        )
