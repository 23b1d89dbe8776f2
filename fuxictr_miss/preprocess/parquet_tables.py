"""Columns of Parquet files; an id is the same text in all of them, whatever its type is."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types
from tqdm import tqdm

from fuxictr_miss.errors import InputError, explained, unknown
from fuxictr_miss.preprocess.csv_tables import TableRows
from fuxictr_miss.text.id_text import id_text, is_exact

MAGIC = b"PAR1"
_BATCH_ROWS = 1 << 20


def parquet_rows(files: Sequence[Path], columns: Mapping[str, str]) -> Generator[TableRows]:
    """Yield the rows of the files in order; an id or attribute is text, `time` as in the file.

    Close the generator before anything is printed: the progress bar ends with it.

    Args:
        columns: name in the result -> name in the files.

    Raises:
        InputError: a file is none, lacks a column, or has one that is no id, attribute or time; a
            column is text in one file and a number in another; an id is a fraction, or past the
            integers that its type tells apart; bytes are no UTF-8.
    """
    kinds: dict[str, tuple[str, Path]] = {}  # of a column, and where it was first seen
    with tqdm(desc="log", unit=" rows", unit_scale=True, mininterval=0.5) as bar:
        for path in files:
            row = 1
            for batch in _batches(path, columns, bar):
                try:
                    table = pl.DataFrame(pl.from_arrow(batch))
                    _refuse_two_kinds(table, columns, path, kinds)
                    rows = _as_text(table, columns, path, row)
                except (pl.exceptions.PanicException, pl.exceptions.PolarsError) as error:
                    raise InputError(
                        f"{path}: the rows from {row} on cannot be read as a table; the file is "
                        "damaged. Fetch or write it again."
                    ) from error
                if rows.height:
                    yield TableRows(path, rows, pl.int_range(rows.height, eager=True) + row)
                row += rows.height
                bar.update(rows.height)


def _batches(path: Path, columns: Mapping[str, str], bar: tqdm) -> Iterator[pa.RecordBatch]:
    what, then = f"{path} cannot be read as Parquet", "fetch or write it again"
    with (
        explained((pa.ArrowException, OSError, ValueError), what, then),
        pq.ParquetFile(path) as file,
    ):
        expected = file.metadata.num_rows
        bar.total = (bar.total or 0) + expected
        _check_columns(path, columns, file.schema_arrow)
        for batch in file.iter_batches(_BATCH_ROWS, columns=list({*columns.values()})):
            batch.validate(full=True)
            expected -= batch.num_rows
            yield batch
        if expected:
            raise pa.ArrowInvalid(f"it lacks {expected:,} of the rows that its end counts")


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
_NUMBERS = (types.is_integer, types.is_floating, types.is_decimal128)
_TEXTS = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
_BYTES = (types.is_binary, types.is_large_binary, types.is_binary_view)
_DATES = (types.is_date, types.is_timestamp)
_VALID = {
    "time": (*_NUMBERS, *_TEXTS, *_DATES),
    "id": (*_NUMBERS, *_TEXTS, *_BYTES),
    "attribute": (*_NUMBERS, *_TEXTS, *_BYTES, *_DATES, types.is_boolean),
}


def _refuse_two_kinds(
    table: pl.DataFrame, columns: Mapping[str, str], path: Path, kinds: dict[str, tuple[str, Path]]
) -> None:
    for name, column in columns.items():
        dtype = table.schema[column]
        if name == "time" or dtype == pl.Null:
            continue
        kind = "a number" if dtype.is_numeric() else "no number"
        before, seen_in = kinds.setdefault(column, (kind, path))
        if kind != before:
            raise InputError(
                f"{path}: column {column!r} is {kind}, but {before} in {seen_in}. Convert it to "
                "one type in all files."
            )


def _as_text(table: pl.DataFrame, columns: Mapping[str, str], path: Path, row: int) -> pl.DataFrame:
    converted = []
    for name, column in columns.items():
        raw, dtype = pl.col(column), table.schema[column]
        if name in _IDS:
            _refuse_fractions(table, column, path, row)
        if name != "time":
            raw = id_text(raw, dtype)
        elif dtype in (pl.Categorical, pl.Enum):
            raw = raw.cast(pl.String)
        try:
            converted.append(table.select(raw.alias(name)).to_series())
        except pl.exceptions.PolarsError as error:
            raise InputError(
                f"{path}: column {column!r} holds bytes that are no UTF-8. Convert it."
            ) from error
    return pl.DataFrame(converted)


def _refuse_fractions(table: pl.DataFrame, column: str, path: Path, row: int) -> None:
    dtype = table.schema[column]
    if not (dtype.is_float() or dtype.is_decimal()):
        return
    fraction = ~is_exact(pl.col(column), dtype)
    bad = table.with_row_index(offset=row).filter(fraction).select("index", column)
    if bad.height:
        raise InputError(
            f"{path}, row {bad.row(0)[0]}: {column!r} is {bad.row(0)[1]}; no id is a fraction, or "
            f"a number of more digits than {dtype} holds. Convert the column to integers or text."
        )
