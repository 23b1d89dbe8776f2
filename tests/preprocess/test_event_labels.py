"""Labels are 0 and 1, or what a comparison says; a comparison is read, never run."""

from __future__ import annotations

import polars as pl
import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.event_labels import EventLabels, Positive


@pytest.mark.parametrize(
    ("text", "column", "sign", "value"),
    [
        ("rating >= 4", "rating", ">=", 4.0),
        ("rating>=4", "rating", ">=", 4.0),
        ("  watch time > 3e1 ", "watch time", ">", 30.0),
        ("balance<-.5", "balance", "<", -0.5),
        ("event == click", "event", "==", "click"),
        ("event = 'add to cart'", "event", "=", "add to cart"),
        ('event != "a >= b"', "event", "!=", "a >= b"),
        ('code == "4"', "code", "==", "4"),
        ("`a >= b` <= 1", "a >= b", "<=", 1.0),
        ("Größe > 2", "Größe", ">", 2.0),
        ("clicked == true", "clicked", "==", "true"),
    ],
)
def test_a_comparison_has_a_column_a_sign_and_a_number_or_a_text(text, column, sign, value):
    assert Positive.of(text) == (column, sign, value)


@pytest.mark.parametrize(
    "text",
    [
        "", "rating", ">= 4", "rating >=", "rating >= 4 and price > 3", "rating => 4",
        "rating >= 4; import os", "__import__('os').system('touch x') == 1 or 2", "4 <= a <= 5",
        "rating >= four", "event < 'b'", "event == add to cart", "rating >= 1e999", "event == 'a",
        "rating >= 4)", "rating === 4", "rating >= nan", "rating == 007x",
    ],
)  # fmt: skip
def test_what_is_no_such_comparison_is_refused(text):
    with pytest.raises(InputError, match="--positive"):
        Positive.of(text)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("x >= 4", [1, 0, 1, None, None, None]),
        ("x < 4.5", [1, 1, 1, None, None, None]),
        ("x == 4", [1, 0, 1, None, None, None]),
        ("x == '4'", [1, 0, 0, 0, None, None]),
        ("x != click", [1, 1, 1, 0, None, None]),
    ],
)
def test_a_row_without_a_value_has_no_label(text, labels):
    column = pl.Series(["4", "3", "4.0", "click", "", None])
    assert EventLabels("x", Positive.of(text)).read(column).to_list() == labels


def test_without_a_comparison_only_0_and_1_are_labels():
    column = pl.Series(["0", "1", "1.0", "2", "-0.5", "nan", "true", "", None])
    expected = [0, 1, 1, None, None, None, None, None, None]
    assert EventLabels("x").read(column).to_list() == expected
