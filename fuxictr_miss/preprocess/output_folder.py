"""A folder of results: a new build replaces what an earlier one wrote there, and nothing else.

A stamp (a JSON file, written last) lists the files of a build with their digests. Whatever has the
name of a result but is not listed there, or has changed since, is somebody else's: the command
stops before it has read or written anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fuxictr_miss.errors import InputError
from fuxictr_miss.files import hash_of, writable

WORK = "unfinished.tmp"  # in the output: a build until it is whole
_MARK = "fuxictr_miss.lock"  # in WORK: says that it is ours; locked while a run works there
_NEW = "new"  # in WORK: what the build will put in place; whole once its stamp is there
_PART = re.compile(r"^[^/]+$|/part-[0-9]+\.parquet$")  # what earlier versions wrote
_REPLACED = "replaced.json"  # in WORK: the stamp of the build that is being replaced


@dataclass(frozen=True)
class OutputFolder:
    """Where results go.

    Args:
        path: the folder; it need not exist yet.
        names: files and folders that are results: all that a build may replace.
        stamp: name of the JSON file that lists the files of a build.
        legacy: keys by which a stamp of an earlier version, without a list of files, is known. It
            stands for all results.
        inputs: what the run reads; it must not lie where something is replaced.
    """

    path: Path
    names: Sequence[str]
    stamp: str
    legacy: frozenset[str] = frozenset()
    inputs: Sequence[Path] = ()

    def check(self) -> None:
        """Refuse to go on where something would be replaced that is not ours, or is an input."""
        for folder in (self.path, *self.path.parents):
            if folder.exists() and not folder.is_dir():
                raise InputError(f"--output {folder} is a file. Name a folder; it need not exist.")
        if not writable(self.path):
            raise InputError(f"--output {self.path} cannot be written. Name a folder of yours.")
        work = self.path / WORK
        for name in (*self.names, self.stamp, WORK):
            place = (self.path / name).resolve()
            for source in (path.resolve() for path in self.inputs):
                if source == place or place in source.parents:
                    raise InputError(
                        f"{source} is an input of this run, but its results replace "
                        f"{self.path / name}. Name another --output."
                    )
        if work.is_symlink() or not (_is_empty(work) or (work / _MARK).is_file()):
            raise _stranger(work, "no folder of an unfinished build")
        self._refuse_strangers()

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Check, and yield a folder to work in, inside the output; it is gone afterwards.

        A run that fails leaves nothing behind, not even an output folder that it made. What a
        killed run had finished but not put in place is put there first.

        Raises:
            InputError: something would be replaced that is not ours, or is an input; another run
                works here.
        """
        self.check()
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        work = self.path / WORK
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / _MARK, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(f"Another run writes into {self.path}. Wait until it ends.") from error
        try:
            if self._is_whole():
                self._put_in_place()
            _empty(work)
            yield work
        finally:
            if not self._is_whole():
                _empty(work)
                (work / _MARK).unlink(missing_ok=True)
                work.rmdir()
                for folder in made:
                    if any(folder.iterdir()):
                        break
                    folder.rmdir()
            lock.release()

    def new(self) -> Path:
        """An empty folder, inside that of `work`, for the results until `replace`."""
        folder = self.path / WORK / _NEW
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def replace(self, about: Mapping[str, object]) -> None:
        """Put what lies in `new()` in the place of the last build, the stamp last.

        Args:
            about: what the stamp says beside its list of files.

        Raises:
            InputError: something that is not ours has appeared since.
        """
        self._refuse_strangers()
        new = self.path / WORK / _NEW
        files = {
            path.relative_to(new).as_posix(): _digest(path)
            for path in sorted(new.rglob("*"))
            if path.is_file()
        }
        text = json.dumps({**about, "files": files}, indent=2) + "\n"
        unfinished = self.path / WORK / self.stamp
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, new / self.stamp)
        self._put_in_place()

    def _is_whole(self) -> bool:
        """Whether a finished build waits to be put in place."""
        return _read(self.path / WORK / _NEW / self.stamp) is not None

    def _put_in_place(self) -> None:
        """Killed at any moment, the next call goes on."""
        work = self.path / WORK
        new = work / _NEW
        stamp = _read(new / self.stamp)
        assert stamp is not None
        if (self.path / self.stamp).exists():
            os.replace(self.path / self.stamp, work / _REPLACED)
        for path in self._results():
            if path.relative_to(self.path).as_posix() not in stamp["files"]:
                path.unlink()
                if path.parent != self.path and _is_empty(path.parent):
                    path.parent.rmdir()
        for name in stamp["files"]:
            if (new / name).exists():
                (self.path / name).parent.mkdir(exist_ok=True)
                os.replace(new / name, self.path / name)
        (work / _REPLACED).unlink(missing_ok=True)
        os.replace(new / self.stamp, self.path / self.stamp)

    def _refuse_strangers(self) -> None:
        """Refuse to replace what no stamp of ours lists, or what has changed since."""
        listed: dict[str, list[object]] = {}
        legacy = False
        work = self.path / WORK
        for path in (work / _REPLACED, work / _NEW / self.stamp, self.path / self.stamp):
            stamp = _read(path)
            if stamp is not None and _lists_files(stamp):
                for name, digest in stamp["files"].items():
                    listed.setdefault(name, []).append(digest)
            elif stamp is not None and self.legacy and self.legacy <= set(stamp):
                legacy = True
            elif os.path.lexists(path):
                raise _stranger(path, "no list of files that an earlier run wrote")
        for path in self._results():
            name = path.relative_to(self.path).as_posix()
            ours = path.is_file() and not path.is_symlink()
            if ours and not (legacy and _PART.search(name)):
                ours = _digest(path) in listed.get(name, [])
            if not ours:
                raise _stranger(path, f"not as {self.stamp} lists it, or not listed there")

    def _results(self) -> list[Path]:
        """What stands under the names of results: files, and whatever else is no folder."""
        found: list[Path] = []
        for name in self.names:
            place = self.path / name
            if place.is_dir() and not place.is_symlink():
                for folder, subfolders, files in os.walk(place):
                    links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
                    found += [Path(folder) / name for name in (*links, *files)]
            elif os.path.lexists(place):
                found.append(place)
        return found


def _stranger(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} would be replaced, but it is {why}: it may be yours. Move it away, or name "
        f"another --output."
    )


def _read(stamp: Path) -> dict | None:
    """A stamp; None if there is none."""
    try:
        content = json.loads(stamp.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _lists_files(stamp: dict) -> bool:
    files = stamp.get("files")
    return isinstance(files, dict) and all(
        isinstance(about, dict) and set(about) == {"bytes", "sha256"} for about in files.values()
    )


def _digest(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": hash_of(path, hashlib.sha256())}


def _is_empty(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _empty(work: Path) -> None:
    """Delete all but the mark: what is left of a killed run is known to be ours until the end."""
    for path in work.iterdir():
        if path.name == _MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
