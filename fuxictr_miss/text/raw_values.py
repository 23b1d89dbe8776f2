"""Raw values as the types that a config declares: the same in training and in serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import polars as pl

from fuxictr_miss.errors import InputError
from fuxictr_miss.text.id_text import id_text, largest_exact

_WORDS = pl.element()  # of a list


class Never(NamedTuple):
    """What no row of a column may be."""

    broken: pl.Expr  # (rows,) of the raw column
    says: str
    then: str = ""  # what to do in the config

    def sentence(self) -> str:
        return f"{self.says}: {self.then}" if self.then else self.says


class Typed(NamedTuple):
    """A raw column as its type."""

    values: pl.Expr
    never: list[Never]


def typed(column: Mapping[str, Any], dtype: pl.DataType) -> Typed | None:
    """A raw column of a dtype as the type that its entry in feature_cols declares.

    Ids and histories become text (whole numbers for `dtype: int`); a missing id stays null.

    Returns:
        None if that dtype cannot be read as the type.
    """
    read, _ = _READERS[_kind(column, dtype)]
    return read(pl.col(column["name"]), dtype, column)


def wanted(column: Mapping[str, Any], dtype: pl.DataType) -> str:
    """What such a column must hold, in words."""
    return _READERS[_kind(column, dtype)][1]


def broken_row(place: str, row: int, column: str, value: Any, says: str) -> InputError:
    """The error for a value: where it stands, what it is, and what it may not be.

    Args:
        place: of the rows, such as "new.csv, ".
        row: counted from 0.
        column: raw.
        value: of a cell.
        says: what no row of the column may be.
    """
    value = value.to_list() if isinstance(value, pl.Series) else value
    text = "empty" if value is None else repr(value)
    text = text if len(text) < 80 else f"{text[:77]}..."
    return InputError(f"{place}row {row + 1}, column {column!r}: the value is {text}; {says}.")


def _kind(column: Mapping[str, Any], dtype: pl.DataType) -> str:
    if column["type"] in ("label", "numeric", "embedding"):
        return str(column["type"])
    if column["type"] == "sequence" and isinstance(dtype, pl.List | pl.Array):
        return "list"
    return "int" if column["dtype"] == "int" else "id"


def _id(raw: pl.Expr, dtype: pl.DataType, column: Mapping[str, Any]) -> Typed | None:
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Duration):
        return None
    text, never = id_text(raw, dtype), []
    if "fill_na" in column:  # an empty text is as missing as a null
        text = pl.when(text != "").then(text)
    if dtype.is_float():
        most = largest_exact(dtype)
        lost = raw.is_not_nan() & (raw.abs() > most)
        never = [
            Never(raw.is_infinite(), "an id must be finite"),
            Never(lost, f"ids above {most} lose digits as {dtype}", "write whole numbers or text"),
        ]
    return Typed(text, never)


def _joined(raw: pl.Expr, dtype: Any, column: Mapping[str, Any]) -> Typed | None:
    """Histories that are lists, as text."""
    splitter = column.get("splitter", "^")
    raw = raw.arr.to_list() if isinstance(dtype, pl.Array) else raw
    words = _id(_WORDS, dtype.inner, {})
    if words is None:
        return None
    never = [each._replace(says=f"in it {each.says}") for each in words.never]
    says = f"an id in it holds the splitter {splitter!r}"
    holds = words.values.str.contains(splitter, literal=True)
    never.append(Never(holds, says, "set another splitter in feature_cols"))
    return Typed(
        raw.list.eval(words.values.fill_null("")).list.join(splitter),
        [
            each._replace(broken=raw.list.eval(each.broken).list.any().fill_null(False))
            for each in never
        ],
    )


def _whole(raw: pl.Expr, dtype: pl.DataType, _: Mapping[str, Any]) -> Typed | None:
    """Whole numbers; NaN, and an empty field, are missing."""
    real = _real(raw, dtype)
    if real is None:
        return None
    decimal, no_number = real
    text = raw.str.strip_chars() if dtype == pl.String else raw
    number = text.cast(pl.Int64, strict=False)
    if dtype.is_float() or dtype.is_decimal():  # the cast would drop a fraction
        number = pl.lit(None, pl.Int64)
    exact = (decimal == decimal.floor()) & (decimal.abs() <= largest_exact(pl.Float64()))
    number = number.fill_null(pl.when(exact).then(decimal.cast(pl.Int64, strict=False)))
    broken = number.is_null() & (decimal.is_not_null() | no_number)
    says = "dtype int needs a whole number of 64 bits"
    return Typed(number, [Never(broken, says, "correct it, or set another dtype")])


def _real(raw: pl.Expr, dtype: pl.DataType) -> tuple[pl.Expr, pl.Expr] | None:
    """A number, null where there is none; and where something is there that is none."""
    if dtype == pl.String:
        text = raw.str.strip_chars()
        number = text.cast(pl.Float64, strict=False)
        return number.fill_nan(None), number.is_null() & (text != "").fill_null(False)
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        return raw.cast(pl.Float64).fill_nan(None), pl.lit(False)
    return None


def _number(raw: pl.Expr, dtype: pl.DataType, column: Mapping[str, Any]) -> Typed | None:
    real = _real(raw, dtype)
    if real is None:
        return None
    number, no_number = real
    says = "a numeric feature needs a number"
    never = [
        Never(no_number, says),
        Never(_too_large(number), "a numeric feature must be finite in 32 bits"),
    ]
    if column.get("fill_na") is None:
        missing = number.is_null() & ~no_number
        never.append(Never(missing, says, "set fill_na in its entry of feature_cols"))
    else:
        number = number.fill_null(float(column["fill_na"]))
    return _of_dtype(number, never, column)


def _label(raw: pl.Expr, dtype: pl.DataType, column: Mapping[str, Any]) -> Typed | None:
    real = _real(raw, dtype)
    if real is None:
        return None
    number, _ = real
    if dtype == pl.String:  # CSV: true and false, as parquet's Boolean
        words = {"true": 1.0, "false": 0.0}
        number = raw.str.strip_chars().str.to_lowercase().replace_strict(words, default=number)
    never = Never(number.is_null() | _too_large(number), "a label must be a finite number")
    if column["binary"]:
        never = Never(
            ~number.is_in([0.0, 1.0]).fill_null(False),
            "a label of binary_classification is 0 or 1",
            "map the labels, or set task: regression with a loss for it",
        )
    return _of_dtype(number, [never], column)


def _too_large(number: pl.Expr) -> pl.Expr:
    return number.cast(pl.Float32, strict=False).is_infinite().fill_null(False)


def _of_dtype(number: pl.Expr, never: list[Never], column: Mapping[str, Any]) -> Typed:
    if column["dtype"] != "int":
        return Typed(number, never)
    fraction = (number != number.floor()).fill_null(False)
    whole = Never(fraction, "dtype int needs a whole number", "set dtype: float")
    return Typed(number.cast(pl.Int64, strict=False), [*never, whole])


def _vector(raw: pl.Expr, dtype: pl.DataType, column: Mapping[str, Any]) -> Typed | None:
    """A column of vectors, one width for all rows."""
    if not isinstance(dtype, pl.List | pl.Array) or not dtype.inner.is_numeric():
        return None
    width = column["pretrain_dim"]
    raw = raw if isinstance(dtype, pl.List) else raw.arr.to_list()
    numbers = raw.cast(pl.List(pl.Float32))
    finite = numbers.list.eval(_WORDS.is_finite().fill_null(False)).list.all()
    never = [
        Never((raw.list.len() != width).fill_null(True), f"pretrain_dim is {width}"),
        Never(~finite.fill_null(False), "a vector must hold finite numbers"),
    ]
    return Typed(numbers.list.to_array(width), never)


# how a column is read, and what it must hold
_READERS: dict[str, tuple[Callable[..., Typed | None], str]] = {
    "id": (_id, "ids: text or whole numbers"),
    "list": (_joined, "a list of ids"),
    "int": (_whole, "whole numbers (dtype int)"),
    "numeric": (_number, "numbers"),
    "label": (_label, "numbers"),
    "embedding": (_vector, "vectors (a list of numbers)"),
}
