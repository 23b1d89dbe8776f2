"""The files behind a path of the config, and what they contain as a short text."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fuxictr_miss.files import hash_of, matching_files


def files_at(path: str | Path, ending: str) -> list[str]:
    """The files that a path names: itself, those in a folder, or those that a pattern matches.

    A name that is there is taken as it is: "exp [1]" is a folder, not a pattern.

    Args:
        path: as FuxiCTR's configs have it.
        ending: of the files in a folder, without the dot.

    Returns:
        Sorted by name; none if there is nothing.
    """
    place = Path(path)
    if place.is_file():
        return [str(path)]
    if place.is_dir():
        found = (each for each in place.iterdir() if each.name[:1] != "." and each.is_file())
        return sorted(os.path.join(path, f.name) for f in found if f.name.endswith(f".{ending}"))
    pattern = place if place.name.endswith(ending) else place / f"*.{ending}"
    return [str(file) for file in matching_files(pattern)]


def file_digest(path: str | Path) -> str:
    """Equal for files of equal bytes only."""
    return hash_of(path, hashlib.blake2b(digest_size=16))
