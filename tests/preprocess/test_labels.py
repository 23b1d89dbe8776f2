"""Impressions with labels of their own: one rule a test, and all of it against plain Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuxictr_miss.config import load_config
from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess import instances, interactions
from fuxictr_miss.preprocess.labels import (
    LabelsProtocol,
    earlier_choices,
    labelled_frames,
    read_impressions,
    split_rows,
)

Row = tuple[str, str, int, int]  # user, item, time, label
SCHEMA = {"user_id": pl.String, "item_id": pl.String, "time": pl.Int64, "label": pl.Int8}


def splits_of(rows: list[Row], protocol: LabelsProtocol, block: int = 100) -> dict[str, list[dict]]:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(
        cate_id=pl.format("c{}", pl.col("item_id").str.tail(1)),
        device=pl.format("d{}", pl.col("time")),
        price=pl.format("{}.50", pl.col("time")),
    )
    log = (piece for piece in frame.iter_slices(block))
    impressions = read_impressions(log, ["cate_id"], ["device", "price"])
    splits = split_rows(impressions, protocol)
    choices = earlier_choices(impressions, protocol.max_len)
    return {
        name: [r for f in labelled_frames(impressions, rows, *choices) for r in f.to_dicts()]
        for name, rows in splits.items()
    }


def plain_splits(rows: list[Row], protocol: LabelsProtocol) -> dict[str, list[dict]]:
    first = {}
    for user, _, time, label in rows:
        if label:
            first[user] = min(time, first.get(user, time))
    if not first:
        raise InputError("no positive")
    log = sorted((row for row in rows if row[2] >= first.get(row[0], 99)), key=lambda row: row[2])
    splits: dict[str, list[dict]] = {"train": [], "valid": [], "test": []}
    for row in log:
        user, item, time, label = row
        chosen = [i for u, i, t, y in log if u == user and y and t < time][-protocol.max_len :]
        mine = [r for r in log if protocol.split_by == "time" or r[0] == user]
        older = sum(r[2] <= time for r in mine)  # this one and those of its time among them
        late = sum(
            older > round(share * len(mine)) for share in np.cumsum(protocol.split_shares[:2])
        )
        splits[("train", "valid", "test")[late]].append(
            {
                "label": label,
                "user_id": user,
                "item_id": item,
                "cate_id": f"c{item[-1]}",
                "device": f"d{time}",
                "price": time + 0.5,
                "item_history": "^".join(chosen),
                "cate_history": "^".join(f"c{i[-1]}" for i in chosen),
            }
        )
    for part in splits.values():
        if {row["label"] for row in part} != {0, 1}:
            raise InputError("one label")
    return splits


ROWS = st.lists(
    st.tuples(
        st.integers(0, 3).map("u{}".format),
        st.integers(0, 8).map("i{}".format),
        st.integers(0, 12),  # few times: many ties
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=60,
)
PROTOCOLS = st.builds(
    LabelsProtocol,
    max_len=st.integers(1, 5),
    split_by=st.sampled_from(["time", "user"]),
    split_shares=st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.25, 0.5, 0.25)]),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, protocol=PROTOCOLS, block=st.integers(1, 60))
def test_splits_of_any_impressions_equal_those_of_plain_loops(
    rows: list[Row], protocol: LabelsProtocol, block: int
) -> None:
    try:
        expected = plain_splits(rows, protocol)
    except InputError:
        with pytest.raises(InputError, match=r"is of label 1|has no row of label [01]"):
            splits_of(rows, protocol, block)
        return
    assert splits_of(rows, protocol, block) == expected


# a log of ten times, each with a like and a dislike of one of two users
LOG = [(f"u{t % 2}", f"i{t}{y}", t, y) for t in range(10) for y in (1, 0)]


def test_only_earlier_likes_are_history_and_only_the_newest() -> None:
    train = splits_of(LOG, LabelsProtocol(max_len=2))["train"]
    mine = [row for row in train if row["user_id"] == "u0"]
    assert [row["item_history"] for row in mine if row["label"]] == [
        "",
        "i01",
        "i01^i21",
        "i21^i41",
    ]
    assert [row["item_history"] for row in mine if not row["label"]] == [
        row["item_history"] for row in mine if row["label"]
    ]


def test_likes_of_the_same_time_are_no_history_of_each_other() -> None:
    rows = [("u0", "a", 0, 1), ("u0", "b", 0, 1), ("u0", "c", 1, 0), *LOG]
    train = splits_of(rows, LabelsProtocol())["train"]
    histories = {row["item_id"]: row["item_history"] for row in train}
    assert (histories["a"], histories["b"], histories["c"]) == ("", "", "a^b^i01")


def test_no_time_stands_in_two_splits() -> None:
    splits = splits_of(LOG, LabelsProtocol(split_shares=(0.55, 0.25, 0.2)))
    times = {name: {row["device"] for row in rows} for name, rows in splits.items()}
    assert times["train"] == {f"d{t}" for t in range(5)}  # .55 is in the middle of time 5
    assert times["valid"] == {"d5", "d6", "d7"}
    assert times["test"] == {"d8", "d9"}


def test_splits_in_many_pieces_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = splits_of(LOG, LabelsProtocol())
    monkeypatch.setattr(instances, "CHUNK", 3)
    assert splits_of(LOG, LabelsProtocol()) == whole


def test_rows_before_the_first_positive_of_a_user_are_no_instances() -> None:
    rows = [("u0", "x", -2, 0), ("u1", "y", 0, 0), ("u2", "z", 3, 0), *LOG]
    splits = splits_of(rows, LabelsProtocol())
    assert splits == splits_of(LOG, LabelsProtocol())
    first = {}
    for row in splits["train"]:
        first.setdefault(row["user_id"], row)
    assert {user: (row["label"], row["item_history"]) for user, row in first.items()} == {
        "u0": (1, ""),
        "u1": (1, ""),
    }


def test_the_order_of_the_file_decides_only_among_choices_of_one_time() -> None:
    splits = splits_of(LOG, LabelsProtocol())
    turned = splits_of(LOG[::-1], LabelsProtocol())
    for name, rows in splits.items():
        assert sorted(rows, key=str) == sorted(turned[name], key=str)


def test_the_last_share_of_each_user_is_held_out() -> None:
    late = [("u9", f"i{t}", 100 + t, t % 2) for t in range(11)]  # after all the others
    splits = splits_of([*LOG, *late], LabelsProtocol(split_by="user", split_shares=(0.6, 0.2, 0.2)))
    times = {
        (name, user): sorted({int(row["device"][1:]) for row in rows if row["user_id"] == user})
        for name, rows in splits.items()
        for user in ("u0", "u1", "u9")
    }
    assert times["train", "u0"] == [0, 2, 4]  # 10 rows, two a time
    assert times["valid", "u0"] == [6]
    assert times["test", "u0"] == [8]
    assert times["train", "u1"] == [1, 3, 5]
    assert times["test", "u9"] == [109, 110]  # its first row is of label 0: ten are left


def test_a_log_of_one_label_or_one_time_is_refused() -> None:
    with pytest.raises(InputError, match="No one of 20 rows is of label 1"):
        splits_of([(*row[:3], 0) for row in LOG], LabelsProtocol())
    with pytest.raises(InputError, match="train split, 16 of 20 rows by the time of all rows, has"):
        splits_of([(*row[:3], 1) for row in LOG], LabelsProtocol())
    with pytest.raises(InputError, match="train split, 0 of 20 rows"):
        splits_of([(*row[:2], 7, row[3]) for row in LOG], LabelsProtocol())


@pytest.mark.parametrize(
    "shares", [(0.8, 0.1, 0.2), (1, 0, 0), (2, -0.5, -0.5), (float("nan"),) * 3]
)
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="--split-shares"):
        LabelsProtocol(split_shares=shares)


# --- the command -------------------------------------------------------------------------------

HEADER = "user,item,when,stars,cate_id,device"
LINES = [f"{u},{i},{t},{2 + 3 * y},c,d{t % 2}" for u, i, t, y in LOG]


def command(log: Path, output: Path, *more: object) -> list[object]:
    names = ["--user", "user", "--item", "item", "--time", "when"]
    return ["--input", log, *names, "--output", output, *more]


RATED = ("--positive", "stars >= 4")


def test_ratings_become_splits_with_context(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    log.write_text("\n".join([HEADER, *LINES]))
    more = (*RATED, "--attributes", "cate_id", "--context", "device")
    for _ in range(2):  # the second build replaces the first
        ended = run(interactions, *command(log, tmp_path / "out", *more))
        assert ended.code == 0, ended.err
    train = pl.read_parquet(tmp_path / "out/train.parquet")
    assert train.columns == [
        *("label", "user_id", "item_id", "cate_id", "device", "item_history", "cate_history")
    ]
    assert train.row(-1) == (0, "u1", "i70", "c", "d1", "i11^i31^i51", "c^c^c")
    about = json.loads((tmp_path / "out/statistics.json").read_text())
    assert about["rows"] == {"train": 16, "valid": 2, "test": 2}
    assert about["positives"] == {"train": 8, "valid": 1, "test": 1}
    assert about["first_time"] == {"train": 0, "valid": 8, "test": 9}
    assert (about["positive"], about["instances"]) == ("stars >= 4", 16)
    assert pl.read_parquet(tmp_path / "out/items.parquet").height == 20


def test_labels_of_parquet_may_be_whole_floats(tmp_path: Path, run) -> None:
    frame = pl.DataFrame(LOG, schema=["user", "item", "when", "click"], orient="row")
    for dtype in (pl.Int8, pl.Float32):
        log = tmp_path / f"{dtype}.parquet"
        frame.with_columns(pl.col("click").cast(dtype)).write_parquet(log)
        ended = run(interactions, *command(log, tmp_path / str(dtype), "--label", "click"))
        assert ended.code == 0, ended.err
        assert pl.read_parquet(tmp_path / f"{dtype}/train.parquet")["label"].sum() == 8


@pytest.mark.parametrize("bad", ["2", "-1", "0.5", "", "true", "nan", "yes"])
def test_a_label_that_is_neither_0_nor_1_is_named_with_its_line(
    tmp_path: Path, run, bad: str
) -> None:
    log = tmp_path / "log.csv"
    lines = [f"{u},{i},{t},{y},c,d" for u, i, t, y in LOG]
    log.write_text("\n".join([HEADER, *lines, f"u0,i0,3,{bad},c,d"]))
    arguments = command(log, tmp_path / "out", "--label", "stars")
    ended = run(interactions, *arguments)
    assert ended.code == 2
    assert f"{log}, line 22" in ended.err
    assert "a label that is neither 0 nor 1 (compare it: --positive 'rating >= 4', or" in ended.err
    assert not (tmp_path / "out").exists()
    ended = run(interactions, *arguments, "--skip-malformed")
    assert ended.code == 0
    assert "1 malformed lines left out" in ended.out


@pytest.mark.parametrize("bad", ["nan", "inf", "", "four"])
def test_a_rating_that_is_no_number_is_named_with_its_line(tmp_path: Path, run, bad: str) -> None:
    log = tmp_path / "log.csv"
    log.write_text("\n".join([HEADER, *LINES, f"u0,i0,3,{bad},c,d"]))
    ended = run(interactions, *command(log, tmp_path / "out", *RATED))
    assert ended.code == 2
    assert f"{log}, line 22" in ended.err
    assert "no finite number as stars, which --positive compares" in ended.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--protocol", "labels"], "needs either --label"),
        ([*RATED, "--label", "stars"], "needs either --label"),
        ([*RATED, "--protocol", "leave-last-three"], "--positive means nothing"),
        (["--split-by", "user"], "--split-by means nothing to --protocol leave-last-three"),
        (["--protocol", "lables"], "Did you mean 'labels'?"),
        ([*RATED, "--split-by", "users"], "Did you mean 'user'?"),
        ([*RATED, "--shards", 2], "--shards"),
        ([*RATED, "--k-core", 5], "--k-core"),
        ([*RATED, "--num-negatives", 4], "--num-negatives"),
        ([*RATED, "--negatives", "popularity"], "--negatives"),
        ([*RATED, "--seed", 4], "--seed"),
        ([*RATED, "--max-len", 0], "--max-len"),
        ([*RATED, "--encoding", "latin-99"], "--encoding"),
        (["--positive", "stars"], "is no comparison"),
        ([*RATED, "--split-shares", 0.8, 0.1, 0.2], "--split-shares"),
        (["--label", "when"], "--label"),
        ([*RATED, "--context", "stars"], "'stars' is the label"),
        ([*RATED, "--attributes", "stars"], "'stars' is the label"),
        ([*RATED, "--context", "device,device"], "--context device"),
        ([*RATED, "--context", "device", "--context", "device"], "--context device"),
        ([*RATED, "--context", "item_history"], "--context item_history"),
        ([*RATED, "--attributes", "cate_id", "--context", "cate_history"], "cate_history"),
    ],
)
def test_an_option_that_means_nothing_is_refused_before_the_log_is_read(
    tmp_path: Path, run, more: list, says: str
) -> None:
    ended = run(interactions, *command(tmp_path / "not there.csv", tmp_path / "out", *more))
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_context_is_numeric_where_all_values_are_numbers(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    values = ["0.5", "", "NaN", " 3", "1e1", "-2", "7", "7", "7", "7"]
    texts = ["4", "x", "", "5", "6", "7", "8", "8", "8", "8"]
    zips = ["007", "1", "", "2", "3", "4", "5", "5", "5", "5"]
    lines = [f"{u},{i},{t},{y},{values[t]},{texts[t]},{zips[t]}" for u, i, t, y in LOG]
    log.write_text("\n".join(["user,item,when,click,price,mixed,zip", *lines]))
    arguments = command(log, tmp_path / "out", "--label", "click", "--context", "price, mixed,zip")
    ended = run(interactions, *arguments)
    assert ended.code == 0, ended.err
    train = pl.read_parquet(tmp_path / "out/train.parquet").filter(label=1)
    assert train["price"].to_list() == [0.5, None, None, 3, 10, -2, 7, 7]
    assert train["mixed"].to_list() == ["4", "x", None, "5", "6", "7", "8", "8"]
    assert train["zip"][0] == "007"
    about = json.loads((tmp_path / "out/statistics.json").read_text())["context"]
    assert about["price"] == {"type": "numeric", "missing": 4, "median_of_train": 5.0}
    assert about["mixed"]["type"] == about["zip"]["type"] == "categorical"
    assert "context mixed: categorical of 6 values, missing in 2 rows; 'x' is no num" in ended.out


def test_an_empty_context_column_is_refused(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    log.write_text("\n".join([HEADER, *(line[: line.rindex(",") + 1] for line in LINES)]))
    ended = run(interactions, *command(log, tmp_path / "out", *RATED, "--context", "device"))
    assert ended.code == 2
    assert "--context device has no value in any instance" in ended.err
    assert not (tmp_path / "out").exists()


def test_a_missing_context_stays_missing_and_a_caret_is_escaped(tmp_path: Path, run) -> None:
    log = tmp_path / "log.csv"
    log.write_text("\n".join([HEADER, "u0,a^b,0,5,c,", *LINES]))
    ended = run(interactions, *command(log, tmp_path / "out", *RATED, "--context", "device"))
    assert ended.code == 0, ended.err
    train = pl.read_parquet(tmp_path / "out/train.parquet")
    assert train.row(0) == (1, "u0", "a%5Eb", None, "")
    assert train.filter(user_id="u0")["item_history"][-1].startswith("a%5Eb^i01^")


def test_the_command_for_movielens_reads_the_public_files(tmp_path: Path) -> None:
    raw = tmp_path / "data/raw/movielens1m"
    raw.mkdir(parents=True)
    movies = ["7::Misérables, Les (1995)::Drama|Musical", "8::Toy Story (1995)::Animation"]
    (raw / "movies.dat").write_text("\r\n".join([*movies, ""]), encoding="latin-1")
    ratings = [f"{t % 2}::{7 + y}::{2 + 3 * y}::{978300760 + t}" for _, _, t, y in LOG]
    (raw / "ratings.dat").write_text("\n".join([*ratings, ""]))
    root = Path(__file__).parents[2]
    command = load_config(str(root / "config"), "DIN_movielens1m").preprocess_command
    command = command.replace("python data_preprocess", f"{sys.executable} {root}/data_preprocess")
    ended = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    train = pl.read_parquet(tmp_path / "data/splits/movielens1m/train.parquet")
    assert train.row(-1) == (0, "1", "7", "Drama", "8^8^8", "Animation^Animation^Animation")
