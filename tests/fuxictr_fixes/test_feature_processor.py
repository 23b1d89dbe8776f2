"""The repository's processor, mended, counts and encodes as the package's does.

tests/test_fuxictr_head.py compares what both write.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from fuxictr.preprocess import FeatureProcessor
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from fuxictr_miss.fuxictr_fixes.feature_processor import FROM_PACKAGE, RepositoryProcessor

pytestmark = pytest.mark.skipif(not FROM_PACKAGE, reason="compares with FuxiCTR's package")

TOKENS = st.sampled_from(["", "a", "b", "c", "d"])
ROWS = st.lists(
    st.tuples(
        TOKENS, st.lists(TOKENS, max_size=6).map("^".join), st.integers(0, 3), st.floats(-9, 9)
    ),
    min_size=1,
    max_size=9,
)


def pair(rows: list[tuple[Any, ...]], tmp_path: Any, padding: str) -> tuple[Any, Any, pl.LazyFrame]:
    """Both processors of the same columns, two with names of polars' own, and their rows."""
    columns = [
        {"name": "len", "type": "categorical", "dtype": "str", "active": True},
        {"name": "past", "type": "sequence", "dtype": "str", "active": True, "max_len": 3,
         "padding": padding, "share_embedding": "len"},
        {"name": "low", "type": "meta", "dtype": "int", "active": True},
        {"name": "price", "type": "numeric", "dtype": "float", "active": True,
         "normalizer": "StandardScaler"},
    ]  # fmt: skip
    frame = pl.DataFrame(rows, ["len", "past", "low", "price"], orient="row")
    frame = frame.with_columns(label=0.0)
    options = {"label_col": {"name": "label", "dtype": "float"}, "data_root": str(tmp_path)}
    kinds = (FeatureProcessor, RepositoryProcessor)
    theirs, ours = (kind(columns, dataset_id="pair", **options) for kind in kinds)
    return theirs, ours, frame.lazy()


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, seen=ROWS)
def test_both_count_the_same_ids(rows, seen, tmp_path_factory):
    theirs, ours, frame = pair(rows, tmp_path_factory.getbasetemp(), "post")
    *_, everything = pair([*rows, *seen], tmp_path_factory.getbasetemp(), "post")
    expected, counted = (each._collect_statistics(frame, everything) for each in (theirs, ours))
    for name in ("len", "past", "low"):
        assert counted[name]["value_counts"] == expected[name]["value_counts"]
    assert list(counted) == ["len", "past", "low", "price"]


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, seen=ROWS, padding=st.sampled_from(["pre", "post"]))
def test_both_encode_rows_into_the_same_numbers(rows, seen, padding, tmp_path_factory):
    theirs, ours, frame = pair(rows, tmp_path_factory.getbasetemp(), padding)
    assume(any(row[0] for row in rows) and any(row[1].strip("^") for row in rows))  # some ids
    theirs.fit(frame)
    ours.processor_dict, ours.feature_map = theirs.processor_dict, theirs.feature_map
    new = pair(seen, tmp_path_factory.getbasetemp(), padding)[2].collect()
    expected, encoded = (
        each.transform({column.name: column.to_numpy() for column in new})
        for each in (theirs, ours)
    )
    assert list(encoded) == list(expected)
    for name, values in expected.items():
        assert encoded[name].dtype == np.asarray(values).dtype
        np.testing.assert_array_equal(encoded[name], values)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, kind=st.sampled_from([StandardScaler, MinMaxScaler]))
def test_a_scaler_learns_the_same_from_two_numbers_as_from_all(rows, kind, tmp_path_factory):
    _, ours, frame = pair(rows, tmp_path_factory.getbasetemp(), "post")
    ours.feature_cols[-1]["normalizer"] = kind.__name__
    two_numbers = ours._collect_statistics(frame, frame)["price"]["two_numbers"]
    prices = np.array([row[-1] for row in rows]).reshape(-1, 1)
    all_of_them, two = kind().fit(prices), kind().fit(np.reshape(two_numbers, (-1, 1)))
    np.testing.assert_allclose(two.transform(prices), all_of_them.transform(prices), atol=1e-7)
