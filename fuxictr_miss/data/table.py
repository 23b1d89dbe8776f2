"""Raw splits as checked tables: each value of the type that the config says, or one sentence.

Every column is checked as a whole, by one expression; only when it finds something is the first
such row looked up, to say where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from fuxictr_miss.errors import InputError, explained

_EXACT = {pl.Float64: 2**53, pl.Float32: 2**24, pl.Float16: 2**11}  # larger ids lose digits
_WORDS = pl.element()  # of a list


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
    labels: list[dict[str, Any]],
    binary: list[bool],
    separator: str = ",",
    required: bool = True,
) -> Table:
    """A CSV or parquet file, not read yet.

    Args:
        file: ends in .csv or .parquet.
        columns: checked feature columns that are read from it.
        labels: checked label columns.
        binary: of each label, whether it is 0 or 1.
        separator: of a CSV.
        required: whether every column must be there.

    Raises:
        InputError: it cannot be opened, or a column is missing or of a type that cannot be used.
    """
    everything = [*columns, *labels]
    computed = any("preprocess" in column for column in everything)
    try:
        raw = _scan(file, [c["name"] for c in everything], separator, computed)
        schema = raw.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(file, error) from error
    _check_present(file, everything if required else [], schema.names())
    selected, rules = [], []
    for place, column in enumerate(everything):
        name = column["name"]
        if name not in schema:
            continue
        if "preprocess" in column:
            if Path(file).suffix == ".csv":  # FuxiCTR's own functions expect the type declared
                selected.append(_declared(column))
            continue
        label = binary[place - len(columns)] if place >= len(columns) else None
        expression, found = _as_configured(file, column, schema[name], label)
        selected.append(expression.alias(name))
        rules += found
    frame = raw.with_columns(selected) if computed else raw.select(selected)
    return Table(file, raw, frame, rules, separator)


def check_computed(
    place: str,
    frame: pl.LazyFrame,
    columns: list[dict[str, Any]],
) -> pl.LazyFrame:
    """The same for columns that FuxiCTR's `preprocess` made out of others."""
    schema = frame.collect_schema()
    selected, rules = [], []
    for column in columns:
        if "preprocess" in column:
            name = column["name"]
            expression, found = _as_configured(place, column, schema[name], None)
            selected.append(expression.alias(name))
            rules += found
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
    text = "empty" if value is None else repr(value)
    text = text if len(text) < 80 else f"{text[:77]}..."
    return InputError(
        f"{table.file}, row {row + 1}, column {rule.column!r}: the value is {text}; {rule.says}."
    )


def _unreadable(file: str, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, pl.exceptions.NoDataError):
        reason = "it is empty"
    if "utf8" in reason.lower().replace("-", ""):
        reason += ": save its text as UTF-8"
    kind = Path(file).suffix[1:]
    return InputError(f"{file} cannot be read as {kind} ({reason}).")


# ---------------------------------------------------------------------- files


def _scan(file: str, names: list[str], separator: str, computed: bool) -> pl.LazyFrame:
    if Path(file).suffix == ".parquet":
        return pl.scan_parquet(file, low_memory=False, glob=False)
    if len(separator.encode()) != 1:
        raise InputError(f"sep must be one character, got {separator!r}.")
    if not computed:  # everything as text: what is no number is found here, with its row
        return pl.scan_csv(
            file, separator=separator, infer_schema=False, low_memory=False, glob=False
        )
    header = pl.scan_csv(file, separator=separator, infer_schema=False, glob=False)
    present = header.collect_schema().names()
    text = {name: pl.String for name in names if name in present}
    return pl.scan_csv(
        file, separator=separator, schema_overrides=text, low_memory=False, glob=False
    )


def _check_present(file: str, columns: list[dict[str, Any]], present: list[str]) -> None:
    wanted = [c["name"] for c in columns]
    made = {c["name"] for c in columns if "preprocess" in c}
    missing = [name for name in wanted if name not in present and name not in made]
    if missing:
        raise InputError(
            f"{file} has no column {', '.join(missing)}, which the data set's config names. "
            f"It has: {', '.join(present)}."
        )
    for name in wanted:
        if f"{name}_duplicated_0" in present:  # so polars calls the second
            raise InputError(f"{file} has two columns {name!r}; remove or rename one.")


def _check_lines(table: Table) -> int:
    """Lines of a CSV below its header, each of which has all fields and is text.

    polars reads a line that is cut off as empty fields, and stops at a quote inside a field.
    """
    file, width = table.file, len(table.raw.collect_schema())
    separator = ord(table.separator)
    before, quoted, last = 0, False, b"\n"
    with open(file, "rb") as lines:
        while block := lines.read(1 << 22):
            block += lines.readline()
            last = block[-1:]
            _check_text(file, block, before)
            values = np.frombuffer(block, np.uint8)
            ends = np.flatnonzero(values == ord("\n"))
            if last != b"\n":
                ends = np.append(ends, len(block))
            quoted = quoted or b'"' in block
            fields = np.searchsorted(np.flatnonzero(values == separator), ends)
            odd = np.flatnonzero(np.diff(fields, prepend=0) != width - 1)
            if len(odd) and not quoted:
                raise InputError(
                    f"{file}, line {before + odd[0] + 1}: it has not the {width} fields of the "
                    "header; mend or remove it."
                )
            before += len(ends)
    if quoted:
        _check_quoted(table, width)
    return before - 1


def _check_text(file: str, block: bytes, before: int) -> None:
    try:
        if not block.isascii():
            block.decode()
    except UnicodeDecodeError as error:
        line = before + block[: error.start].count(b"\n") + 1
        raise InputError(
            f"{file}, line {line}: {block[error.start : error.end]!r} is not UTF-8; save the file "
            "as UTF-8."
        ) from error


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
    return pl.col(column["name"]).cast(types.get(column["dtype"], pl.String))


def _as_configured(
    file: str, column: Mapping[str, Any], dtype: pl.DataType, binary: bool | None
) -> tuple[pl.Expr, list[Rule]]:
    """A raw column as its type in the config, and what it may not hold.

    Args:
        binary: of a label, whether it is 0 or 1; None: it is a feature.
    """
    name, kind = column["name"], column.get("type")
    raw = pl.col(name)
    if binary is not None:
        return _label(file, column, dtype, binary)
    if kind == "embedding":
        return _vector(file, column, dtype)
    if kind == "numeric":
        return _number(file, column, dtype)
    if kind == "sequence" and isinstance(dtype, pl.List | pl.Array):
        return _joined(file, column, dtype)
    if column["dtype"] == "int":
        return _whole(file, name, dtype)
    text = _text(raw, dtype)
    if text is None:
        raise _wrong_type(file, name, dtype, "ids: text or whole numbers")
    if "fill_na" in column:  # an empty text is as missing as a null
        text = pl.when(text != "").then(text)
    return text, [Rule(name, broken, says) for broken, says in _no_id(raw, dtype)]


def _wrong_type(file: str, name: str, dtype: pl.DataType, wanted: str) -> InputError:
    return InputError(
        f"{file}: column {name!r} is {dtype}, where the config wants {wanted}; convert the column "
        "or set its type in feature_cols."
    )


def _text(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    """The one text of an id: 4, 4.0 and "4" are the same."""
    if dtype == pl.String:
        return raw
    if dtype.is_float():
        whole = raw.cast(pl.Float64)
        number = pl.when(whole == whole.floor()).then(whole.cast(pl.Int64, strict=False))
        text = number.cast(pl.String).fill_null(whole.cast(pl.String))
        return pl.when(raw.is_not_nan()).then(text)
    if isinstance(dtype, pl.Decimal):
        return raw.cast(pl.String).str.replace(r"\.0+$", "")
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        return None
    return raw.cast(pl.String, strict=False)


def _no_id(raw: pl.Expr, dtype: pl.DataType) -> list[tuple[pl.Expr, str]]:
    if dtype.is_float():
        most = next(limit for kind, limit in _EXACT.items() if dtype == kind)
        return [
            (raw.is_infinite(), "an id must be finite"),
            (
                raw.is_not_nan() & (raw.abs() > most),
                f"ids above {most} lose digits as {dtype}: write whole numbers or text",
            ),
        ]
    return []


def _joined(
    file: str, column: Mapping[str, Any], dtype: pl.List | pl.Array
) -> tuple[pl.Expr, list[Rule]]:
    """Histories that are lists, as text."""
    name, splitter = column["name"], column.get("splitter", "^")
    inner: Any = dtype.inner
    raw = pl.col(name)
    if isinstance(dtype, pl.Array):
        raw = raw.arr.to_list()
    text = _text(_WORDS, inner)
    if text is None:
        raise _wrong_type(file, name, dtype, "a list of ids")
    rules = [
        Rule(name, raw.list.eval(broken).list.any().fill_null(False), f"in it {says}")
        for broken, says in _no_id(_WORDS, inner)
    ]
    words = raw.list.eval(text.fill_null(""))
    if inner == pl.String:
        holds = raw.list.eval(_WORDS.str.contains(splitter, literal=True)).list.any()
        says = f"an id in it holds the splitter {splitter!r}: set another splitter in feature_cols"
        rules.append(Rule(name, holds.fill_null(False), says))
    return words.list.join(splitter), rules


def _whole(file: str, name: str, dtype: pl.DataType) -> tuple[pl.Expr, list[Rule]]:
    """Whole numbers; NaN, and an empty field, are missing."""
    raw = pl.col(name)
    if dtype == pl.String:
        stripped = raw.str.strip_chars()
        number = stripped.cast(pl.Int64, strict=False)
        decimal = stripped.cast(pl.Float64, strict=False)
        decimal = pl.when(decimal.is_not_nan()).then(decimal)
        number = number.fill_null(_if_whole(decimal))
        missing = raw.is_null() | (stripped == "") | (stripped.str.to_lowercase() == "nan")
    elif dtype.is_float():
        number = _if_whole(pl.when(raw.is_not_nan()).then(raw.cast(pl.Float64)))
        missing = raw.is_null() | raw.is_nan()
    elif dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        number, missing = raw.cast(pl.Int64, strict=False), raw.is_null()
    else:
        raise _wrong_type(file, name, dtype, "whole numbers (dtype int)")
    says = "dtype int needs a whole number of 64 bits: correct it, or set another dtype"
    return number, [Rule(name, number.is_null() & ~missing, says)]


def _if_whole(number: pl.Expr) -> pl.Expr:
    exact = (number == number.floor()) & (number.abs() <= _EXACT[pl.Float64])
    return pl.when(exact).then(number.cast(pl.Int64, strict=False))


def _real(file: str, name: str, dtype: pl.DataType) -> tuple[pl.Expr, pl.Expr]:
    """A number, null where there is none; and where something is there that is none."""
    raw = pl.col(name)
    if dtype == pl.String:
        stripped = raw.str.strip_chars()
        number = stripped.cast(pl.Float64, strict=False)
        return number.fill_nan(None), number.is_null() & (stripped != "").fill_null(False)
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        return raw.cast(pl.Float64).fill_nan(None), pl.lit(False)
    raise _wrong_type(file, name, dtype, "numbers")


def _too_large(number: pl.Expr) -> pl.Expr:
    return number.cast(pl.Float32, strict=False).is_infinite().fill_null(False)


def _number(file: str, column: Mapping[str, Any], dtype: pl.DataType) -> tuple[pl.Expr, list[Rule]]:
    name, fill = column["name"], column.get("fill_na")
    number, no_number = _real(file, name, dtype)
    rules = [
        Rule(name, no_number, "a numeric feature needs a number"),
        Rule(name, _too_large(number), "a numeric feature must be finite in 32 bits"),
    ]
    if fill is None:
        says = "a numeric feature needs a number: set fill_na in its entry of feature_cols"
        rules.append(Rule(name, number.is_null() & ~no_number, says))
    else:
        number = number.fill_null(float(fill))
    return _of_dtype(number, column), rules + _fractions(number, column)


def _label(
    file: str, column: Mapping[str, Any], dtype: pl.DataType, binary: bool
) -> tuple[pl.Expr, list[Rule]]:
    name = column["name"]
    raw = pl.col(name)
    number, _ = _real(file, name, dtype)
    if dtype == pl.String:  # CSV: true and false, as parquet's Boolean
        word = raw.str.strip_chars().str.to_lowercase()
        number = pl.when(word == "true").then(1.0).when(word == "false").then(0.0).otherwise(number)
    if binary:
        says = (
            "a label of binary_classification is 0 or 1: map the labels, or set task: regression "
            "with a loss for it"
        )
        return _of_dtype(number, column), [
            Rule(name, ~number.is_in([0.0, 1.0]).fill_null(False), says)
        ]
    rules = [
        Rule(name, number.is_null() | _too_large(number), "a label must be a finite number"),
        *_fractions(number, column),
    ]
    return _of_dtype(number, column), rules


def _fractions(number: pl.Expr, column: Mapping[str, Any]) -> list[Rule]:
    if column["dtype"] != "int":
        return []
    says = "dtype int needs a whole number: set dtype: float"
    return [Rule(column["name"], (number != number.floor()).fill_null(False), says)]


def _of_dtype(number: pl.Expr, column: Mapping[str, Any]) -> pl.Expr:
    return number.cast(pl.Int64, strict=False) if column["dtype"] == "int" else number


def _vector(file: str, column: Mapping[str, Any], dtype: pl.DataType) -> tuple[pl.Expr, list[Rule]]:
    """A column of vectors, one width for all rows."""
    name, width = column["name"], column["pretrain_dim"]
    if not isinstance(dtype, pl.List | pl.Array) or not dtype.inner.is_numeric():
        raise _wrong_type(file, name, dtype, "vectors (a list of numbers)")
    raw = pl.col(name) if isinstance(dtype, pl.List) else pl.col(name).arr.to_list()
    numbers = raw.cast(pl.List(pl.Float32))
    finite = numbers.list.eval(_WORDS.is_finite().fill_null(False)).list.all()
    rules = [
        Rule(name, (raw.list.len() != width).fill_null(True), f"pretrain_dim is {width}"),
        Rule(name, ~finite.fill_null(False), "a vector must hold finite numbers"),
    ]
    return numbers.list.to_array(width), rules
