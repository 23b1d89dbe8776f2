"""The folder of encoded data: which of its files are ours, and how they are replaced.

`build.json` lists each file that we wrote, with its digest. Nothing else in the folder is touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fuxictr_miss.config.feature_names import names_of
from fuxictr_miss.data.pretrained import written_name
from fuxictr_miss.errors import InputError
from fuxictr_miss.files import file_digest

STAMP = "build.json"
FEATURE_MAP, VOCABULARY, PROCESSOR = FEATURE_FILES = (
    "feature_map.json", "feature_vocab.json", "feature_processor.pkl",
)  # fmt: skip
SPLITS = ("train", "valid", "test")
_MARKER = ".fuxictr_miss.json"  # of a folder in which we build; lists the files to come
_NEXT_STAMP = ".build.json"

Mark = dict[str, Any]  # a file's size, mtime_ns and digest


def read_stamp(folder: Path) -> dict[str, Any]:
    """What was built in a folder; {} where that is nothing of ours."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    ours = isinstance(stamp, dict) and {"fuxictr", "settings"} <= stamp.keys()
    return stamp if ours else {}


def refuse_inputs_among(folder: Path, names: Iterable[str], inputs: Iterable[str]) -> None:
    """Whether a file that is read would be replaced, or go as one that is not written any more.

    Raises:
        InputError: names it.
    """
    for name in dict.fromkeys([*names, *_ours(read_stamp(folder))]):
        target = folder / name
        for file in inputs:
            if _same(target, Path(file)):
                raise InputError(
                    f"{file} is read, and the encoded data would be written over it: set another "
                    "data_root or dataset_id."
                )


def refuse_strangers(folder: Path, names: Iterable[str]) -> None:
    """Whether a file that somebody else wrote would be replaced.

    Raises:
        InputError: names it.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is no folder: set another data_root or dataset_id.")
    present = [name for name in (*names, STAMP) if os.path.lexists(folder / name)]
    stamp = read_stamp(folder)  # after the look: another process lists its files before they come
    for name in present:
        if name not in _ours(stamp) and not (name == STAMP and stamp):
            raise InputError(
                f"{folder / name} was not written by this program, which would replace it: set "
                "another data_root or dataset_id, or move the file away."
            )


def refuse_changed(folder: Path, stamp: Mapping[str, Any]) -> None:
    """Whether a file of ours became another one.

    Raises:
        InputError: names it.
    """
    for name, marks in _ours(stamp).items():
        path = folder / name
        if os.path.lexists(path) and (path.is_symlink() or (marks and not _matches(path, marks))):
            raise InputError(
                f"{path} was changed since it was encoded: move it away to encode again, or set "
                "another data_root or dataset_id."
            )


def unchanged(folder: Path, stamp: Mapping[str, Any]) -> bool:
    """Whether a folder holds exactly what its stamp says."""
    marks = stamp.get("written", {})
    return bool(marks) and all(_matches(folder / name, [mark]) for name, mark in marks.items())


def begin(building: Path, names: list[str]) -> None:
    """An empty folder to build in; what a killed build left there goes.

    Raises:
        InputError: there is something that no build left.
    """
    clear(building)
    building.mkdir(parents=True)
    (building / _MARKER).write_text(json.dumps(names), encoding="utf-8")


def clear(building: Path) -> None:
    """Remove a folder that `begin` made, and in it only the files that it announced."""
    if not os.path.lexists(building):
        return
    stranger = InputError(
        f"{building} is in the way and holds files that this program did not write: move it away."
    )
    if building.is_symlink() or not building.is_dir():
        raise stranger
    try:
        names = json.loads((building / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # killed before the marker was whole
        names = []
    if set(os.listdir(building)) - {*names, _MARKER, _NEXT_STAMP}:
        raise stranger
    for name in os.listdir(building):
        (building / name).unlink()
    building.rmdir()


def marks_of(folder: Path, names: Iterable[str]) -> dict[str, Mark]:
    """Sizes, times and digests of files."""
    return {
        name: {**_status(folder / name), "digest": file_digest(folder / name)} for name in names
    }


def seen_again(folder: Path, marks: Mapping[str, Mark]) -> dict[str, Mark]:
    """Marks of files that are unchanged, with the times that they have now."""
    return {name: {**mark, **_status(folder / name)} for name, mark in marks.items()}


def commit(building: Path, folder: Path, stamp: dict[str, Any]) -> None:
    """Put what was built in place of what we built before.

    Killed on the way, it leaves a stamp that lists old and new files and says of what they are
    nothing: the next build replaces them.

    Args:
        stamp: of the new data, with `written`.

    Raises:
        InputError: a file of somebody else has come to stand where one would be written.
    """
    new = stamp["written"]
    refuse_strangers(folder, new)
    old = _ours(read_stamp(folder))
    folder.mkdir(exist_ok=True)
    on_the_way = {k: stamp[k] for k in ("fuxictr", "settings")}
    write_stamp(building, folder, {**on_the_way, "written": new, "replaced": old})
    for name in old:
        if name not in new:
            (folder / name).unlink(missing_ok=True)
    for name in new:
        os.replace(building / name, folder / name)
    write_stamp(building, folder, stamp)


def write_stamp(building: Path, folder: Path, stamp: Mapping[str, Any]) -> None:
    """Replace a folder's stamp; `building` is on the same disk."""
    unfinished = building / _NEXT_STAMP
    unfinished.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    os.replace(unfinished, folder / STAMP)


def _ours(stamp: Mapping[str, Any]) -> dict[str, list[Mark]]:
    """The files of a stamp, each with what it may be; an empty list: any content."""
    if not stamp:
        return {}
    if "written" not in stamp:  # stamps of earlier versions list no files
        splits = [f"{split}.parquet" for split in SPLITS if split in stamp.get("content", {})]
        return {name: [] for name in (*FEATURE_FILES, *splits, *_old_pretrained(stamp))}
    ours = {name: list(marks) for name, marks in stamp.get("replaced", {}).items()}
    for name, mark in stamp["written"].items():
        before = ours.get(name)
        ours[name] = [] if before == [] else [mark, *(before or [])]
    return ours


def _old_pretrained(stamp: Mapping[str, Any]) -> list[str]:
    return [
        written_name(feature, column["pretrained_emb"])
        for column in stamp["settings"].get("feature_cols") or []
        if column.get("pretrained_emb")
        for feature in names_of(column)
    ]


def _matches(path: Path, marks: list[Mark]) -> bool:
    if not path.is_file():
        return False
    status = _status(path)
    alike = [mark for mark in marks if mark["size"] == status["size"]]
    if any(mark["mtime_ns"] == status["mtime_ns"] for mark in alike):
        return True
    return bool(alike) and file_digest(path) in [mark["digest"] for mark in alike]


def _status(path: Path) -> Mark:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
