"""The labels of a log of impressions: 0 and 1, or ratings of which the high ones are positive."""

from __future__ import annotations

import math

import polars as pl

from fuxictr_miss.errors import InputError


class EventLabels:
    """Reads the labels of a log.

    Args:
        positive_from: the smallest rating whose label is 1; None for labels that are 0 or 1.
    """

    def __init__(self, positive_from: float | None = None) -> None:
        if positive_from is not None and not math.isfinite(positive_from):
            raise InputError(f"--positive-from is {positive_from}; it must be a rating.")
        self._positive_from = positive_from
        self.wrong = (
            "a label that is neither 0 nor 1 (for ratings add --positive-from 4)"
            if positive_from is None
            else "a rating that is no finite number"
        )

    def read(self, text: pl.Series) -> pl.Series:
        """0 or 1 of each row as Int64; null if it is no label."""
        number = text.cast(pl.String).cast(pl.Float64, strict=False)
        if self._positive_from is None:
            label, valid = number, number.is_in([0.0, 1.0])
        else:
            label, valid = number >= self._positive_from, number.is_finite()
        return pl.select(pl.when(valid).then(label.cast(pl.Int64, strict=False))).to_series()
