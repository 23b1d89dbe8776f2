"""The command for a log of the user's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from fuxictr_miss.preprocess import interactions

BLOCK = [(f"u{u}", f"i{i}", i) for u in range(5) for i in range(5) if u != i]

HEADER = "user,item,when,cate_id"
LINES = [f"{u},{i},{t},c{i}" for u, i, t in BLOCK]


def command(log: Path, output: Path, *more: str) -> list[object]:
    names = ["--user", "user", "--item", "item", "--time", "when", "--attributes", "cate_id"]
    return ["--input", log, *names, "--output", output, "--k-core", 1, *more]


def test_a_csv_becomes_splits(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    log.write_text("\n".join([HEADER, *LINES]))
    ended = run(interactions, *command(log, tmp_path / "out"))
    assert ended.code == 0, ended.err
    train = pl.read_parquet(tmp_path / "out/train.parquet")
    assert train.columns == [
        "label",
        "user_id",
        "item_id",
        "cate_id",
        "item_history",
        "cate_history",
    ]
    assert train.row(0) == (1, "u0", "i2", "ci2", "i1", "ci1")
    about = json.loads((tmp_path / "out/statistics.json").read_text())
    assert (about["users"], about["instances"], about["raw_interactions"]) == (5, 10, 20)


def test_an_attribute_that_would_hide_a_column_is_refused(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,when\n")
    arguments = [x if x != "cate_id" else "item" for x in command(log, tmp_path / "out")]
    ended = run(interactions, *arguments)
    assert ended.code == 2
    assert "item_history" in ended.err
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_or_below_one_is_refused(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    log.write_text("\n".join([HEADER, *LINES]))
    for output in (log, log / "below"):
        ended = run(interactions, *command(log, output))
        assert ended.code == 2
        assert "is a file" in ended.err


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", "-1"],
        ["--seed", 2**32],
        ["--k-core", 0],
        ["--max-len", 2**70],
        ["--num-negatives", 10**9],
        ["--shards", 0],
        ["--shards", 10**9],
        ["--negatives", "some"],
        ["--protocol", "every-prefiks"],
        ["--label", "cate_id"],
        ["--split-shares", 0.8, 0.1, 0.1],
        ["--separator", "::"],
        ["--quoting", "all"],
        ["--encoding", "latin-99"],
        ["--time-format", "%H:%M"],
        ["--user", "item"],
    ],
)
def test_an_option_without_a_valid_value_is_refused_before_the_log_is_read(
    tmp_path: Path, run, options: list
) -> None:
    ended = run(interactions, *command(tmp_path / "not there.csv", tmp_path / "out", *options))
    assert ended.code == 2
    assert options[0] in ended.err
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_stands_on_a_line_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("\n".join([HEADER, *LINES, 'u9,i1,"3,x']))
    script = Path(__file__).parents[2] / "data_preprocess" / "interactions.py"
    command_line = [sys.executable, script, *command(log, tmp_path / "out")]
    ended = subprocess.run(map(str, command_line), capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(f"error: {log}, line 22: ")
    assert "Traceback" not in ended.stderr


def test_lines_left_out_are_printed_and_counted(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    log.write_text("\n".join([HEADER, *LINES, "u9,,3,x", "u9,i1,noon,x"]))
    ended = run(interactions, *command(log, tmp_path / "out", "--skip-malformed"))
    assert ended.code == 0, ended.err
    assert f"1 with no item: {log}, line 22" in ended.out
    about = json.loads((tmp_path / "out/statistics.json").read_text())
    assert (about["raw_interactions"], about["skipped_lines"]) == (20, 2)


@pytest.mark.parametrize("shards", [1, 2])
def test_integers_and_then_fractions_keep_their_order(tmp_path: Path, run, shards: int) -> None:
    # u0 has them in the order 0, 1.25, 1.5, 2: only the fractions tell
    one = [f"{u},{i},{t},c" for u, i, t in BLOCK if u != "u0"] + ["u0,i1,0,c", "u0,i2,2,c"]
    (tmp_path / "1.csv").write_text("\n".join([HEADER, *one]))
    (tmp_path / "2.csv").write_text("\n".join([HEADER, "u0,i3,1.5,c", "u0,i4,1.25,c"]))
    arguments = command(tmp_path / "*.csv", tmp_path / "out", "--shards", shards)
    assert run(interactions, *arguments).code == 0
    test = pl.read_parquet(tmp_path / "out" / ("test/*.parquet" if shards > 1 else "test.parquet"))
    mine = test.filter(user_id="u0", label=1)
    assert mine["item_history"][0] + "^" + mine["item_id"][0] == "i1^i4^i3^i2"


def test_a_bad_log_leaves_no_folder_behind(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    log.write_text(HEADER + "\n")
    ended = run(interactions, *command(log, tmp_path / "out"))
    assert (ended.code, ended.out) == (2, "")
    assert "no rows below the header" in ended.err
    assert not (tmp_path / "out").exists()


def test_words_for_a_missing_user_are_kept_as_a_user_and_named(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    lines = [line.replace("u1,", "NULL,") for line in LINES]
    log.write_text("\n".join([HEADER, *lines]))
    ended = run(interactions, *command(log, tmp_path / "out"))
    assert ended.code == 0, ended.err
    rows = sum(line.startswith("NULL,") for line in lines)
    assert rows
    assert f"{rows} rows have the user 'NULL', which is one user like any other here." in ended.out
    assert "NULL" in pl.read_parquet(tmp_path / "out/train.parquet")["user_id"]
