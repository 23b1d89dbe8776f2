"""The one text of an id, whatever type a file gives it: 4, 4.0 and "4" are the same."""

from __future__ import annotations

from functools import cache

import polars as pl

RESERVED = ("__PAD__", "__OOV__")  # what FuxiCTR's vocabularies call padding and unknown ids

# a floating-point type tells the whole numbers up to here apart
_LARGEST = {pl.Float64: 2**53, pl.Float32: 2**24, pl.Float16: 2**11}


def id_text(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """An id or attribute as text; NaN, like null, is none.

    Args:
        raw: a column, or the element of a list.
        dtype: its type; neither nested nor an object.
    """
    if isinstance(dtype, pl.Datetime) and dtype.time_zone and not _has_rules(dtype.time_zone):
        raw = raw.to_physical().cast(pl.Datetime(dtype.time_unit, "UTC"))
    if dtype.is_float():
        number = raw.cast(pl.Float64)
        whole = pl.when(number == number.floor()).then(number.cast(pl.Int64, strict=False))
        text = whole.cast(pl.String).fill_null(number.cast(pl.String))
        return pl.when(raw.is_not_nan()).then(text)
    if dtype.is_decimal():
        text = raw.cast(pl.String).str.replace(r"(\.[0-9]*[1-9])0+$", "${1}")
        return text.str.replace(r"\.0+$", "")
    return raw.cast(pl.String)


@cache
def _has_rules(zone: str) -> bool:
    """Whether polars finds the zone in its database; it panics at others, as +05:30 or Z."""
    try:
        pl.Series([0], dtype=pl.Datetime).dt.replace_time_zone(zone, non_existent="null")
    except pl.exceptions.ComputeError:
        return False
    return True


def largest_exact(dtype: pl.DataType) -> int:
    """The whole numbers up to here keep all digits in a floating-point type."""
    return next(largest for kind, largest in _LARGEST.items() if dtype == kind)


def is_exact(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Whether a decimal or floating-point number is whole with all digits; True if missing."""
    if dtype.is_float():
        whole = (raw == raw.floor()) & (raw.abs() < largest_exact(dtype))
        return (whole | raw.is_nan()).fill_null(True)
    return ~id_text(raw, dtype).str.contains(".", literal=True).fill_null(False)
