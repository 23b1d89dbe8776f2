"""A split as rows whose columns lie side by side: in memory, or mapped from an Arrow file."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from torch import Tensor

from fuxictr_miss.errors import InputError

log = logging.getLogger(__name__)

_GB = 1e9
_ROWS_AT_ONCE = 65_536


class Rows(NamedTuple):
    """The rows of a split."""

    words: Tensor  # (rows, W) int64: a row's columns, one after the other
    layout: Layout  # takes them apart
    mapped: bool  # they are views of a file: never write to them


class Layout:
    """Where each column stands in a row.

    Args:
        record: a structured type, its fields on multiples of their size and its size one of 8.
    """

    def __init__(self, record: np.dtype) -> None:
        self._fields: dict[str, tuple[torch.dtype, int, int | None]] = {}
        for name, (field, offset, *_) in (record.fields or {}).items():
            dtype = torch.from_numpy(np.empty(0, field.base)).dtype
            start = offset // field.base.itemsize
            self._fields[name] = (dtype, start, start + field.shape[0] if field.shape else None)
        self._dtypes = {dtype for dtype, _, _ in self._fields.values()}

    def columns(self, words: Tensor) -> dict[str, Tensor]:
        """Views of (b, W) int64 rows: {column: (b,) or, of a sequence, (b, L)}."""
        views = {dtype: words.view(dtype) for dtype in self._dtypes}
        return {
            name: views[dtype].select(1, start) if stop is None else views[dtype][:, start:stop]
            for name, (dtype, start, stop) in self._fields.items()
        }


def open_rows(files: list[str], names: list[str], budget_gb: float | None = None) -> Rows:
    """Rows of parquet files, one after the other.

    What exceeds the budget is written once, uncompressed, to an Arrow file beside the first of the
    files, and read through the page cache: memory is then what the machine can spare, and a row
    costs a page or two of disk where it is not in the cache.

    Args:
        files: parquet, as `build_dataset` or FuxiCTR wrote them.
        names: the columns.
        budget_gb: for the decoded columns, in 10^9 bytes; None: half of the memory available now.

    Raises:
        InputError: a column is missing, is text, or its sequences differ in length; or the Arrow
            file cannot be written, or is somebody else's.
    """
    record = _record(files, names)
    count = sum(pq.read_metadata(file).num_rows for file in files)
    size = count * record.itemsize
    budget = _available() / 2 if budget_gb is None else budget_gb * _GB
    if size <= budget:
        rows = np.zeros(count, record)
        _fill(rows, files)
        return Rows(_words(rows), Layout(record), mapped=False)
    path = Path(files[0]).with_suffix(".arrow")
    if os.path.lexists(path) and _stamp_of(path) is None:
        raise InputError(
            f"{path} was not written by this program, which needs the name for mapped rows: move "
            f"it away, or raise memory_budget_gb above {size / _GB:.2f}."
        )
    log.info(
        "%s: %.2f GB of columns are more than the budget of %.2f GB (memory_budget_gb): they are "
        "read from %s, mapped into memory.",
        files[0],
        size / _GB,
        budget / _GB,
        path,
    )
    stamp = _stamp(files, record)
    try:
        with FileLock(path.with_name(f".{path.name}.lock")):  # of several processes one writes
            if _stamp_of(path) != stamp:
                _write(path, files, record, count, stamp)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): make room there, or raise "
            f"memory_budget_gb above {size / _GB:.2f}."
        ) from error
    return Rows(_words(_map(path, record)), Layout(record), mapped=True)


def discard_mapped(parquet: Path) -> None:
    """Remove the mapped rows of a parquet file that was replaced, if there are any of ours."""
    path = parquet.with_suffix(".arrow")
    if _stamp_of(path) is not None:
        path.unlink()


def _record(files: list[str], names: list[str]) -> np.dtype:
    """The type of a row; how long its sequences are the first one shows."""
    for file in files:
        missing = set(names) - set(pq.read_schema(file).names)
        if missing:
            raise InputError(f"{file} has no column {sorted(missing)[0]!r}; rebuild the data set.")
    fields: list[Any] = []
    with pq.ParquetFile(files[0]) as file:
        first = next(file.iter_batches(1, columns=names), None)
        schema = file.schema_arrow
    for name in names:
        kind = schema.field(name).type
        row: tuple[int, ...] = ()
        if pa.types.is_nested(kind):
            row = (len(first.column(name).flatten()) if first is not None else 0,)
            kind = kind.value_type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise InputError(f"{files[0]}: column {name!r} is {kind}, not numbers; encode it.")
        fields.append((name, np.dtype(kind.to_pandas_dtype()), row))
    packed = np.dtype(fields, align=True)
    places: Mapping[str, Any] = packed.fields or {}
    return np.dtype(
        {
            "names": names,
            "formats": [places[name][0] for name in names],
            "offsets": [places[name][1] for name in names],
            "itemsize": packed.itemsize + -packed.itemsize % 8,
        }
    )


def _words(rows: np.ndarray) -> Tensor:
    """Rows as (rows, W) int64, of the same memory."""
    words = rows.view(np.int64).reshape(len(rows), rows.dtype.itemsize // 8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(words)


def _fill(rows: np.ndarray, files: list[str]) -> None:
    """Decode the files into the rows, a stretch of them at a time."""
    names = list(rows.dtype.names or [])
    start = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
                for name in names:
                    part = rows[name][start : start + len(batch)]
                    column = batch.column(name)
                    values = column.flatten() if part.ndim == 2 else column
                    if len(values) != part.size:
                        raise InputError(f"{path}: the rows of column {name!r} differ in length.")
                    part[:] = values.to_numpy(zero_copy_only=False).reshape(part.shape)
                start += len(batch)


def _write(path: Path, files: list[str], record: np.dtype, count: int, stamp: bytes) -> None:
    """All rows as one record batch, for they must be one stretch of the file."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        rows = np.memmap(Path(scratch) / "rows", record, "w+", shape=(count,))
        _fill(rows, files)
        column = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(record.itemsize), count, [None, pa.py_buffer(rows.view(np.uint8))]
        )
        batch = pa.record_batch([column], names=["row"])
        batch = batch.replace_schema_metadata({b"source": stamp})
        unfinished = Path(scratch) / path.name
        with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as out:
            out.write_batch(batch)
        unfinished.replace(path)


def _map(path: Path, record: np.dtype) -> np.ndarray:
    column = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column(0)
    return np.frombuffer(column.buffers()[1], record, len(column))


def _stamp(files: list[str], record: np.dtype) -> bytes:
    """What the Arrow file depends on."""
    sources = [[os.path.basename(f), os.stat(f).st_size, os.stat(f).st_mtime_ns] for f in files]
    return json.dumps([sources, str(record)]).encode()


def _stamp_of(path: Path) -> bytes | None:
    """What a file of mapped rows was made of; None if it is nothing of ours."""
    if path.is_symlink():
        return None
    try:
        with pa.memory_map(str(path)) as source:
            schema = pa.ipc.open_file(source).schema
    except (OSError, pa.ArrowInvalid):
        return None
    return (schema.metadata or {}).get(b"source") if schema.names == ["row"] else None


def _available() -> float:
    """Bytes of memory that can be had without swapping, within the limit of a container."""
    available = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(float(x.split()[1]) for x in lines if x.startswith("MemAvailable")) * 1024
        available = min(available, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, StopIteration, ValueError):  # another system, or no limit ("max")
        pass
    return available
