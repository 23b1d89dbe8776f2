"""Write files atomically."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuxictr_miss.errors import explained


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a temporary file, then rename it to `path`; if `path` is a link, replace its target.

        with atomic_write(path) as unfinished:
            unfinished.write_text(text)

    If the block fails, the old file stays as it was.

    Yields:
        The temporary path, in the same folder and with the same suffix.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    final = Path(os.path.realpath(path))
    unfinished = final.with_name(f".{final.stem}.{os.getpid()}.tmp{final.suffix}")
    try:
        with explained(OSError, f"Cannot write {path}", "free some space or name another folder"):
            final.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, final)
    finally:
        if os.path.lexists(unfinished):
            os.unlink(unfinished)


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left of writing `path`, or another file of its name and folder.

    Only for a caller that knows that nobody writes them now.
    """
    unfinished = re.compile(rf"\.{re.escape(path.stem)}\.[0-9]+\.tmp(\.[a-z]+)?")
    for each in list(path.parent.iterdir()):
        if unfinished.fullmatch(each.name):
            each.unlink(missing_ok=True)


def matching_files(pattern: str | Path) -> list[Path]:
    """The files that a glob means, in alphabetical order.

    Brackets or stars in the name of a folder that is there are no pattern.
    """
    known, parts = Path(), list(Path(pattern).parts)
    while parts and (known / parts[0]).exists():
        known /= parts.pop(0)
    found = glob.glob(str(Path(*parts)), root_dir=known) if parts else []
    return [known / name for name in sorted(found) if (known / name).is_file()]


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


def hash_of(path: str | Path, hasher: Any) -> str:
    """The digest of a file's bytes by a new hash object of hashlib's."""
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


def file_digest(path: str | Path) -> str:
    """A short text, equal for files of equal bytes only."""
    return hash_of(path, hashlib.blake2b(digest_size=16))


def writable(folder: str | Path) -> bool:
    """Whether a folder, or its nearest existing parent, is writable; s3://a is no folder."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(folder)) and not Path(folder).exists():
        return False
    folder = Path(folder).absolute()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK)
