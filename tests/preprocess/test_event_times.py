"""Times: which text is one, that a log has one kind of them, and that none loses anything."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.event_times import DATE, EventTimes

WHERE = "log.csv, line 2"


def read(*values: object, dtype: pl.DataType | None = None, form: str | None = None) -> list:
    return EventTimes(form).read(pl.Series("time", values, dtype=dtype), WHERE).to_list()


def nanoseconds(when: datetime) -> int:
    since = when.replace(tzinfo=when.tzinfo or timezone.utc) - datetime(
        1970, 1, 1, tzinfo=timezone.utc
    )
    return since // timedelta(microseconds=1) * 1000


FORMS = ["%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"]
WHEN = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))


@given(when=st.lists(st.tuples(WHEN, st.sampled_from(FORMS)), min_size=1, max_size=5))
def test_iso_dates_of_any_length_are_read(when: list[tuple[datetime, str]]) -> None:
    # %Y pads nothing on some systems; all years here have four digits
    written = [moment.strftime(form) for moment, form in when]
    expected = [
        nanoseconds(datetime.strptime(text, form))
        for text, (_, form) in zip(written, when, strict=True)
    ]
    assert read(*written) == expected


@given(when=WHEN, minutes=st.integers(-15 * 60, 15 * 60))
def test_zones_are_taken_off(when: datetime, minutes: int) -> None:
    zoned = when.replace(tzinfo=timezone(timedelta(minutes=minutes)), microsecond=0)
    texts = [zoned.isoformat(), zoned.strftime("%Y-%m-%d %H:%M:%S%z")]
    assert read(*texts) == [nanoseconds(zoned)] * 2


def test_utc_is_written_in_several_ways() -> None:
    noon = nanoseconds(datetime(2019, 10, 1, 12))
    texts = ["2019-10-01 12:00:00 UTC", "2019-10-01T12:00Z", "2019-10-01 12:00:00.000+00"]
    assert read(*texts) == [noon] * 3


def test_nothing_finer_than_a_second_is_lost() -> None:
    assert read("2015-07-01 00:00:00.123456789")[0] % 10**9 == 123456789
    assert read("2015-07-01 00:00:00.1234567")[0] % 10**9 == 123456700
    column = pl.Series([1, 2]).cast(pl.Datetime("ns"))
    assert EventTimes().read(column, WHERE).to_list() == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        *("07/08/2015", "1.7.2015", "2015/07/01", "Jul 1, 2015", "15-07-01", "2015-7-1", "12:30"),
        *("noon", "2015-02-30", "2015-07-01 24:00", "2015-07-01 12:30:60", "2015-13-01"),
        *("0x10", "1_000", "١", "1,5", "2015-07-01T", "2015-07-01Z", "2015-07-01 12:30 CET"),
    ],
)
def test_what_is_neither_number_nor_iso_date_is_refused_not_guessed(text: str) -> None:
    with pytest.raises(InputError, match=f"line 2: the time '{text}' is neither"):
        read(text)


@pytest.mark.parametrize("text", ["1500-01-01", "9999-12-31", "0001-01-01 00:00:00"])
def test_years_that_do_not_fit_are_malformed_not_wrapped(text: str) -> None:
    assert read("2015-07-01", "2015-07-02", text)[2] is None


def test_the_kind_of_most_times_is_the_logs() -> None:
    assert read("2015-07-01", "2015-07-02", "3", "2015-07-01T00:00:00Z")[2:] == [None, None]
    assert read("3", "4", "2015-07-01") == [3, 4, None]
    assert read("3", "2.5", "nan", "inf", "x") == [3, 2.5, None, None, None]


def test_a_format_reads_what_it_says() -> None:
    expected = [nanoseconds(datetime(2015, 7, 8)), nanoseconds(datetime(2015, 7, 13)), None]
    assert read("07/08/2015", "07/13/2015", "13/07/2015", form="%m/%d/%Y") == expected


@pytest.mark.parametrize("form", ["", "%H:%M", "%q", "%", "month", "%Y-%m"])
def test_a_format_without_a_day_is_refused(form: str) -> None:
    with pytest.raises(InputError, match="--time-format"):
        EventTimes(form)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([5], [datetime(2015, 7, 1)]),
        ([datetime(2015, 7, 1)], [5]),
        ([date(2015, 7, 1)], [1.5]),
        ([datetime(2015, 7, 1)], [datetime(2015, 7, 1, tzinfo=timezone.utc)]),
        (["2015-07-01"], [5]),
        (["5"], [date(2015, 7, 1)]),
        ([1_435_708_800], [1_435_708_800_000]),
        (["1435708800"], ["1435708800000"]),
        ([20_150_701], [1_435_708_800]),
        ([1_435_708_800.5], [1_435_708_800_000_000]),
    ],
)
def test_a_second_kind_of_time_is_refused(first: list, then: list) -> None:
    times = EventTimes()
    times.read(pl.Series("time", first), "a.parquet, row 1")
    with pytest.raises(InputError, match=r"^b\.parquet, row 1: .* from a\.parquet, row 1 on"):
        times.read(pl.Series("time", then), "b.parquet, row 1")


@pytest.mark.parametrize(
    "times",
    [
        [1_435_708_800, 1_435_708_801_000, 1_435_708_802],
        ["1435708800", "1435708801000"],
        [1_435_708_800.5, None, 1_435_708_801_000.0],
        [0, 20_150_701, 1_435_708_800],  # 0 stands for a missing one
    ],
)
def test_two_clocks_row_by_row_are_refused_with_a_time_of_each(times: list) -> None:
    with pytest.raises(InputError, match=r"^a\.csv, line 2: .* here on, \d+.* like .* and \d+"):
        EventTimes().read(pl.Series("time", times), "a.csv, line 2")


def test_a_counter_may_pass_through_the_numbers_of_several_clocks() -> None:
    counter = pl.Series("time", range(0, 2_000_000_000, 7_000_001))
    assert EventTimes().read(counter, "a.csv, line 2").to_list() == counter.to_list()


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_units_of_timestamps_do_not_matter(unit: str) -> None:
    times = EventTimes()
    when = [datetime(2015, 7, 1, 9, 30)]
    expected = times.read(pl.Series("time", when, dtype=pl.Datetime("us")), WHERE).to_list()
    assert times.read(pl.Series("time", when, dtype=pl.Datetime(unit)), WHERE).to_list() == expected
    assert times.read(pl.Series("time", ["2015-07-01 09:30"]), WHERE).to_list() == expected
    assert times.kind == DATE


def test_integers_become_decimals_if_nothing_is_lost() -> None:
    times = EventTimes()
    assert times.read(pl.Series("time", [3]), WHERE).dtype == pl.Int64
    assert times.read(pl.Series("time", [4.0, 5.0]), WHERE).to_list() == [4, 5]
    assert times.read(pl.Series("time", [4.5, 5.0]), WHERE).to_list() == [4.5, 5]
    assert times.read(pl.Series("time", [6, 2**53 + 1]), WHERE).to_list() == [6.0, None]


def test_integers_past_what_a_decimal_holds_stay_integers() -> None:
    times = EventTimes()
    assert times.read(pl.Series("time", [2**53 + 1]), WHERE).to_list() == [2**53 + 1]
    assert times.read(pl.Series("time", [4.5, 4.0]), WHERE).to_list() == [None, 4]
    assert read("99999999999999999999", "5", "6") == [None, 5, 6]
    assert read(2**64 - 1, 3, dtype=pl.UInt64) == [None, 3]


def test_decimals_of_a_decimal_type_are_exact_or_none() -> None:
    assert read(Decimal("1.50"), Decimal("2.00")) == [1.5, 2]
    assert read(Decimal("1435708800.123456789"), Decimal("2.5")) == [None, 2.5]
    assert read(Decimal(9), dtype=pl.Decimal(20, 0)) == [9]


def test_nan_and_infinity_are_no_times() -> None:
    assert read(1.5, float("nan"), float("inf"), None) == [1.5, None, None, None]
