"""Generated bad files, for every reader: no traceback, no half output, no row lost in silence."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import math
import sys
import tempfile
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_alipay import HEADER as ALIPAY_HEADER
from test_alipay import LINES as ALIPAY_LINES
from test_amazon import METADATA, REVIEWS

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess import alipay, amazon, interactions
from fuxictr_miss.preprocess.amazon import read_categories, read_reviews
from fuxictr_miss.preprocess.csv_tables import CsvForm
from fuxictr_miss.preprocess.left_out import LeftOut
from fuxictr_miss.preprocess.table_files import read_tables

COLUMNS = {"user_id": "user", "item_id": "item", "time": "when", "cate_id": "kind"}
HEADER = "user,item,when,kind"

many = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
some = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def no_progress_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("raw_lines", "parquet_tables", "splits", "coded_log"):
        place = f"fuxictr_miss.preprocess.{module}"
        bar = sys.modules[place].tqdm
        monkeypatch.setattr(f"{place}.tqdm", lambda *a, bar=bar, **k: bar(*a, disable=True, **k))


@pytest.fixture(autouse=True)
def folder_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def written(content: bytes) -> Path:
    path = Path(tempfile.mkdtemp()) / "log"
    path.write_bytes(content)
    return path


def build(module: ModuleType, output: Path, *arguments: object) -> bool:
    """Run a command; whether it came to its end. After an error there is no output."""
    before, sys.argv = sys.argv, [module.__name__, *map(str, arguments), "--output", str(output)]
    try:
        module.main()
        message = ""
    except InputError as error:
        message = str(error)
    finally:
        sys.argv = before
    assert "\n" not in message
    assert (output / "statistics.json").exists() == (not message)
    assert output.exists() == (not message)
    return not message


# --- CSV, against plain Python -----------------------------------------------------------------

PIECES = ["u", "i", "1", "2", ",", ",", ",", '"', '""', ",5,", " ", "\t", "é", "1.5", "nan"]
LINE = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=9).map("".join),
    st.tuples(*[st.sampled_from(["u", '"u"', "", '""', "7", '"a,b"', '"a""b"', "x"])] * 4).map(
        ",".join
    ),
)


class Unclosed(Exception):
    pass


def plain_fields(line: str) -> list[str] | None:
    """The fields of a line by RFC 4180; None where a quote stands inside of a field."""
    fields, at = [], 0
    while True:
        if line[at : at + 1] == '"':
            end, text = at + 1, ""
            while True:
                close = line.find('"', end)
                if close < 0:
                    raise Unclosed
                text += line[end:close]
                if line[close + 1 : close + 2] != '"':
                    break
                text, end = text + '"', close + 2
            at = close + 1
            if at < len(line) and line[at] != ",":
                return None
        else:
            end = line.find(",", at)
            end = len(line) if end < 0 else end
            text, at = line[at:end], end
            if '"' in text:
                return None
        fields.append(text)
        if at == len(line):
            return fields
        at += 1


def plain_rows(lines: list[str]) -> tuple[list[tuple], list[int]]:
    """Rows of whole times, and the numbers of malformed lines."""
    rows, bad = [], []
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        fields = plain_fields(line)
        if fields is None or len(fields) > 4:
            bad.append(number)
            continue
        user, item, when, kind = fields + [""] * (4 - len(fields))
        if user and item and when.isascii() and when.isdigit():
            rows.append((user, item, int(when), kind))
        else:
            bad.append(number)
    return rows, bad


class Numbers(LeftOut):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []

    def add(self, path: Path, lines: pl.DataFrame, unit: str = "line") -> None:
        super().add(path, lines, unit)
        self.lines += lines["line"].to_list()


@many
@given(lines=st.lists(LINE, max_size=8), end=st.sampled_from(["\n", "\r\n"]), last=st.booleans())
@example(lines=['u,i,1,"x', "u,i,2,y"], end="\n", last=True)
@example(lines=["u,i,1,x,"], end="\n", last=False)
def test_a_csv_is_read_as_plain_python_reads_it(lines: list[str], end: str, last: bool) -> None:
    lines = ["u,i,1,k", "u,i,2,k", "u,i,5,k", "u,i,7,k", *lines]  # most times are integers
    path = written((HEADER + end + end.join(lines) + end * last).encode())
    left_out = Numbers()
    try:
        frame = pl.concat(read_tables([path], COLUMNS, left_out=left_out))
    except InputError:
        with pytest.raises(Unclosed):
            plain_rows(lines)
        return
    fractions = not frame["time"].dtype.is_integer()
    if not fractions:
        rows, bad = plain_rows(lines)
        assert [(*row[:3], row[3] or "") for row in frame.rows()] == rows
        assert left_out.lines == bad
    assert frame.height + len(left_out) == sum(line != "" for line in lines)
    if left_out:
        with pytest.raises(InputError, match=f"line {left_out.lines[0]}: "):
            list(read_tables([path], COLUMNS))


@many
@given(lines=st.lists(LINE, max_size=8))
def test_without_quoting_every_line_is_split_at_its_commas(lines: list[str]) -> None:
    path = written("\n".join([HEADER, "u,i,1,k", *lines]).encode())
    left_out = Numbers()
    frame = pl.concat(read_tables([path], COLUMNS, form=CsvForm(quoting="none"), left_out=left_out))
    assert frame.height + len(left_out) == 1 + sum(line != "" for line in lines)
    kept = [line for n, line in enumerate(lines, 3) if line and n not in left_out.lines]
    assert [line.split(",")[:2] for line in kept] == [list(row[:2]) for row in frame.rows()[1:]]


# --- bytes of any packing ----------------------------------------------------------------------


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", content)
    return file.getvalue()


def parquet_of(content: bytes) -> bytes:
    file = io.BytesIO()
    pl.read_csv(content).write_parquet(file)
    return file.getvalue()


WHOLE = "\n".join(
    [HEADER, *(f"u{u},i{i},{i},k{i}" for u in range(5) for i in range(6) if u != i)]
).encode()
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda content: bytes(pa.compress(content, "zstd", asbytes=True)),
    "zip": zipped,
    "parquet": parquet_of,
}
CHANGE = st.tuples(
    st.sampled_from(["cut", "flip", "insert", "delete", "double"]),
    st.floats(0, 1),
    st.binary(min_size=1, max_size=4),
)


def changed(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, new in changes:
        at = int(place * len(content))
        if kind == "cut":
            content = content[:at]
        elif kind == "flip":
            content = content[:at] + new + content[at + len(new) :]
        elif kind == "insert":
            content = content[:at] + new + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + len(new) :]
        else:
            content = content[:at] + content[at // 2 :]
    return content


@pytest.mark.parametrize("packing", PACKINGS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(CHANGE, min_size=1, max_size=3), tolerant=st.booleans())
def test_any_bytes_give_splits_or_one_sentence(
    packing: str, changes: list[tuple[str, float, bytes]], tolerant: bool
) -> None:
    path = written(changed(PACKINGS[packing](WHOLE), changes))
    arguments = ["--input", path, "--user", "user", "--item", "item", "--time", "when"]
    arguments += ["--attributes", "kind", "--k-core", 1]
    arguments += ["--skip-malformed", "--allow-truncated"] * tolerant
    build(interactions, path.parent / "out", *arguments)


# --- Parquet of any types ----------------------------------------------------------------------

_FLOATS = st.sampled_from([1.0, 2.0, 4.5, math.nan, math.inf, 1e300, -0.0])
VALUES = st.one_of(
    *(
        st.tuples(st.just(kind), st.lists(st.none() | values, min_size=3, max_size=3))
        for kind, values in [
            (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9)),
            (pa.uint64(), st.integers(0, 2**64 - 1)),
            (pa.int8(), st.integers(0, 9)),
            (pa.float64(), _FLOATS),
            (pa.float32(), _FLOATS),
            (pa.float16(), _FLOATS.filter(lambda x: x < 1e4 or math.isnan(x)).map(np.float16)),
            (pa.decimal128(10, 2), st.decimals(-99, 99, places=2)),
            (pa.string(), st.sampled_from(["a", "", "7", "2015-07-01", "é"])),
            (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "", "7"])),
            (pa.binary(), st.binary(max_size=3)),
            (pa.bool_(), st.booleans()),
            (pa.date32(), st.dates(date(1, 1, 1))),
            (pa.timestamp("ms"), st.datetimes()),
            (pa.timestamp("ns"), st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))),
            (
                pa.timestamp("us", "Europe/Rome"),
                st.datetimes(timezones=st.just(timezone.utc)),
            ),
            (pa.time64("us"), st.just(time(9))),
            (pa.duration("s"), st.just(timedelta(1))),
            (pa.list_(pa.int64()), st.lists(st.integers(0, 9), max_size=2)),
            (pa.struct([("a", pa.int64())]), st.just({"a": 1})),
            (pa.null(), st.none()),
        ]
    )
)
PART = st.fixed_dictionaries(dict.fromkeys(COLUMNS.values(), VALUES))
GOOD = {
    name: st.tuples(st.just(kind), st.lists(st.none() | values, min_size=3, max_size=3))
    for name, kind, values in [
        ("user", pa.int64(), st.integers(0, 3)),
        ("item", pa.float64(), st.sampled_from([1.0, 2.0, math.nan])),
        ("when", pa.int32(), st.integers(0, 9)),
        ("kind", pa.string(), st.sampled_from(["a", ""])),
    ]
}
PARTS = st.lists(
    st.sampled_from(list(COLUMNS.values())).flatmap(
        lambda odd: st.fixed_dictionaries({**GOOD, odd: VALUES | GOOD[odd]})
    )
    | PART,
    min_size=1,
    max_size=3,
)


@many
@given(parts=PARTS)
def test_every_row_of_parquet_parts_of_any_types_is_read_or_counted(parts: list[dict]) -> None:
    folder = Path(tempfile.mkdtemp())
    for number, part in enumerate(parts):
        columns = {name: pa.array(values, kind) for name, (kind, values) in part.items()}
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
    left_out = LeftOut()
    try:
        frames = list(read_tables(sorted(folder.iterdir()), COLUMNS, left_out=left_out))
    except InputError:
        return
    assert sum(frame.height for frame in frames) + len(left_out) == 3 * len(parts)
    for frame in frames:
        ids = frame["user_id"].to_list() + frame["item_id"].to_list()
        assert all(isinstance(name, str) and name and not name.endswith(".0") for name in ids)
        assert frame["time"].null_count() == 0


# --- Amazon ------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats()
    | st.sampled_from(["", "a", "5", "1.5", "true", '["x"]', "\ud800", "\0", "nan", "reviewerID"]),
    lambda value: st.lists(value, max_size=2) | st.dictionaries(st.sampled_from("ab"), value),
    max_leaves=3,
)
REVIEW = st.fixed_dictionaries(
    {},
    optional={
        "reviewerID": st.just("u") | JSON,
        "asin": st.just("b") | JSON,
        "overall": st.just(5.0) | JSON,
        "unixReviewTime": st.just(7) | JSON,
        "more": JSON,
    },
).map(json.dumps)
GARBAGE = st.sampled_from(["", " ", "x", "{", "[]", "null", '"a"', "{}{}", '{"a": 1},', "\u2028"])
DOUBLED = st.just(
    '{"reviewerID": "u", "asin": "a", "asin": "b", "overall": 1, "unixReviewTime": 7}'
)


@many
@given(lines=st.lists(REVIEW | GARBAGE | DOUBLED, max_size=6))
def test_every_review_is_read_or_counted_and_alike_in_any_block(lines: list[str]) -> None:
    good = json.dumps(REVIEWS[0])
    path = written("\n".join([good, *lines]).encode())
    left_out = LeftOut()
    frame = pl.concat(read_reviews(path, left_out=left_out))
    assert frame.height + len(left_out) == 1 + sum(line.strip(" \t\r\n") != "" for line in lines)
    assert frame.drop("overall").null_count().row(0) == (0, 0, 0)
    assert not frame["overall"].is_nan().any()
    assert not any(name in ("", None) for name in [*frame["user_id"], *frame["item_id"]])
    path = written("\n".join([good, "broken", *lines]).encode())  # read line by line
    assert pl.concat(read_reviews(path, left_out=LeftOut())).equals(frame)
    for line in lines:  # and each by itself
        if line.strip(" \t\r\n"):
            try:
                list(read_reviews(written(line.encode())))
            except InputError:
                continue


METADATUM = st.fixed_dictionaries(
    {"asin": st.just("b") | JSON},
    optional={
        "categories": st.just([["Root", "Leaf"]]) | JSON | st.lists(JSON, max_size=3),
        "category": st.just(["Root", "Leaf"]) | JSON,
    },
)


@many
@given(entries=st.lists(METADATUM, max_size=5), garbage=GARBAGE, python=st.booleans())
def test_any_metadata_gives_text_or_one_sentence(
    entries: list[dict], garbage: str, python: bool
) -> None:
    write = repr if python else json.dumps
    lines = [write(entry) for entry in [METADATA[0], *entries]]
    path = written("\n".join([*lines, garbage]).encode())
    left_out = LeftOut()
    categories = read_categories(path, {"b", "b0"}, left_out=left_out)
    assert categories.of["b0"] == "Leaf 0"
    pl.Series(list(categories.of.values()), dtype=pl.String)
    assert all(categories.of.values())
    assert len(left_out) <= len(entries)
    try:
        read_categories(path, {"b", "b0"})
    except InputError:
        assert len(left_out)


@some
@given(
    reviews=st.lists(CHANGE, max_size=2),
    metadata=st.lists(CHANGE, max_size=2),
    tolerant=st.booleans(),
)
def test_any_bytes_of_reviews_and_metadata_give_splits_or_one_sentence(
    reviews: list, metadata: list, tolerant: bool
) -> None:
    one = "".join(f"{json.dumps(line)}\n" for line in REVIEWS).encode()
    two = "".join(f"{line!r}\n" for line in METADATA).encode()
    path = written(changed(gzip.compress(one), reviews) if tolerant else changed(one, reviews))
    meta = path.with_name("meta")
    meta.write_bytes(changed(two, metadata))
    arguments = ["--dataset", "demo", "--reviews", path, "--meta", meta, "--k-core", 1]
    arguments += ["--skip-malformed", "--allow-truncated"] * tolerant
    build(amazon, path.parent / "out", *arguments)


# --- Alipay ------------------------------------------------------------------------------------


@some
@given(
    lines=st.lists(
        st.tuples(*[st.sampled_from(["1", "0", "", "20150701", "x", '"', "7.0"])] * 6).map(
            ",".join
        ),
        max_size=4,
    ),
    changes=st.lists(CHANGE, max_size=2),
    tolerant=st.booleans(),
)
def test_any_alipay_log_gives_splits_with_all_rows_or_one_sentence(
    lines: list[str], changes: list, tolerant: bool
) -> None:
    text = "\n".join([ALIPAY_HEADER, *lines, *ALIPAY_LINES]).encode()
    path = written(changed(text, changes))
    output = path.parent / "out"
    if build(alipay, output, "--log", path, *(["--skip-malformed"] * tolerant)):
        about = json.loads((output / "statistics.json").read_text())
        rows = [line for line in path.read_bytes().split(b"\n")[1:] if line.strip(b"\r")]
        assert about["raw_rows"] + about["skipped_lines"] == len(rows)
