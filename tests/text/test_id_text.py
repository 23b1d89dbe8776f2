"""One text of an id, whatever type a file gives it."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest

from fuxictr_miss.text.id_text import id_text, is_exact


def texts(values: pl.Series) -> list[str | None]:
    return pl.select(id_text(pl.lit(values), values.dtype)).to_series().to_list()


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([4, None]),
        pl.Series([4.0, None]),
        pl.Series([4.0, float("nan")], dtype=pl.Float32),
        pl.Series(["4", None]),
        pl.Series([Decimal("4.00"), None]),
        pl.Series([b"4", None]),
        pl.Series(["4", None], dtype=pl.Categorical),
    ],
    ids=lambda values: str(values.dtype),
)
def test_a_number_has_one_text_in_every_type_and_nan_is_none(values: pl.Series) -> None:
    assert texts(values) == ["4", None]


@pytest.mark.parametrize(
    "values", [pl.Series([1.5, 100.0]), pl.Series([Decimal("1.50"), Decimal(100)])]
)
def test_a_fraction_keeps_its_digits_and_a_whole_number_its_zeros(values: pl.Series) -> None:
    assert texts(values) == ["1.5", "100"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([4.0, 1.5, 2.0**53, float("inf"), None, float("nan")]), "tfffTT"),
        (pl.Series([4.0, 2.0**24, -(2.0**23)], dtype=pl.Float32), "tft"),
        (pl.Series([Decimal("4.0"), Decimal("1.5"), None]), "tfT"),
    ],
)
def test_a_number_is_exact_if_it_is_whole_and_has_all_digits(
    values: pl.Series, expected: str
) -> None:
    exact = pl.select(is_exact(pl.lit(values), values.dtype)).to_series()
    assert exact.to_list() == [letter in "tT" for letter in expected]
