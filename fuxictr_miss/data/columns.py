"""The columns of a split as tensors: in memory, or mapped from an Arrow file if too large."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

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


class Columns(NamedTuple):
    """The columns of a split, all of one number of rows."""

    tensors: dict[str, Tensor]  # (rows,) or, of a sequence, (rows, L)
    mapped: bool  # they are views of a file: never write to them


class _Shape(NamedTuple):
    dtype: np.dtype
    row: tuple[int, ...]  # (): a number a row; (L,): a sequence


def open_columns(files: list[str], names: list[str], budget_gb: float | None = None) -> Columns:
    """Columns of parquet files, one after the other.

    What exceeds the budget is written once, uncompressed, to an Arrow file beside the first of the
    files, and read through the page cache: memory is then what the machine can spare, and a row
    costs a page of disk a column where it is not in the cache.

    Args:
        files: parquet, as `build_dataset` or FuxiCTR wrote them.
        names: the columns.
        budget_gb: for the decoded columns, in 10^9 bytes; None: half of the memory available now.

    Raises:
        InputError: a column is missing, is text, or its sequences differ in length; or the Arrow
            file cannot be written.
    """
    shapes = _shapes(files, names)
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    size = rows * sum(s.dtype.itemsize * int(np.prod(s.row)) for s in shapes.values())
    budget = _available() / 2 if budget_gb is None else budget_gb * _GB
    if size <= budget:
        arrays = {name: np.empty((rows, *s.row), s.dtype) for name, s in shapes.items()}
        _fill(arrays, files)
        return Columns({name: torch.from_numpy(a) for name, a in arrays.items()}, mapped=False)
    path = Path(files[0]).with_suffix(".arrow")
    log.info(
        "%s: %.2f GB of columns are more than the budget of %.2f GB (memory_budget_gb): they are "
        "read from %s, mapped into memory.",
        files[0],
        size / _GB,
        budget / _GB,
        path,
    )
    stamp = _stamp(files, shapes)
    try:
        with FileLock(path.with_name(f".{path.name}.lock")):  # of several processes one writes
            if _stamp_of(path) != stamp:
                _write(path, files, shapes, rows, stamp)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): make room there, or raise "
            f"memory_budget_gb above {size / _GB:.2f}."
        ) from error
    return Columns(_map(path, shapes), mapped=True)


def _shapes(files: list[str], names: list[str]) -> dict[str, _Shape]:
    """The type and width of each column, as the first row shows them."""
    for file in files:
        missing = set(names) - set(pq.read_schema(file).names)
        if missing:
            raise InputError(f"{file} has no column {sorted(missing)[0]!r}; rebuild the data set.")
    shapes = {}
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
        shapes[name] = _Shape(np.dtype(kind.to_pandas_dtype()), row)
    return shapes


def _fill(arrays: Mapping[str, np.ndarray], files: list[str]) -> None:
    """Decode the files into the arrays, a stretch of rows at a time."""
    start = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(arrays)):
                for name, array in arrays.items():
                    part, column = array[start : start + len(batch)], batch.column(name)
                    values = column.flatten() if part.ndim == 2 else column
                    if len(values) != part.size:
                        raise InputError(f"{path}: the rows of column {name!r} differ in length.")
                    part[:] = values.to_numpy(zero_copy_only=False).reshape(part.shape)
                start += len(batch)


def _write(
    path: Path, files: list[str], shapes: Mapping[str, _Shape], rows: int, stamp: bytes
) -> None:
    """All rows as one record batch, for a column must be one stretch of the file."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        arrays = {
            name: np.memmap(Path(scratch) / str(number), s.dtype, "w+", shape=(rows, *s.row))
            for number, (name, s) in enumerate(shapes.items())
        }
        _fill(arrays, files)
        columns = [
            pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
            if array.ndim == 2
            else pa.array(array)
            for array in arrays.values()
        ]
        batch = pa.record_batch(columns, names=list(arrays)).replace_schema_metadata(
            {b"source": stamp}
        )
        unfinished = Path(scratch) / path.name
        with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as out:
            out.write_batch(batch)
        unfinished.replace(path)


def _map(path: Path, shapes: Mapping[str, _Shape]) -> dict[str, Tensor]:
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    tensors = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        for name, shape in shapes.items():
            column = batch.column(name)
            values = (column.flatten() if shape.row else column).to_numpy(zero_copy_only=True)
            tensors[name] = torch.from_numpy(values.reshape(len(batch), *shape.row))
    return tensors


def _stamp(files: list[str], shapes: Mapping[str, _Shape]) -> bytes:
    """What the Arrow file depends on."""
    sources = [[os.path.basename(f), os.stat(f).st_size, os.stat(f).st_mtime_ns] for f in files]
    columns = {name: [s.dtype.name, *s.row] for name, s in shapes.items()}
    return json.dumps([sources, columns]).encode()


def _stamp_of(path: Path) -> bytes | None:
    try:
        with pa.memory_map(str(path)) as source:
            return (pa.ipc.open_file(source).schema.metadata or {}).get(b"source")
    except (OSError, pa.ArrowInvalid):
        return None


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
