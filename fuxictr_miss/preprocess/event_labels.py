"""The labels of a log of impressions: 0 and 1, or a comparison such as `rating >= 4`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import polars as pl

from fuxictr_miss.errors import InputError

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_POSITIVE = re.compile(
    r"\s*(?:`(?P<quoted>[^`]+)`|(?P<bare>[^`<>=!]*[^`<>=!\s]))\s*"
    rf"(?P<sign>{'|'.join(_COMPARISONS)})\s*"
    r"(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<word>[^\W\d]\w*))\s*"
)


class Positive(NamedTuple):
    """A comparison of a column with a number or a text: the rows of label 1."""

    column: str
    sign: str
    value: float | str

    @classmethod
    def of(cls, text: str) -> Positive:
        """Read `rating >= 4` or `event == "click"`. It is a comparison, and never code.

        Raises:
            InputError: it is none, orders texts, or has a number without end.
        """
        parts = _POSITIVE.fullmatch(text)
        if parts is None:
            raise InputError(
                f"--positive {text!r} is no comparison of a column with a number or a text: write "
                "it like 'rating >= 4' or 'event == \"click\"' (`a >= b` for odd names of columns)."
            )
        column, sign = parts["quoted"] or parts["bare"], parts["sign"]
        if parts["number"] is not None:
            if not math.isfinite(float(parts["number"])):
                raise InputError(f"--positive {text!r} compares with a number that is too large.")
            return cls(column, sign, float(parts["number"]))
        if _COMPARISONS[sign] not in (operator.eq, operator.ne):
            raise InputError(
                f"--positive {text!r} orders texts; {sign} needs a number, and a text == or !=."
            )
        value = next(
            parts[name] for name in ("single", "double", "word") if parts[name] is not None
        )
        return cls(column, sign, value)


class EventLabels:
    """Reads the labels of a log.

    Args:
        column: of the log.
        positive: which of its values are label 1; None for labels that are 0 or 1.
    """

    def __init__(self, column: str, positive: Positive | None = None) -> None:
        self.column = column
        self._positive = positive
        if positive is None:
            self.wrong = (
                "a label that is neither 0 nor 1 (compare it: --positive 'rating >= 4', or "
                "'clicked == true')"
            )
        elif isinstance(positive.value, float):
            self.wrong = f"no finite number as {positive.column}, which --positive compares"
        else:
            self.wrong = f"no {positive.column}, which --positive compares"

    def read(self, column: pl.Series) -> pl.Series:
        """0 or 1 of each row as Int8; null if it is no label."""
        text = column.cast(pl.String)
        number = text.str.strip_chars().cast(pl.Float64, strict=False)
        if self._positive is None:
            label, valid = number, number.is_in([0.0, 1.0])
        else:
            _, sign, value = self._positive
            if isinstance(value, float):
                compared, valid = number, number.is_finite()
            else:
                compared, valid = text, text != ""
            label = _COMPARISONS[sign](compared, value)
        return pl.select(pl.when(valid).then(label.cast(pl.Int8, strict=False))).to_series()
