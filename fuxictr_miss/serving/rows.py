"""Rows as Python holds them -> a data frame in which each column is of one type."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, time
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from fuxictr_miss.errors import InputError, hint
from fuxictr_miss.text.raw_values import broken_row

_DTYPES: dict[frozenset[type], list[Any]] = {  # that hold values of these types
    frozenset(): [pl.Null],
    frozenset({bool}): [pl.Boolean],
    frozenset({int}): [pl.Int64, pl.UInt64],
    frozenset({float}): [pl.Float64],
    frozenset({int, float}): [pl.Float64],
    frozenset({str}): [pl.String],
}
_POLARS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
_OWN = {type(None), bool, int, float, str}  # types of Python's own
_MISSING = {"NaTType", "NAType"}  # pandas', which need not be installed


def as_frame(rows: Any, columns: Sequence[str]) -> pl.DataFrame:
    """A data frame of rows: one of polars' or pandas', a list of dicts, or a dict of columns.

    Args:
        rows: with any columns.
        columns: those that are read.

    Raises:
        InputError: it is nothing of that, lacks a column, or a column mixes types.
    """
    if isinstance(rows, pl.DataFrame):
        return rows
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas need not be installed
        if not rows.columns.is_unique:
            twice = rows.columns[rows.columns.duplicated()][0]
            raise InputError(f"Two columns are called {twice!r}. Rename one of them.")
        rows = rows.to_dict("list")
    if isinstance(rows, Mapping):
        check_present("", columns, rows)
        values = {name: rows[name] for name in columns}
    else:
        values = _transposed(rows, columns)
    series = [_series(name, each) for name, each in values.items()]
    try:
        return pl.DataFrame(series)
    except pl.exceptions.ShapeError as error:
        lengths = ", ".join(f"{each.name} {len(each)}" for each in series)
        raise InputError(f"The columns are not of one length: {lengths}.") from error


def check_present(place: str, columns: Iterable[str], present: Iterable[str]) -> None:
    """Refuse rows without a column that is read; names the closest that is there."""
    names = list(present)
    for name in columns:
        if name not in names:
            raise InputError(
                f"{place}column {name!r} is missing.{hint(name, names)} There are: "
                f"{', '.join(names)}."
            )


def _transposed(rows: Any, columns: Sequence[str]) -> dict[str, list[Any]]:
    if not isinstance(rows, list | tuple):
        raise InputError(
            "Rows must be a data frame, a list of dicts or a dict of columns; got a "
            f"{type(rows).__name__}."
        )
    try:
        return {name: [row[name] for row in rows] for name in columns}
    except (KeyError, TypeError, IndexError):
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InputError(
                    f"row {number + 1} must be a dict of columns; got {row!r}."
                ) from None
            check_present(f"row {number + 1}, ", columns, row)
        raise


def _series(name: str, values: Any) -> pl.Series:
    if hasattr(values, "dtype") and values.dtype != object:  # an array or a series
        return pl.Series(name, values)
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InputError(
            f"A dict of columns holds a value of each row, but {name!r} is {values!r}: give a "
            "single row as a list, [row]."
        )
    values = [_own(each) for each in values]
    kinds = {_kind(each) for each in values}
    if float in kinds and len(kinds) > 1:  # pandas has NaN where text is missing
        values = [None if isinstance(each, float) and each != each else each for each in values]
    series = _of_one_type(name, values)
    if series is None:
        row, says = _first_odd(values)
        raise broken_row("", row, name, values[row], says)
    return series


def _of_one_type(name: str, values: list[Any]) -> pl.Series | None:
    """A column of values, or of lists of values, that have one type; else None."""
    kinds = {_kind(each) for each in values if each is not None}
    lists = bool(kinds) and all(isinstance(kind, frozenset) for kind in kinds)
    words = frozenset().union(*kinds) if lists else frozenset(kinds)
    one = len(words) == 1
    dated = one and all(issubclass(word, date | time | Decimal) for word in words)
    inferred = [None] if one and (dated or not lists) else []
    for dtype in _DTYPES.get(words, inferred):
        with suppress(TypeError, ValueError, OverflowError, *_POLARS):
            return pl.Series(name, values, dtype=pl.List(dtype) if lists and dtype else dtype)
    return None


def _own(value: Any) -> Any:
    """A value, or a list, that numpy or pandas holds, as Python's own; None if it is missing."""
    if type(value) in _OWN:
        return value
    if isinstance(value, np.ndarray | np.generic):
        value = _of_numpy(value)
    if isinstance(value, list | tuple):
        types = set(map(type, value))
        if types <= _OWN and float not in types:
            return value
        words = map(_own, value)
        return [None if isinstance(word, float) and word != word else word for word in words]
    return None if type(value).__name__ in _MISSING else value


def _of_numpy(value: np.ndarray | np.generic) -> Any:
    if value.dtype.kind == "f" and value.dtype.itemsize < 8:  # 12.1 in 32 bits stays 12.1
        value = value.astype(str).astype(np.float64)
    elif value.dtype.kind == "M":  # nanoseconds would become numbers
        value = value.astype("datetime64[us]")
    return value.tolist()


def _kind(value: Any) -> Any:
    """The type of a value, or the types in a list."""
    if isinstance(value, list | tuple):
        return frozenset(type(word) for word in value if word is not None)
    return type(value)


def _first_odd(values: list[Any]) -> tuple[int, str]:
    """The first row that is no value of its own, or not like those before it; and why."""
    places = range(len(values))
    row = bisect(places, False, key=lambda last: _of_one_type("", values[: last + 1]) is None)
    if _of_one_type("", [values[row]]) is None:
        return row, "it is no text and no number of 64 bits, or a list that mixes types"
    first = next(place for place in places if values[place] is not None)
    return row, f"in row {first + 1} it is {values[first]!r}: give one type"
