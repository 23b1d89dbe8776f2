"""The columns of a file of encoded data, some rows at a time: parquet, npz or h5."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import files_at

ENDINGS = ("parquet", "npz", "h5")
_ROWS_AT_ONCE = 65_536
_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
_HEADERS = {  # by the version of NumPy's format
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# whatever NumPy, h5py and Arrow raise for a file that is not one of theirs
_UNREADABLE = (pa.ArrowException, OSError, ValueError, KeyError, zipfile.BadZipFile)


class Form(NamedTuple):
    """The type and shape of a column: (rows,) or, of sequences, (rows, L)."""

    dtype: np.dtype
    shape: tuple[int, ...]


class ColumnFile:
    """An open file whose columns are numbers, or lists of one length."""

    names: list[str]
    rows: int

    def __init__(self, path: str) -> None:
        self.path = path

    def forms(self, names: list[str]) -> dict[str, Form]:
        """The form of each column; none if the file has no rows.

        Raises:
            InputError: a column does not hold numbers.
        """
        raise NotImplementedError

    def parts(self, name: str, form: Form) -> Iterator[np.ndarray]:
        """The values of a column, some rows at a time, in the type and length that are asked for.

        Raises:
            InputError: they cannot be had in it.
        """
        raise NotImplementedError


@contextmanager
def opened(path: str) -> Iterator[ColumnFile]:
    """Open a file by its ending.

    Raises:
        InputError: it cannot be read.
    """
    ending = Path(path).suffix[1:]
    then = "write the data again" if ending in ENDINGS else f"name a file in {', '.join(ENDINGS)}"
    with explained(_UNREADABLE, f"{path} cannot be read as {ending}", then):
        if ending == "npz":
            with zipfile.ZipFile(path) as archive, np.load(path) as arrays:
                yield _Arrays(path, arrays, {n: _npz_form(archive, n) for n in arrays.files})
        elif ending == "h5":
            with h5py.File(path, "r") as file:
                sets = {name: file[name] for name in file if isinstance(file[name], h5py.Dataset)}
                yield _Arrays(path, sets, {n: Form(s.dtype, s.shape) for n, s in sets.items()})
        else:
            with pq.ParquetFile(path) as parquet:
                yield _Parquet(path, parquet)


def column_files(path: str) -> list[str]:
    """The files of a split: itself, or those in a folder; none if there is nothing."""
    found = (files_at(path, ending) for ending in ENDINGS)
    return next(filter(None, found), [])


class _Parquet(ColumnFile):
    def __init__(self, path: str, file: pq.ParquetFile) -> None:
        super().__init__(path)
        self.file, self.rows = file, file.metadata.num_rows
        self.names = file.schema_arrow.names

    def forms(self, names: list[str]) -> dict[str, Form]:
        first = next(self.file.iter_batches(1, columns=names), None)
        if not first:
            return {}
        forms = {}
        for name in names:
            values = column = first.column(name)
            if isinstance(column.type, _LISTS):
                values = column.flatten()
            kind = values.type
            if not (pa.types.is_primitive(kind) and len(values)):
                raise _no_numbers(self.path, name)
            length = () if values is column else (len(values),)
            dtype = _usable(np.dtype(kind.to_pandas_dtype()), self.path, name)
            forms[name] = Form(dtype, (self.rows, *length))
        return forms

    def parts(self, name: str, form: Form) -> Iterator[np.ndarray]:
        kind, length = pa.from_numpy_dtype(form.dtype), form.shape[1:]
        kind = pa.list_(kind, *length) if length else kind
        what = f"{self.path}: column {name!r} cannot be read as {kind}"
        with explained(_UNREADABLE, what, "write the data again"):
            for batch in self.file.iter_batches(_ROWS_AT_ONCE, columns=[name]):
                column = batch.column(0).cast(kind)
                values = column.flatten() if length else column
                if column.null_count or values.null_count:
                    raise InputError(f"{self.path}: column {name!r} has missing values; encode it.")
                yield values.to_numpy().reshape(-1, *length)


class _Arrays(ColumnFile):
    def __init__(self, path: str, arrays: Mapping[str, Any], forms: dict[str, Form]) -> None:
        super().__init__(path)
        self.arrays, self.known, self.names = arrays, forms, list(forms)
        self.rows = max((form.shape[0] for form in forms.values() if form.shape), default=0)

    def forms(self, names: list[str]) -> dict[str, Form]:
        forms = {}
        for name in names if self.rows else ():
            dtype, shape = self.known[name]
            if len(shape) not in (1, 2):
                raise _no_numbers(self.path, name)
            if shape[0] != self.rows:
                raise InputError(
                    f"{self.path}: column {name!r} has {shape[0]} rows, another one {self.rows}: "
                    "write the data again."
                )
            forms[name] = Form(_usable(dtype, self.path, name), shape)
        return forms

    def parts(self, name: str, form: Form) -> Iterator[np.ndarray]:
        values = self.arrays[name]  # of npz the whole column, of h5 nothing yet
        for start in range(0, self.rows, _ROWS_AT_ONCE):
            part = np.asarray(values[start : start + _ROWS_AT_ONCE])
            typed = part.astype(form.dtype)
            if part.shape[1:] != form.shape[1:] or not np.array_equal(part, typed, equal_nan=True):
                kind = form.dtype.name + "".join(f"[{length}]" for length in form.shape[1:])
                raise InputError(
                    f"{self.path}: column {name!r} cannot be read as {kind}, which the split's "
                    "first file holds: write the data again."
                )
            yield typed


def _npz_form(archive: zipfile.ZipFile, name: str) -> Form:
    """What an array's header says, without its values."""
    with archive.open(f"{name}.npy") as file:
        shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    return Form(dtype, shape)


def _usable(dtype: np.dtype, path: str, name: str) -> np.dtype:
    """The type that a tensor can have and be indexed in."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "u" and dtype.itemsize > 1:
        return np.dtype(np.int64)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise _no_numbers(path, name)
    return dtype.newbyteorder("=")


def _no_numbers(path: str, name: str) -> InputError:
    return InputError(f"{path}: column {name!r} must hold numbers or lists of them; encode it.")
