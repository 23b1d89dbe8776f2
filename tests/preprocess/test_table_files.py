"""CSV and Parquet logs: packings, headers, times, and what can be wrong with a line."""

from __future__ import annotations

import gzip
import os
import zipfile
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.csv_tables import CsvForm
from fuxictr_miss.preprocess.left_out import STRICT, LeftOut
from fuxictr_miss.preprocess.table_files import find_files, read_tables

COLUMNS = {"user_id": "user", "item_id": "item", "time": "when", "cate_id": "kind"}
HEADER = "user,item,when,kind"
ROWS = [("u1", "i1", 3, "x"), ("u2", "i2", 1, "y")]


def read(*files: Path, **options: object) -> pl.DataFrame:
    return pl.concat(read_tables(files, COLUMNS, **options))


def csv(path: Path, *lines: str, header: str = HEADER, end: str = "\n") -> Path:
    path.write_bytes(end.join([header, *lines]).encode())
    return path


def test_every_packing_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    plain = csv(tmp_path / "a.csv", "u1,i1,3,x", "u2,i2,1,y")
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(plain, "a.csv")
    table = tmp_path / "a.parquet"
    pl.DataFrame(ROWS, schema=["user", "item", "when", "kind"], orient="row").write_parquet(table)
    for path in (plain, packed, archive, table):
        assert read(path).rows() == ROWS


def test_globs_and_several_files_are_read_in_order(tmp_path: Path) -> None:
    for n in (2, 1, 3):
        csv(tmp_path / f"{n}.csv", f"u{n},i,{n},x")
    assert read(*find_files([str(tmp_path / "*.csv")]))["time"].to_list() == [1, 2, 3]
    one_first = find_files([str(tmp_path / "3.csv"), str(tmp_path / "[12].csv")])
    assert read(*one_first)["time"].to_list() == [3, 1, 2]
    with pytest.raises(InputError, match=r"There is no file .*\*\.tsv"):
        find_files([str(tmp_path / "*.tsv")])


def test_columns_are_found_by_name_and_files_may_order_them_differently(tmp_path: Path) -> None:
    one = csv(tmp_path / "1.csv", "x,3,i1,u1", header="kind,when,item,user")
    two = csv(tmp_path / "2.csv", "?,i2,u2,y,1", header="more,item,user,kind,when")
    assert read(one, two).rows() == ROWS


def test_windows_line_ends_and_a_byte_order_mark_leave_no_trace(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "u1,i1,3,x", "u2,i2,1,y", header="\ufeff" + HEADER, end="\r\n")
    assert read(path).rows() == ROWS


def test_quotes_hold_commas_carets_and_any_alphabet(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", 'u1,"i,1",3,"R&B, ""soul"""', 'ü2,i^2,1,"本"')
    assert read(path).rows() == [("u1", "i,1", 3, 'R&B, "soul"'), ("ü2", "i^2", 1, "本")]


def test_another_separator_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("user\titem\twhen\tkind\nu1\ti1\t3\tx\n")
    assert read(path, form=CsvForm("\t")).rows() == ROWS[:1]


def test_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "007,1e3,3,x")
    assert read(path).row(0)[:2] == ("007", "1e3")


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        (["3", "10"], pl.Int64),
        (
            ["1700000000000000001", "1700000000000000002"],
            pl.Int64,
        ),  # no float could tell them apart
        (["2.5", "10"], pl.Float64),
        (["2015-07-01", "2015-11-30"], pl.Int64),
        (["2015-07-01 09:00:00", "2015-07-01 10:00:00"], pl.Int64),
        (["2015-07-01T09:00:00Z", "2015-07-01T10:00:00Z"], pl.Int64),
    ],
)
def test_times_are_numbers_or_dates_and_sort(
    tmp_path: Path, written: list[str], dtype: pl.DataType
) -> None:
    time = read(csv(tmp_path / "a.csv", *(f"u,i,{when},x" for when in written)))["time"]
    assert time.dtype == dtype
    assert time[0] < time[1]


@pytest.mark.parametrize("times", [[date(2015, 7, 1)], [datetime(2015, 7, 1, 9)], [1.5], [7]])
def test_parquet_keeps_its_types_of_time(tmp_path: Path, times: list) -> None:
    frame = pl.DataFrame({"user": [1], "item": [2], "when": times, "kind": ["x"]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")["time"].null_count() == 0


@pytest.mark.parametrize(
    "line",
    [
        "u1,i1,3,x,y",
        "u1,i1",
        ",i1,3,x",
        "u1,,3,x",
        "u1,i1,,x",
        "u1,i1,noon,x",
        'u1,i1,"",x',
        'u1,i"1,3,x',
        'u1,"i"1,3,x',
        'u1, "i1",3,x',
        "u1,i1,nan,x",
        "u1,i1,99999999999999999999,x",
        ",,,",
        "   ",
    ],
)
def test_a_malformed_line_is_named_and_skipped_on_request(tmp_path: Path, line: str) -> None:
    path = csv(tmp_path / "a.csv", "u1,i1,3,x", "", '"u0",i0,2', line, "u2,i2,1,y")
    with pytest.raises(InputError, match=r"a\.csv, line 5: .*--skip-malformed"):
        read(path)
    left_out = LeftOut()
    assert read(path, left_out=left_out).rows() == [ROWS[0], ("u0", "i0", 2, None), ROWS[1]]
    assert len(left_out) == 1


def test_a_time_of_no_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: the time 'noon' is neither"):
        read(csv(tmp_path / "a.csv", "u1,i1,noon,x", "u1,i1,dusk,x"))


def test_a_missing_column_is_answered_with_the_closest(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "u1,i1,3,x", header="user_id,item,when,kind")
    with pytest.raises(InputError, match=r"a\.csv: 'user'\. Did you mean 'user_id'"):
        read(path)


@pytest.mark.parametrize("text", ["", "user,item,when,kind", "user,item,when,kind\n\n\n"])
def test_a_log_without_rows_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="no rows below the header"):
        read(path)


def test_a_quote_that_is_never_closed_is_named(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "u1,i1,3,x", 'u1,i1,"3,x', *["u2,i2,1,y"] * 20_000)
    with pytest.raises(InputError, match=r"line 3: .*opens a double quote.*--quoting none"):
        read(path)


def test_a_broken_parquet_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing more")
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as Parquet"):
        read(tmp_path / "a.parquet")


def test_a_row_without_a_user_is_named_in_parquet_too(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["u", None], "item": "i", "when": 3, "kind": "x"})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="row 2 has no user"):
        read(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", left_out=LeftOut()).height == 1


def test_csv_and_parquet_do_not_mix(tmp_path: Path) -> None:
    one = csv(tmp_path / "a.csv", "u1,i1,3,x")
    pl.DataFrame(ROWS, schema=HEADER.split(","), orient="row").write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="mixes Parquet and CSV"):
        read(one, tmp_path / "a.parquet")


# --- quotes, and what a line is ----------------------------------------------------------------


def test_a_stray_quote_swallows_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('user,item,when,kind\na,i1,1,"x\nb,i2,2,y\nc,i3,3,z\n')
    with pytest.raises(InputError, match=r"""line 2: 'a,i1,1,"x' opens a double quote"""):
        read(path)
    assert read(path, form=CsvForm(quoting="none")).rows() == [
        ("a", "i1", 1, '"x'),
        ("b", "i2", 2, "y"),
        ("c", "i3", 3, "z"),
    ]


def test_a_line_end_inside_a_field_is_never_skipped_over(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", 'u1,i1,3,"a', "u9,i9,9,text of the field", 'end"', "u2,i2,1,y")
    for left_out in (STRICT, LeftOut()):
        with pytest.raises(InputError, match="line 2"):
            read(path, left_out=left_out)


def test_quotes_mean_nothing_without_quoting(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('user\titem\twhen\tkind\n"u"\t"Weird Al" Live\t3\t5" disk\n')
    assert read(path, form=CsvForm("\t", "none")).row(0) == ('"u"', '"Weird Al" Live', 3, '5" disk')


def test_one_long_line_among_a_million_is_found(tmp_path: Path) -> None:
    lines = ["u,i,3,x"] * 1_000_000
    lines[777_777] = "u,i,3,x,more"
    path = csv(tmp_path / "a.csv", *lines)
    with pytest.raises(InputError, match=r"line 777779: .*more than 4 columns"):
        read(path)


@pytest.mark.parametrize(
    "separator", ["::", "", "\\t", "t", "1", '"', "\n", "\u00a0", "\t\t", "\0"]
)
def test_a_separator_is_one_character_that_cannot_be_in_an_id(separator: str) -> None:
    with pytest.raises(InputError, match="--separator"):
        CsvForm(separator)


@pytest.mark.parametrize("separator", [",", ";", "|", "\t", " ", "^", "]", "\\", "\x01", "~", "-"])
def test_any_other_separator_is_taken(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a"
    lines = [HEADER.split(","), ["u1", 'i"1'.replace('"', '""'), "3", f"x{separator}"]]
    text = "\n".join(separator.join(f'"{field}"' for field in line) for line in lines)
    path.write_text(text)
    assert read(path, form=CsvForm(separator)).row(0) == ("u1", 'i"1', 3, f"x{separator}")


@pytest.mark.parametrize("header", ["user,item,when,kind,user", "user,user,item,when,kind"])
def test_a_wanted_column_is_there_once(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match="two columns are called 'user'"):
        read(csv(tmp_path / "a.csv", "u1,i1,3,x,y", header=header))


def test_columns_without_a_name_are_no_trouble(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "0,u1,i1,3,x,y,z", header=",user,item,when,kind,,")
    assert read(path).rows() == ROWS[:1]


@pytest.mark.parametrize("header", ["", 'user,item,when,"kind', 'us"er,item,when,kind'])
def test_a_header_that_is_none_is_named(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match=r"a\.csv, line 1"):
        read(csv(tmp_path / "a.csv", "u1,i1,3,x", header=header))


@pytest.mark.parametrize("line", ['{"user": "u1", "item": "i1"}', '[{ "user": "u1"}]'])
@pytest.mark.parametrize("quoting", ["csv", "none"])
def test_json_is_no_csv(tmp_path: Path, line: str, quoting: str) -> None:
    path = csv(tmp_path / "log.jsonl", line, header=line)
    with pytest.raises(InputError, match=r"log\.jsonl holds JSON.* polars\.read_ndjson"):
        read(path, form=CsvForm(quoting=quoting))


# --- which files -------------------------------------------------------------------------------


def test_brackets_in_a_name_that_exists_are_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "exp [1]"
    folder.mkdir()
    csv(folder / "b.csv", "u1,i1,3,x")
    csv(folder / "a[2].csv", "u2,i2,1,y")
    assert [path.name for path in find_files([f"{folder}/*.csv"])] == ["a[2].csv", "b.csv"]
    assert find_files([f"{folder}/a[2].csv"]) == [folder / "a[2].csv"]


def test_a_file_is_not_read_twice(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "u1,i1,3,x")
    with pytest.raises(InputError, match=r"names .* twice"):
        find_files([str(path), f"{tmp_path}/*.csv"])


def test_a_folder_or_a_pipe_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        find_files([str(tmp_path)])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no regular file"):
        find_files([str(tmp_path / "pipe")])


def test_parquet_is_known_by_its_bytes(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS, schema=HEADER.split(","), orient="row")
    frame.write_parquet(tmp_path / "log.bin")
    assert read(tmp_path / "log.bin").rows() == ROWS


# --- what is left out --------------------------------------------------------------------------


def test_what_is_left_out_is_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [",i1,3,x"] * 5 + ["u1,i1,noon,x", "a,b,c,d,e"]
    path = csv(tmp_path / "a.csv", "u1,i1,3,x", *bad)
    left_out = LeftOut()
    assert read(path, left_out=left_out).height == 1
    left_out.report()
    printed = capsys.readouterr().out
    assert "7 malformed lines left out:" in printed
    assert f"5 with no user: {path}, line 3; {path}, line 4; {path}, line 5; .." in printed
    assert (
        f"1 with a time that is not an integer, as those before it are: {path}, line 8" in printed
    )
    assert f"1 with more than 4 columns: {path}, line 9" in printed


def test_a_log_of_malformed_lines_only_is_an_error_that_counts_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all 2 are malformed"):
        read(csv(tmp_path / "a.csv", ",i1,3,x", "u1,,3,x"), left_out=LeftOut())
