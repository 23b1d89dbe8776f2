"""The one text of an id, whatever type a file gives it: 4, 4.0 and "4" are the same."""

from __future__ import annotations

import polars as pl

RESERVED = ("__PAD__", "__OOV__")  # what FuxiCTR's vocabularies call padding and unknown ids

EXACT = 2**53  # a Float64 tells the whole numbers up to here apart
_LARGEST = {pl.Float64: EXACT, pl.Float32: 2**24, pl.Float16: 2**11}


def id_text(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """An id or attribute as text; NaN, like null, is none.

    A moment is that of UTC, whatever its zone and unit, and a date at midnight.

    Args:
        raw: a column, or the element of a list.
        dtype: its type; neither nested nor an object.
    """
    if isinstance(dtype, pl.Datetime):
        moment = raw.to_physical().cast(pl.Datetime(dtype.time_unit)).cast(pl.String)
        shortest = moment.str.replace(r"(\.[0-9]*[1-9])0+$", "${1}").str.replace(r"\.0+$", "")
        return shortest.str.replace(" 00:00:00$", "")
    if dtype.is_float():
        number = raw.cast(pl.Float64)
        whole = pl.when(number == number.floor()).then(number.cast(pl.Int64, strict=False))
        text = whole.cast(pl.String).fill_null(raw.cast(pl.String))
        return pl.when(raw.is_not_nan()).then(text)
    if dtype.is_decimal():
        text = raw.cast(pl.String).str.replace(r"(\.[0-9]*[1-9])0+$", "${1}")
        return text.str.replace(r"\.0+$", "")
    return raw.cast(pl.String)


def largest_exact(dtype: pl.DataType) -> int:
    """The whole numbers up to here keep all digits in a floating-point type."""
    return next(largest for kind, largest in _LARGEST.items() if dtype == kind)


def is_exact(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Whether a decimal or floating-point number is whole with all digits; True if missing."""
    if dtype.is_float():
        whole = (raw == raw.floor()) & (raw.abs() < largest_exact(dtype))
        return (whole | raw.is_nan()).fill_null(True)
    return ~id_text(raw, dtype).str.contains(".", literal=True).fill_null(False)
