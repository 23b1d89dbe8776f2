"""Columns of Parquet files; an id is the same text in all of them, whatever its type is."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types
from tqdm import tqdm

from fuxictr_miss.errors import InputError, unknown

MAGIC = b"PAR1"
_BATCH_ROWS = 1 << 20
_EXACT = 1 << 53  # a Float64 tells the whole numbers up to here apart


class ParquetRows(NamedTuple):
    """Rows of one file."""

    path: Path
    first_row: int  # counted from 1
    rows: pl.DataFrame  # the wanted columns: String, but `time` as it is in the file


def parquet_rows(files: Sequence[Path], columns: Mapping[str, str]) -> Generator[ParquetRows]:
    """Yield the rows of the files in order.

    Close the generator before anything is printed: the progress bar ends with it.

    Args:
        columns: name in the result -> name in the files.

    Raises:
        InputError: a file is none, lacks a column, or has one that is no id, attribute or time; a
            column is text in one file and a number in another.
    """
    ids = {name: _Ids(name, column) for name, column in columns.items() if name != "time"}
    with tqdm(desc="log", unit=" rows", unit_scale=True, mininterval=0.5) as bar:
        for path in files:
            row = 1
            for batch in _batches(path, columns, bar):
                try:
                    table = pl.DataFrame(pl.from_arrow(batch))
                    rows = pl.DataFrame(
                        [
                            ids[name].read(table[column], path, row)
                            if name in ids
                            else _time(table[column])
                            for name, column in columns.items()
                        ]
                    )
                except pl.exceptions.PanicException as error:  # polars on what Arrow let pass
                    raise InputError(
                        f"{path}: the rows from {row} on cannot be read as a table; the file is "
                        "damaged. Fetch or write it again."
                    ) from error
                if rows.height:
                    yield ParquetRows(path, row, rows)
                row += rows.height
                bar.update(rows.height)


def _batches(path: Path, columns: Mapping[str, str], bar: tqdm) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            expected = file.metadata.num_rows
            bar.total = (bar.total or 0) + expected
            _check_columns(path, columns, file.schema_arrow)
            for batch in file.iter_batches(_BATCH_ROWS, columns=list({*columns.values()})):
                batch.validate(full=True)
                expected -= batch.num_rows
                yield batch
        if expected:
            raise pa.ArrowInvalid(f"it lacks {expected:,} of the rows that its end counts")
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"Cannot read {path}: {error.strerror}.") from error
        why = str(error).split("\n")[0]
        raise InputError(f"{path} is no Parquet file, or is damaged or cut off: {why}") from error


def _check_columns(path: Path, columns: Mapping[str, str], schema: pa.Schema) -> None:
    for name, column in columns.items():
        if column not in schema.names:
            raise unknown(f"column of {path}:", column, schema.names)
        if schema.names.count(column) > 1:
            raise InputError(f"{path}: two columns are called {column!r}. Rename one of them.")
        kind = schema.field(column).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        valid = _VALID["time" if name == "time" else "id" if name in _IDS else "attribute"]
        if not any(is_one(kind) for is_one in valid):
            what = {"time": "a time", "user_id": "a user", "item_id": "an item"}
            raise InputError(
                f"{path}: column {column!r} has the type {kind}, which is not "
                f"{what.get(name, 'an attribute')}. Convert the column, or name another one."
            )


_IDS = ("user_id", "item_id")
_NUMBERS = (types.is_integer, types.is_floating, types.is_decimal)
_TEXTS = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
_BYTES = (types.is_binary, types.is_large_binary, types.is_binary_view)
_DATES = (types.is_date, types.is_timestamp)
_VALID = {
    "time": (*_NUMBERS, *_TEXTS, *_DATES),
    "id": (*_NUMBERS, *_TEXTS, *_BYTES),
    "attribute": (*_NUMBERS, *_TEXTS, *_BYTES, *_DATES, types.is_boolean),
}


def _time(values: pl.Series) -> pl.Series:
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    return values.alias("time")


class _Ids:
    """One column as text: 4 and 4.0 are "4", NaN is null."""

    def __init__(self, name: str, column: str) -> None:
        self._name = name
        self._column = column
        self._kind = ""
        self._seen_in: Path | None = None

    def read(self, values: pl.Series, path: Path, row: int) -> pl.Series:
        """The text of each value; `row` is the number of the first.

        Raises:
            InputError: the column is of another kind than in the files before; an id is a fraction
                or past the integers that a Float64 tells apart, or bytes are no UTF-8.
        """
        if values.dtype == pl.Null:
            return values.cast(pl.String).alias(self._name)
        kind = "a number" if values.dtype.is_numeric() else "no number"
        if self._kind and kind != self._kind:
            raise InputError(
                f"{path}: column {self._column!r} is {kind}, but {self._kind} in {self._seen_in}. "
                f"Convert it to one type in all files."
            )
        self._kind, self._seen_in = kind, self._seen_in or path
        try:
            text = self._text(values, path, row)
        except pl.exceptions.PolarsError as error:
            raise InputError(
                f"{path}: column {self._column!r} holds bytes that are no UTF-8. Convert it."
            ) from error
        return text.alias(self._name)

    def _text(self, values: pl.Series, path: Path, row: int) -> pl.Series:
        if values.dtype.is_float():
            return self._of_floats(values.fill_nan(None), path, row)
        if values.dtype.is_decimal():
            text = values.cast(pl.String)
            if text.str.contains(".", literal=True).any():
                text = text.str.strip_chars_end("0").str.strip_chars_end(".")
                self._refuse_fractions(values, text.str.contains(".", literal=True), path, row)
            return text
        return values.cast(pl.String)

    def _of_floats(self, values: pl.Series, path: Path, row: int) -> pl.Series:
        whole = values.cast(pl.Int64, strict=False)
        exact = (whole.cast(values.dtype) == values) & (values.abs() < _EXACT)
        if exact.all():
            return whole.cast(pl.String)
        self._refuse_fractions(values, ~exact.fill_null(False) & values.is_not_null(), path, row)
        return pl.select(
            pl.when(exact).then(whole.cast(pl.String)).otherwise(values.cast(pl.String))
        ).to_series()

    def _refuse_fractions(
        self, values: pl.Series, fractions: pl.Series, path: Path, row: int
    ) -> None:
        if self._name in _IDS and fractions.any():
            at = fractions.arg_true()[0]
            raise InputError(
                f"{path}, row {row + at}: {self._column!r} is {values[at]}; no id is a fraction or "
                f"a decimal number past 2**53. Convert the column to integers or text."
            )
