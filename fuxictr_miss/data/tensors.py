"""The columns of a split as tensors: in memory, or mapped from a file beside the encoded one."""

from __future__ import annotations

import json
import logging
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fuxictr_miss.data.column_files import Form, opened
from fuxictr_miss.distributed import processes
from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import atomic_write

log = logging.getLogger(__name__)

_GB = 1e9
_FIRST_WORDS = b"columns mapped by fuxictr_miss: "  # of a mapped file
_ALIGNMENT = 64  # bytes


def open_columns(
    files: list[str],
    names: list[str],
    budget_gb: float | None = None,
    mapped: str | Path | None = None,
) -> tuple[dict[str, Tensor], bool]:
    """Columns of encoded files, whose rows follow each other.

    A split larger than the budget is written once, uncompressed, to a file beside the first of its
    files and mapped into memory: the operating system keeps of it in memory what it has room for.

    Args:
        files: parquet, npz or h5, as `build_dataset` or FuxiCTR wrote them.
        names: of the columns.
        budget_gb: for the decoded columns, in 10^9 bytes; None: half of the available memory, or
            this process's part of it.
        mapped: the file to map, ending in .columns; None: beside the first of the files.

    Returns:
        {name: (rows,) or (rows, L)}, and whether they are mapped: writing to a mapped tensor ends
        the process.

    Raises:
        InputError: there are no rows; a column is missing, is text, has missing values, or does not
            keep its type or the length of its sequences; the file to map cannot be written, or is
            not ours.
    """
    forms = _forms(files, names)
    size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in forms.values())
    available = _available_memory() / processes.on_this_machine()
    budget = available / 2 if budget_gb is None else budget_gb * _GB
    if size <= budget:
        return {name: _read(files, name, form) for name, form in forms.items()}, False
    path = Path(mapped or Path(files[0]).with_suffix(".columns"))
    if os.path.lexists(path) and not _starts_with(path, _FIRST_WORDS):
        raise InputError(
            f"{path} was not written by this program, which needs the name for mapped columns: "
            f"move it away, or raise memory_budget_gb above {size / _GB:.2f}."
        )
    log.info(
        "%s: %.2f GB of columns are more than the budget of %.2f GB (memory_budget_gb): they are "
        "read from %s, mapped into memory.",
        files[0], size / _GB, budget / _GB, path,
    )  # fmt: skip
    first_line = _first_line(files, forms, path.parent)
    then = f"make its folder writable, or raise memory_budget_gb above {size / _GB:.2f}"
    with explained(OSError, f"{path} cannot be written", then):
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        explained(OSError, f"{path} cannot be written", then),
        FileLock(path.with_name(f".{path.name}.lock")),  # one of several processes writes
    ):
        if not _starts_with(path, first_line):
            _write(path, files, forms, first_line)
        return _map(path, forms, len(first_line)), True


def discard_mapped(parquet: Path) -> None:
    """Remove the mapped file of a parquet file that was replaced, if there is one of ours."""
    path = parquet.with_suffix(".columns")
    if _starts_with(path, _FIRST_WORDS):
        path.unlink()


def _forms(files: list[str], names: list[str]) -> dict[str, Form]:
    """The form of each column, of all files together; the first rows show how long lists are."""
    rows, forms = 0, dict[str, Form]()
    for path in files:
        with opened(path) as file:
            missing = set(names) - set(file.names)
            if missing:
                raise InputError(
                    f"{path} has no column {min(missing)!r}, which the feature map names: write "
                    "the data again."
                )
            rows += file.rows
            forms = forms or file.forms(names)
    if not forms:
        raise InputError(f"{files[0]} holds no rows.")
    return {name: Form(dtype, (rows, *shape[1:])) for name, (dtype, shape) in forms.items()}


def _parts(files: list[str], name: str, form: Form) -> Iterator[np.ndarray]:
    """The values of a column, some rows at a time; all rows must be like the first."""
    for path in files:
        with opened(path) as file:
            yield from file.parts(name, form)


def _read(files: list[str], name: str, form: Form) -> Tensor:
    return torch.from_numpy(np.concatenate(list(_parts(files, name, form))))


def _write(path: Path, files: list[str], forms: dict[str, Form], first_line: bytes) -> None:
    """Write one column after the other, each as `_map` finds it."""
    with atomic_write(path) as unfinished, open(unfinished, "wb") as file:
        file.write(first_line)
        for name, form in forms.items():
            file.write(bytes(-file.tell() % _ALIGNMENT))
            for values in _parts(files, name, form):
                file.write(values.data)


def _map(path: Path, forms: dict[str, Form], start: int) -> dict[str, Tensor]:
    columns = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        for name, (dtype, shape) in forms.items():
            start += -start % _ALIGNMENT
            columns[name] = torch.from_numpy(np.memmap(path, dtype, "r", start, shape))
            start += columns[name].nbytes
    return columns


def _first_line(files: list[str], forms: dict[str, Form], home: Path) -> bytes:
    """What a mapped file in a folder is made from."""
    seen = [(os.path.relpath(file, home), os.stat(file)) for file in files]
    sources = [[name, status.st_size, status.st_mtime_ns] for name, status in seen]
    columns = {name: [dtype.str, shape] for name, (dtype, shape) in forms.items()}
    return _FIRST_WORDS + json.dumps([sources, columns]).encode() + b"\n"


def _starts_with(path: Path, text: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return not path.is_symlink() and file.read(len(text)) == text
    except OSError:  # not there, a folder, or not ours to read
        return False


def _available_memory() -> float:
    """Bytes that can be had without swapping, within the limit of a container."""
    available = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(float(x.split()[1]) for x in lines if x.startswith("MemAvailable")) * 1024
        available = min(available, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, StopIteration, ValueError):  # another system, or no limit ("max")
        pass
    return available
