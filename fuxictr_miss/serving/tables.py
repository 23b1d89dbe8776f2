"""Files of raw rows, in parts that fit into memory."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.serving.rows import check_present
from fuxictr_miss.text.csv_lines import (
    check_fields,
    check_line_ends,
    line_count,
    numbered_blocks,
    odd_fields,
)

SEPARATORS = {".csv": ",", ".tsv": "\t"}
_ROWS_AT_ONCE = 1 << 16
_QUOTES = "a quote is not closed, or something stands beside it: mend the line"


class Part(NamedTuple):
    """Some rows of a file."""

    rows: pl.DataFrame
    before: int  # rows of the file before them
    share: float  # of the file, with them


def parts(file: str, columns: Sequence[str], separator: str | None = None) -> Iterator[Part]:
    """The rows of a CSV, TSV or Parquet file, in order.

    Args:
        file: ends in .csv, .tsv or .parquet.
        columns: those to read.
        separator: of a CSV; None: by the ending.

    Raises:
        InputError: it cannot be read, lacks a column or has one twice; a line of a CSV
            is no row.
    """
    ending = Path(file).suffix
    if ending != ".parquet" and ending not in SEPARATORS:
        raise InputError(f"{file} must end in .csv, .tsv or .parquet, and may not be packed.")
    errors = pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError
    with explained(errors, f"{file} cannot be read", "write it again"):
        if ending == ".parquet":
            yield from _of_parquet(file, columns)
        else:
            yield from _of_csv(file, columns, separator or SEPARATORS[ending])


def _of_parquet(file: str, columns: Sequence[str]) -> Iterator[Part]:
    scan = pl.scan_parquet(file, glob=False)
    check_present(f"{file}: ", columns, scan.collect_schema().names())
    total, before = scan.select(pl.len()).collect().item(), 0
    if not total:
        return
    for rows in scan.select(columns).collect_batches(chunk_size=_ROWS_AT_ONCE):
        yield Part(rows, before, (before + len(rows)) / total)
        before += len(rows)


def _of_csv(file: str, columns: Sequence[str], separator: str) -> Iterator[Part]:
    """Line by line a row; what is no number is found by the encoder."""
    csv.field_size_limit(sys.maxsize)  # a history is as long as it is
    size, done, before, header = Path(file).stat().st_size, 0, 0, list[str]()
    for first, block in numbered_blocks(file):
        done += len(block)
        block = block.replace(b"\r\n", b"\n") if b"\r" in block else block
        if not header:
            head, _, block = block.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
            header, first = _header(file, head, columns, separator), 2
        if block:
            rows = _rows(file, first, block, len(header), separator)
            wanted = {name: str(header.index(name)) for name in columns}
            yield Part(rows.select(**wanted), before, done / size)
            before += len(rows)
    if not header:  # cut off: an empty part has its header
        raise InputError(f"{file} holds no rows.")


def _header(file: str, line: bytes, columns: Sequence[str], separator: str) -> list[str]:
    check_line_ends(file, line)
    header = _fields(file, 1, line.decode(), separator)
    check_present(f"{file}: ", columns, header)
    for name in columns:
        if header.count(name) > 1:
            raise InputError(f"{file} has two columns {name!r}: remove or rename one.")
    return header


def _rows(file: str, first: int, block: bytes, width: int, separator: str) -> pl.DataFrame:
    """The fields of some lines, all text; the columns are called 0, 1, ..."""
    schema = {str(place): pl.String for place in range(width)}
    if b'"' in block:
        lines = block.decode().removesuffix("\n").split("\n")
        fields = [_fields(file, first + n, line, separator) for n, line in enumerate(lines)]
        odd = next((n for n, each in enumerate(fields) if len(each) != width), None)
        if odd is not None:
            raise odd_fields(file, first + odd, width)
        table = pl.DataFrame(fields, schema, orient="row").select(pl.all().replace("", None))
    else:
        check_fields(file, first, block, separator, width)
        table = pl.read_csv(
            block, has_header=False, schema=schema, separator=separator, quote_char=None
        )
    if len(table) != line_count(block):
        raise odd_fields(file, first, width, " or later")
    return table


def _fields(file: str, line: int, text: str, separator: str) -> list[str]:
    with explained(csv.Error, f"{file}, line {line}", _QUOTES):
        return next(csv.reader([text], delimiter=separator, strict=True), [])
