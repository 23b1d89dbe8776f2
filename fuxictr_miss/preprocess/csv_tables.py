"""Rows of CSV files: a line is a row, and a double quote means what RFC 4180 says, or nothing."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.preprocess.raw_lines import LineBlock, check_encoding
from fuxictr_miss.text.csv_lines import check_separator

QUOTING = ("csv", "none")


@dataclass(frozen=True)
class CsvForm:
    """How a CSV is written."""

    separator: str = ","
    quoting: str = "csv"  # RFC 4180; or "none": a double quote is a letter like any other
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        check_separator(self.separator)
        if self.quoting not in QUOTING:
            raise unknown("--quoting", self.quoting, QUOTING)
        check_encoding(self.encoding)


class TableRows(NamedTuple):
    """Some rows of a file."""

    path: Path
    rows: pl.DataFrame  # the wanted columns: String, but `time` of a Parquet file as it is there
    numbers: pl.Series  # of each row, its line in a CSV, or its row in Parquet, counted from 1
    malformed: pl.DataFrame | None = None  # lines that are no row: `line`, `why`
    block: LineBlock | None = None  # the lines of a CSV


class CsvReader:
    """Reads blocks of lines; the first line of each file is the header.

    Args:
        form: how the files are written.
        columns: name in the result -> name in the header.
    """

    def __init__(self, form: CsvForm, columns: Mapping[str, str]) -> None:
        self._form = form
        self._columns = columns
        self._header: list[str] = []
        separator = f"\\x{ord(form.separator):02x}"
        field = rf'(?:"(?:[^"\n]|"")*"|[^"\n{separator}]*)'
        line = rf"{field}(?:{separator}{field})*"
        self._lines = rf"\A(?:{line}\n)*(?:{line})?\z"
        self._line = rf"^{line}$"
        self._open = rf'^(?:{field}{separator})*"(?:[^"]|"")*$'

    def read(self, block: LineBlock) -> TableRows:
        """The rows of a block. It is parsed at once; only where that fails, line by line.

        A blank line is no row, or one without any value.

        Raises:
            InputError: the header lacks a column or has it twice; a double quote is not closed.
        """
        body = self._without_header(block)
        if not self._quotes(body) or self._is_whole(body.text):
            try:
                rows = self._parse(body.text, self._quotes(body))
            except pl.exceptions.PolarsError:  # a line has more columns than the header
                pass
            else:
                if rows.height == body.lines:
                    numbers = pl.int_range(rows.height, eager=True) + body.first_line
                    return TableRows(block.path, rows, numbers, block=block)
        rows, numbers, malformed = self._line_by_line(body)
        return TableRows(block.path, rows, numbers, malformed, block)

    def _is_whole(self, text: bytes) -> bool:
        """Whether each line has its quotes in pairs, around whole fields."""
        return bool(pl.Series([text.decode()]).str.contains(self._lines)[0])

    def _line_by_line(self, block: LineBlock) -> tuple[pl.DataFrame, pl.Series, pl.DataFrame]:
        """The good rows, the numbers of their lines, and the lines that are none."""
        lines = block.texts().filter(pl.col("text") != "")
        closed, bare = pl.lit(True), pl.col("text")
        if self._quotes(block):
            closed = bare.str.contains(self._line)
            bare = bare.str.replace_all(r'"(?:[^"]|"")*"', "")
            self._refuse_open_quote(block, lines.filter(~closed))
        columns = bare.str.count_matches(self._form.separator, literal=True) + 1
        lines = lines.with_columns(
            why=pl.when(~closed)
            .then(pl.lit("a double quote inside a field (--quoting none: quotes mean nothing)"))
            .when(columns > len(self._header))
            .then(pl.lit(f"more than {len(self._header)} columns"))
        )
        good = lines.filter(pl.col("why").is_null())
        rows = self._parse("\n".join(good["text"]).encode(), self._quotes(block))
        if rows.height != good.height:
            raise RuntimeError(f"{block.path}: {good.height} lines were read as {rows.height} rows")
        malformed = lines.filter(pl.col("why").is_not_null()).select("line", "why")
        return rows, good["line"], malformed

    def _without_header(self, block: LineBlock) -> LineBlock:
        if block.first_line > 1:
            return block
        head, _, rest = block.text.partition(b"\n")
        self._header = self._fields(LineBlock(block.path, 1, head, 1))
        for column in self._columns.values():
            if column not in self._header:
                raise unknown(f"column of {block.path}:", column, self._header)
            if self._header.count(column) > 1:
                raise InputError(
                    f"{block.path}, line 1: two columns are called {column!r}. Rename one of them."
                )
        return LineBlock(block.path, 2, rest, block.lines - 1)

    def _fields(self, head: LineBlock) -> list[str]:
        text = head.text.decode()
        if not text:
            raise InputError(f"{head.path}, line 1 is blank. The first line must name the columns.")
        if re.match(r"\[?\s*\{\s*\"", text):
            raise InputError(
                f"{head.path} holds JSON, not CSV with the names of its columns in line 1. Convert "
                "it: python -c \"import polars; polars.read_ndjson('log.jsonl').write_parquet"
                "('log.parquet')\" (read_json for one list)."
            )
        if not self._quotes(head):
            return text.split(self._form.separator)
        if not re.fullmatch(self._line, text):
            raise InputError(
                f"{head.path}, line 1: {text[:60]!r} has a double quote that is not closed, or "
                f"inside a name. Repair the line, or add --quoting none."
            )
        return next(csv.reader([text], delimiter=self._form.separator))

    def _quotes(self, block: LineBlock) -> bool:
        return self._form.quoting == "csv" and b'"' in block.text

    def _refuse_open_quote(self, block: LineBlock, lines: pl.DataFrame) -> None:
        """Refuse a quote that no quote closes: what follows it may be part of the field, or not."""
        opened = lines.filter(pl.col("text").str.contains(self._open))
        if opened.height:
            line, text = opened.row(0)
            raise InputError(
                f"{block.path}, line {line}: {text[:60]!r} opens a double quote that the line does "
                f"not close. If the log does not quote its fields, add --quoting none; else close "
                f"the quote, or take the line end out of the field."
            )

    def _parse(self, text: bytes, quotes: bool) -> pl.DataFrame:
        places = {name: self._header.index(column) for name, column in self._columns.items()}
        if not text:
            return pl.DataFrame(schema=dict.fromkeys(self._columns, pl.String))
        if not text.endswith(b"\n"):  # at the end of a text polars overlooks one more column
            text += b"\n"
        table = pl.read_csv(
            text,
            has_header=False,
            schema={str(place): pl.String for place in range(len(self._header))},
            separator=self._form.separator,
            quote_char='"' if quotes else None,
        )
        return table.select(pl.col(str(place)).alias(name) for name, place in places.items())
