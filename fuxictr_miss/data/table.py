"""Raw splits as checked tables: each value of the type that the config says, or one sentence.

Every column is checked as a whole, by one expression; only when it finds something is the first
such row looked up, to say where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.text.csv_lines import check_fields, check_line_ends, line_count, numbered_blocks
from fuxictr_miss.text.raw_values import broken_row, typed, wanted

_SHOWN = 400  # letters of a list of columns
_LONGEST_HEADER = 1 << 20  # bytes


class Rule(NamedTuple):
    """What no row of a column may be."""

    column: str
    broken: pl.Expr  # (rows,) of the raw file
    says: str  # after the value


class Table(NamedTuple):
    """A file whose columns have the types of the config."""

    file: str
    raw: pl.LazyFrame
    frame: pl.LazyFrame
    rules: list[Rule]
    separator: str = ""  # of a CSV


def open_table(
    file: str,
    columns: list[dict[str, Any]],
    separator: str = ",",
    required: bool = True,
) -> Table:
    """A CSV or parquet file, not read yet.

    Args:
        file: ends in .csv or .parquet.
        columns: checked features and labels that are read from it.
        separator: of a CSV.
        required: whether every column must be there.

    Raises:
        InputError: it cannot be opened, or a column is missing or of a type that cannot be used.
    """
    computed = any("preprocess" in column for column in columns)
    try:
        raw = _scan(file, [c["name"] for c in columns], separator, computed)
        schema = raw.collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _unreadable(file, error) from error
    _check_present(file, columns if required else [], schema.names())
    present = [c for c in columns if c["name"] in schema]
    selected, rules = _typed(file, schema, [c for c in present if "preprocess" not in c])
    if Path(file).suffix == ".csv":  # FuxiCTR's own functions expect the type declared
        selected += [_declared(column) for column in present if "preprocess" in column]
    frame = raw.with_columns(selected) if computed else raw.select(selected)
    return Table(file, raw, frame, rules, separator)


def check_computed(
    place: str,
    frame: pl.LazyFrame,
    columns: list[dict[str, Any]],
) -> pl.LazyFrame:
    """The same for columns that FuxiCTR's `preprocess` made out of others."""
    made = [column for column in columns if "preprocess" in column]
    try:
        schema = frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise _unreadable(place, error) from error
    selected, rules = _typed(place, schema, made)
    if selected:
        check([Table(place, frame, frame, rules)])
    return frame.with_columns(selected)


def check(tables: list[Table]) -> list[int]:
    """Rows of each file, if no row breaks a rule.

    Raises:
        InputError: names the file, the column, the first such row and its value.
    """
    counts = []
    for table in tables:
        lines = _check_lines(table) if Path(table.file).suffix == ".csv" else None
        found = _found(table)
        rows = found["rows"].item()
        if lines not in (None, rows):
            raise InputError(
                f"{table.file}: {lines} lines below the header are read as {rows} rows: a quote is "
                "not closed, or a field holds a line end; remove the quotes or line ends from it."
            )
        for number, rule in enumerate(table.rules):
            if found[str(number)].item():
                raise _broken(table, rule)
        counts.append(rows)
    return counts


def _found(table: Table) -> pl.DataFrame:
    """The number of rows, and of each rule whether one breaks it."""
    broken = [rule.broken.any().alias(str(i)) for i, rule in enumerate(table.rules)]
    try:
        return table.raw.select(pl.len().alias("rows"), *broken).collect()
    except pl.exceptions.PolarsError as error:
        raise _unreadable(table.file, error) from error


def _broken(table: Table, rule: Rule) -> InputError:
    first = table.raw.with_row_index("row").filter(rule.broken).head(1)
    row, value = first.select("row", rule.column).collect().row(0)
    return broken_row(f"{table.file}, ", row, rule.column, value, rule.says)


def _unreadable(file: str, error: BaseException) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, pl.exceptions.NoDataError):
        reason = "it is empty"
    if "utf8" in reason.lower().replace("-", ""):
        reason += ": save its text as UTF-8"
    kind = Path(file).suffix[1:]
    if not kind:  # a split, whose files have been read
        return InputError(
            f"The preprocess functions fail on {file} ({reason}): see what they make of its values."
        )
    return InputError(f"{file} cannot be read as {kind} ({reason}).")


# ---------------------------------------------------------------------- files


def _scan(file: str, names: list[str], separator: str, computed: bool) -> pl.LazyFrame:
    if Path(file).suffix == ".parquet":
        return pl.scan_parquet(file, low_memory=False, glob=False)
    if len(separator.encode()) != 1:
        raise InputError(f"sep must be one character, got {separator!r}.")
    _check_header(file)
    scan = partial(pl.scan_csv, file, separator=separator, low_memory=False, glob=False)
    text = scan(infer_schema=False)  # what is no number is found here, with its row
    if not computed:
        return text
    present = text.collect_schema().names()
    return scan(schema_overrides={name: pl.String for name in names if name in present})


def _check_header(file: str) -> None:
    """Refuse a CSV whose first line is none: two bytes a letter, or line ends of old Macs."""
    with open(file, "rb") as content:
        line = content.readline(_LONGEST_HEADER)
    if b"\0" in line:
        raise InputError(f"{file} is no UTF-8: save its text as UTF-8.")
    check_line_ends(file, line.removesuffix(b"\n").removesuffix(b"\r"))


def _check_present(file: str, columns: list[dict[str, Any]], present: list[str]) -> None:
    wanted = [c["name"] for c in columns]
    made = {c["name"] for c in columns if "preprocess" in c}
    missing = [name for name in wanted if name not in present and name not in made]
    if missing:
        has = ", ".join(present)
        raise InputError(
            f"{file} has no column {', '.join(missing)}, which the data set's config names. "
            f"It has: {has if len(has) <= _SHOWN else f'{has[:_SHOWN]}...'}."
        )
    for name in wanted:
        if f"{name}_duplicated_0" in present:  # so polars calls the second
            raise InputError(f"{file} has two columns {name!r}; remove or rename one.")


def _check_lines(table: Table) -> int:
    """Lines of a CSV below its header, each of which has all fields and is text."""
    file, width = table.file, len(table.raw.collect_schema())
    lines, quoted = 0, False
    for first, block in numbered_blocks(file):
        lines += line_count(block)
        quoted = quoted or b'"' in block
        if not quoted:
            check_fields(file, first, block, table.separator, width)
    if quoted:
        _check_quoted(table, width)
    return lines - 1


def _check_quoted(table: Table, width: int) -> None:
    """The same for a file in which separators may stand in quotes."""
    names = table.raw.collect_schema().names()
    parse = pa_csv.ParseOptions(delimiter=table.separator, newlines_in_values=True)
    convert = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), include_columns=names[:1]
    )
    what = f"{table.file} cannot be read as csv with {width} fields a line"
    with explained((pa.ArrowException, OSError), what, "mend the line or its quotes"):
        for _ in pa_csv.open_csv(table.file, parse_options=parse, convert_options=convert):
            pass


# ---------------------------------------------------------------------- types


def _declared(column: Mapping[str, Any]) -> pl.Expr:
    types = {"int": pl.Int64, "float": pl.Float64}
    return pl.col(column["name"]).cast(types.get(column["declared"]["dtype"], pl.String))


def _typed(
    file: str, schema: pl.Schema, columns: list[dict[str, Any]]
) -> tuple[list[pl.Expr], list[Rule]]:
    """Raw columns as their types in the config, and what they may not hold."""
    selected, rules = [], []
    for column in columns:
        name, dtype = column["name"], schema[column["name"]]
        values = typed(column, dtype)
        if values is None:
            raise InputError(
                f"{file}: column {name!r} is {dtype}, where the config wants "
                f"{wanted(column, dtype)}; convert the column or set its type in feature_cols."
            )
        selected.append(values.values.alias(name))
        rules += [Rule(name, each.broken, each.sentence()) for each in values.never]
    return selected, rules
