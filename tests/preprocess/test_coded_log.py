"""Codes for ids, and a log in memory or on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.coded_log import INTERACTS, CodedLog, Codes

IDS = st.lists(st.lists(st.sampled_from(["a", "b", "é", "a^b", "", "x" * 40, "7"]), max_size=9))


@settings(deadline=None)
@given(blocks=IDS)
def test_codes_count_up_in_order_of_first_appearance_through_all_blocks(
    blocks: list[list[str]],
) -> None:
    codes = Codes()
    seen: dict[str, int] = {}
    for block in blocks:
        expected = [seen.setdefault(name, len(seen)) for name in block]
        assert codes.encode(pl.Series(block, dtype=pl.String)).tolist() == expected
    assert len(codes) == len(seen)
    assert codes.names(np.arange(len(seen))).to_list() == list(seen)


def test_codes_of_two_logs_do_not_mix() -> None:
    one, two = Codes(), Codes()
    assert one.encode(pl.Series(["a", "b"])).tolist() == [0, 1]
    assert two.encode(pl.Series(["b", "a"])).tolist() == [0, 1]
    assert one.encode(pl.Series(["b"])).tolist() == [1]


def test_numbers_and_their_text_are_one_id() -> None:
    codes = Codes()
    assert codes.encode(pl.Series([7, 12])).tolist() == [0, 1]
    assert codes.encode(pl.Series(["12", "012"])).tolist() == [1, 2]


def test_a_log_on_disk_has_the_core_of_one_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frames = [
        pl.DataFrame(
            {
                "user_id": rng.integers(0, 40, 100),
                "item_id": rng.integers(0, 30, 100),
                "time": rng.integers(0, 9, 100),
            }
        )
        for _ in range(4)
    ]
    cores, contents = [], []
    for shards, folder in ((1, None), (3, None), (3, tmp_path)):
        log = CodedLog(shards=shards, folder=folder)
        for frame in frames:
            log.add(frame.with_columns((pl.col("time") > 0).alias(INTERACTS)))
        cores.append(log.keep_core(7, 4))
        rows = [np.column_stack(list(rows.values())) for rows, _ in log.shards()]
        contents.append(sorted(np.concatenate(rows).tolist()))
    assert 0 < len(cores[0].users) < 40
    assert contents[0] == contents[1] == contents[2]
    for core in cores[1:]:
        assert [part.tolist() for part in core[:3]] == [part.tolist() for part in cores[0][:3]]


@pytest.mark.parametrize("column", ["user_id", "item_id", "cate_id"])
def test_a_number_in_two_forms_is_refused(column: str) -> None:
    frame = pl.DataFrame({"user_id": "u", "item_id": ["i", "j"], "time": [1, 2], "cate_id": "c"})
    log = CodedLog(["cate_id"])
    for value in ("4", "5.0", "v1.0"):
        log.add(frame.with_columns(pl.lit(value).alias(column)).head(1))
    log.refuse_values_in_two_forms()
    log.add(frame.with_columns(pl.lit("4.0").alias(column)).tail(1))
    name = column.removesuffix("_id") if column != "cate_id" else column
    with pytest.raises(InputError, match=f"1 values of {name} in two forms, such as '4.0' and '4'"):
        log.refuse_values_in_two_forms()
