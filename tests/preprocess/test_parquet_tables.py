"""Parquet logs: one text per id in all files, and types that are no id, attribute or time."""

from __future__ import annotations

import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.left_out import LeftOut
from fuxictr_miss.preprocess.table_files import read_tables

COLUMNS = {"user_id": "user", "item_id": "item", "time": "when", "cate_id": "kind"}


def part(path: Path, **columns: object) -> Path:
    """A file of one to a few rows; a column that is not named is 1."""
    rows = max((len(column) for column in columns.values()), default=1)
    table = {name: columns.get(name, [1] * rows) for name in COLUMNS.values()}
    pq.write_table(pa.table(table), path)
    return path


def read(*files: Path, **options: object) -> pl.DataFrame:
    return pl.concat(read_tables(files, COLUMNS, **options))


@pytest.mark.parametrize(
    "other",
    [
        pa.array([4.0, 12.0]),
        pa.array([4.0, 12.0], pa.float32()),
        pa.array([4, 12], pa.uint8()),
        pa.array([Decimal(4), Decimal(12)], pa.decimal128(20, 3)),
        pa.array([4, 12]).dictionary_encode(),
    ],
)
def test_an_id_is_one_text_in_all_number_types(tmp_path: Path, other: pa.Array) -> None:
    one, two = part(tmp_path / "1", item=[4, 12]), part(tmp_path / "2", item=other)
    assert read(one, two)["item_id"].to_list() == ["4", "12", "4", "12"]
    assert read(two, one)["item_id"].to_list() == ["4", "12", "4", "12"]


@pytest.mark.parametrize(
    "other",
    [
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([b"a", b"b"]),
        pa.array(["a", "b"], pa.string_view()),
    ],
)
def test_an_id_is_one_text_in_all_text_types(tmp_path: Path, other: pa.Array) -> None:
    one = part(tmp_path / "1", item=["a", "b"])
    try:
        two = part(tmp_path / "2", item=other)
    except pa.ArrowNotImplementedError:
        pytest.skip(f"pyarrow {pa.__version__} cannot write {other.type}")
    assert read(one, two)["item_id"].to_list() == ["a", "b", "a", "b"]


@pytest.mark.parametrize("name", ["user", "item", "kind"])
def test_text_and_numbers_do_not_mix(tmp_path: Path, name: str) -> None:
    one, two = part(tmp_path / "1", **{name: [7]}), part(tmp_path / "2", **{name: ["7"]})
    with pytest.raises(InputError, match=f"column '{name}' is no number, but a number in .*1"):
        read(one, two)


@pytest.mark.parametrize("value", [4.5, 1e300, float("inf"), 2.0**53, Decimal("4.5")])
def test_a_fraction_is_no_id(tmp_path: Path, value: object) -> None:
    path = part(tmp_path / "a.parquet", user=[type(value)(3), value])
    with pytest.raises(InputError, match=r"a\.parquet, row 2: 'user' is .*no id is a fraction"):
        read(path)


def test_an_id_that_has_lost_digits_is_none(tmp_path: Path) -> None:
    path = part(tmp_path / "a.parquet", user=pa.array([3, 2.0**24], pa.float32()))
    with pytest.raises(InputError, match=r"row 2: 'user' is .*more digits than Float32 holds"):
        read(path)


def test_nan_is_no_id(tmp_path: Path) -> None:
    path = part(tmp_path / "a.parquet", user=[3.0, float("nan"), None])
    with pytest.raises(InputError, match=r"row 2 has no user"):
        read(path)
    left_out = LeftOut()
    assert read(path, left_out=left_out)["user_id"].to_list() == ["3"]
    assert len(left_out) == 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([9.5, 4.0, float("nan")], ["9.5", "4", None]),
        ([Decimal("9.50"), Decimal("4.00"), None], ["9.5", "4", None]),
        ([True, False, None], ["true", "false", None]),
        ([date(2015, 7, 1), None, None], ["2015-07-01", None, None]),
        ([-0.0, 0.0, 100.0], ["0", "0", "100"]),
        (pa.nulls(3), [None, None, None]),
    ],
)
def test_an_attribute_may_be_any_plain_value(tmp_path: Path, values: list, expected: list) -> None:
    assert read(part(tmp_path / "a", kind=values))["cate_id"].to_list() == expected


WRONG = {
    "list": [["a"]],
    "struct": [{"a": 1}],
    "time64": [time(9, 30)],
    "duration": [timedelta(days=1)],
    "fixed_size_binary": pa.array([uuid.uuid4().bytes], pa.binary(16)),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.parametrize("name", ["user", "item", "when", "kind"])
@pytest.mark.parametrize("kind", WRONG)
def test_a_type_that_is_no_value_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    path = part(tmp_path / "a.parquet", **{name: WRONG[kind]})
    with pytest.raises(InputError, match=rf"a\.parquet: column '{name}' has the type .*{kind}"):
        read(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", True),
        ("item", date(2015, 7, 1)),
        ("user", datetime(2015, 7, 1)),
        ("when", True),
        ("when", b"2015-07-01"),
    ],
)
def test_a_type_that_is_no_id_or_no_time_is_refused(
    tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(InputError, match=f"column '{name}' has the type"):
        read(part(tmp_path / "a.parquet", **{name: [value]}))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column 'user' holds bytes that are no UTF-8"):
        read(part(tmp_path / "a", user=[b"Jos\xe9"]))


def test_seconds_and_timestamps_do_not_mix(tmp_path: Path) -> None:
    one = part(tmp_path / "1", when=[1_435_708_800])
    two = part(tmp_path / "2", when=[datetime(2015, 7, 1)])
    with pytest.raises(InputError, match="2, row 1: the time is a date"):
        read(one, two)


@pytest.mark.parametrize("zone", ["+05:30", "-08:00", "Asia/Kolkata", "UTC", "Mars/Phobos"])
def test_a_time_with_a_zone_is_its_moment(tmp_path: Path, zone: str) -> None:
    moments = [1_435_708_800 * 10**6, 1_435_708_801 * 10**6]
    when = pa.array(moments, pa.timestamp("us", zone))
    rows = read(part(tmp_path / "a.parquet", when=when))
    assert rows["time"].to_list() == [moment * 1000 for moment in moments]


@pytest.mark.parametrize("zone", ["+05:30", "Z", "Mars/Phobos"])
def test_an_attribute_of_a_zone_without_rules_is_its_moment_in_utc(
    tmp_path: Path, zone: str, capfd: pytest.CaptureFixture[str]
) -> None:
    values = pa.array([0, 1_000_000], pa.timestamp("us", zone))
    rows = read(part(tmp_path / "a.parquet", kind=values))
    assert rows["cate_id"].to_list() == ["1970-01-01", "1970-01-01 00:00:01"]
    assert "panicked" not in capfd.readouterr().err


def test_a_decimal_of_256_bits_is_refused(tmp_path: Path) -> None:
    values = pa.array([Decimal(4)], pa.decimal256(50, 0))
    with pytest.raises(InputError, match=r"'item' has the type decimal256.*not an item"):
        read(part(tmp_path / "a.parquet", item=values))


def test_a_column_is_there_once_and_a_dot_in_its_name_is_no_path(tmp_path: Path) -> None:
    table = pa.table([[1], [2], [3], [4]], ["user", "item", "user", "when"])
    pq.write_table(table, tmp_path / "a.parquet")
    columns = {"user_id": "user", "item_id": "item", "time": "when"}
    with pytest.raises(InputError, match="two columns are called 'user'"):
        list(read_tables([tmp_path / "a.parquet"], columns))
    pq.write_table(pa.table([[1], [2], [4]], ["user.id", "item", "when"]), tmp_path / "b.parquet")
    (frame,) = read_tables([tmp_path / "b.parquet"], {**columns, "user_id": "user.id"})
    assert frame.row(0) == ("1", "2", 4)
