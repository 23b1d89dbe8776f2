"""The times of a log: integers, decimal numbers or ISO 8601 dates, and one kind in all of it."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone

import polars as pl

from fuxictr_miss.errors import InputError
from fuxictr_miss.text.id_text import EXACT

INTEGER = "an integer"
NUMBER = "a number up to 2**53"
DATE = "a date without a time zone"
ZONED = "a date with a time zone"
_ISO = (
    r"^(?<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?<minute>(?:[01][0-9]|2[0-3]):[0-5][0-9])"
    r"(?::(?<second>[0-5][0-9])(?:\.(?<fraction>[0-9]{1,9}))?)?"
    r"(?<zone> ?UTC|Z|(?<sign>[+-])(?<hours>0[0-9]|1[0-5])(?::?(?<minutes>[0-5][0-9]))?)?)?$"
)
_SECOND = 10**9
_IN_UNIT = {"ms": 10**6, "us": 10**3, "ns": 1}
# where the numbers of one kind of clock lie, from 1980 to 2106
_CLOCKS = {
    "YYYYMMDD": (19_000_101, 21_001_231),
    "seconds since 1970": (315_532_800, 4_300_000_000),
    "milliseconds since 1970": (315_532_800 * 10**3, 4_300_000_000 * 10**3),
    "YYYYMMDDhhmmss": (19_000_101_000_000, 21_001_231_235_959),
    "microseconds since 1970": (315_532_800 * 10**6, 4_300_000_000 * 10**6),
    "nanoseconds since 1970": (315_532_800 * 10**9, 4_300_000_000 * 10**9),
}


class EventTimes:
    """Reads the times of a log, block by block.

    The first block decides which kind all of them are: the one that most of its times have.
    Integers become numbers where a later block has fractions, if nothing is lost by it.

    Args:
        time_format: how a date is written, in the letters of `strptime`; None for ISO 8601.

    Raises:
        InputError: the format is none.
    """

    def __init__(self, time_format: str | None = None) -> None:
        self.kind = ""
        self._format = time_format
        self._decided_at = ""
        self._largest = 0  # integer so far
        self._clock = ("", "")  # which of _CLOCKS, and where it was seen first
        if time_format is not None:
            self.kind = f"a date of the form {time_format}"
            _check_format(time_format)

    def read(self, time: pl.Series, where: str) -> pl.Series:
        """The times of a block as Int64 (dates: nanoseconds) or Float64; null if of another kind.

        Args:
            time: text, or any numbers or dates of a Parquet file.
            where: file and line of the first of them, for a message.

        Raises:
            InputError: no time of the first block is any; a Parquet column is of another kind than
                the times before it; seconds follow on milliseconds, or the like.
        """
        if time.null_count() == len(time):
            return pl.Series(time.name, [None] * len(time), pl.Int64)
        if self._format is not None:
            return self._formatted(time, where)
        kind = _kind_of_type(time.dtype) or self.kind or _kind_of_text(time, where)
        if not self.kind:
            self.kind, self._decided_at = kind, where
        numbers = (INTEGER, NUMBER)
        if kind != self.kind and not (kind in numbers and self.kind in numbers):
            raise InputError(
                f"{where}: the time is {kind}, but from {self._decided_at} on each is {self.kind}. "
                f"Convert them to one kind."
            )
        if self.kind in numbers:
            times = self._numbers(time)
            self._check_clock(times, where)
            return times
        return _dates(time, self.kind) if time.dtype == pl.String else _nanoseconds(time)

    def _formatted(self, time: pl.Series, where: str) -> pl.Series:
        if time.dtype != pl.String:
            raise InputError(
                f"{where}: --time-format reads text, but the time is {_kind_of_type(time.dtype)}. "
                f"Leave the option out."
            )
        return _nanoseconds(time.str.to_datetime(self._format, time_unit="us", strict=False))

    def _numbers(self, time: pl.Series) -> pl.Series:
        whole = _whole(time)
        if self.kind == INTEGER:
            ends = [abs(end) for end in (whole.min(), whole.max()) if isinstance(end, int)]
            self._largest = max([self._largest, *ends])
            fractions = whole.null_count() > time.null_count()
            fractions = fractions and _exact(time).null_count() < whole.null_count()
            if self._largest > EXACT or not fractions:
                return whole
            self.kind = NUMBER
        return _exact(time)

    def _check_clock(self, times: pl.Series, where: str) -> None:
        """Refuse times of two clocks, in a block or since one before it.

        A counter may pass through the numbers of several clocks; then some lie between those.
        """
        inside = {name: times.is_between(low, high) for name, (low, high) in _CLOCKS.items()}
        seen = [name for name, of_clock in inside.items() if of_clock.any()]
        if not seen:
            return
        reach = times.is_between(_CLOCKS[seen[0]][0], max(_CLOCKS[name][1] for name in seen))
        if sum(of_clock.sum() for of_clock in inside.values()) < reach.sum():
            return
        if len(seen) > 1:
            one, other = (f"{times.filter(inside[n])[0]} like {n}" for n in seen[:2])
            raise InputError(
                f"{where}: of the times from here on, {one} and {other}. Convert them to one kind."
            )
        (clock,), (before, seen_at) = seen, self._clock
        if reach.sum() < times.count():
            return
        if before and before != clock:
            raise InputError(
                f"{where}: the times look like {clock}, but those from {seen_at} on like "
                f"{before}. Convert them to one kind."
            )
        self._clock = (clock, seen_at or where)


def _kind_of_type(dtype: pl.DataType) -> str:
    """What a column of this type holds; "" for text, which holds anything."""
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        return ZONED
    if dtype.is_temporal():
        return DATE
    if dtype == pl.String:
        return ""
    whole = dtype.is_integer() or (isinstance(dtype, pl.Decimal) and dtype.scale == 0)
    return INTEGER if whole else NUMBER


def _kind_of_text(time: pl.Series, where: str) -> str:
    """The kind of most of the times."""
    whole = _whole(time).count()
    if whole == time.count():  # as in most logs: nothing else need be tried
        return INTEGER
    read = {
        INTEGER: whole,
        NUMBER: _exact(time).count(),
        DATE: _dates(time, DATE).count(),
        ZONED: _dates(time, ZONED).count(),
    }
    kind = max(read, key=lambda kind: read[kind])
    if read[kind]:
        return kind
    shown = time.drop_nulls()[0]
    raise InputError(
        f"{where}: the time {shown!r} is neither a number nor a date such as 2015-07-01 12:30:00. "
        f"Name another column by --time, convert it, or say how it is written by --time-format, "
        f"such as '%m/%d/%Y'."
    )


def _whole(time: pl.Series) -> pl.Series:
    """Int64, null where it is no whole number."""
    whole = time.cast(pl.Int64, strict=False)
    if time.dtype.is_float() or time.dtype.is_decimal():
        whole = _only(whole, whole.cast(time.dtype, strict=False) == time)
    return whole


def _exact(time: pl.Series) -> pl.Series:
    """Float64, null where it is no number, or one that a Float64 does not hold exactly."""
    numbers = time.cast(pl.Float64, strict=False)
    numbers = _only(numbers, numbers.is_finite() & (numbers.abs() < EXACT))
    if time.dtype.is_decimal():
        numbers = _only(numbers, numbers.cast(time.dtype, strict=False) == time)
    return numbers


def _check_format(time_format: str) -> None:
    when = datetime(2015, 11, 23, 13, 45, 6, tzinfo=timezone.utc)
    read: pl.Series | None = None
    with suppress(pl.exceptions.PolarsError, ValueError):
        written = pl.Series([when.strftime(time_format)])
        read = written.str.to_datetime(time_format, time_unit="us", strict=False)
    if read is None or read.dt.date()[0] != when.date():
        half = "%I" in time_format and "%p" not in time_format
        lacks = "needs %p beside %I" if half else "names no year, month and day"
        raise InputError(f"--time-format {time_format!r} {lacks}. Write it like '%m/%d/%Y %H:%M'.")


def _dates(text: pl.Series, kind: str) -> pl.Series:
    """Nanoseconds since 1970 (UTC, where a date has a zone), null where it is no date like that."""
    parts = text.str.extract_groups(_ISO).struct.unnest()
    minute, second = pl.col("minute").fill_null("00:00"), pl.col("second").fill_null("00")
    clock = pl.concat_str("day", pl.lit(" "), minute, pl.lit(":"), second)
    seconds = clock.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    hours, minutes = (pl.col(name).cast(pl.Int64).fill_null(0) for name in ("hours", "minutes"))
    ahead = pl.when(pl.col("sign") == "-").then(-1).otherwise(1) * (hours * 60 + minutes)
    fraction = pl.col("fraction").str.pad_end(9, "0").cast(pl.Int64).fill_null(0)
    without_zone = pl.col("zone").is_null()
    read = parts.select(
        seconds=pl.when(without_zone if kind == DATE else ~without_zone).then(seconds),
        rest=fraction - ahead * 60 * _SECOND,
    )
    return _nanoseconds(read["seconds"]) + read["rest"]


def _nanoseconds(dates: pl.Series) -> pl.Series:
    """Int64, null where the year lies outside of 1678 to 2261."""
    if dates.dtype == pl.Date:
        dates = dates.cast(pl.Datetime("us"))
    assert isinstance(dates.dtype, pl.Datetime)
    factor = _IN_UNIT[dates.dtype.time_unit]
    ticks = dates.to_physical()
    return _only(ticks, ticks.abs() < 9_200_000_000 * _SECOND // factor) * factor


def _only(values: pl.Series, keep: pl.Series) -> pl.Series:
    """The values, null where `keep` is not True."""
    return pl.select(pl.when(keep).then(values)).to_series()
