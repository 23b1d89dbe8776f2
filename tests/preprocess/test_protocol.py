"""The paper's protocol (Section VI.A) and DIN's, one rule a test, and all against plain Python."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess import instances
from fuxictr_miss.preprocess import protocol as protocols
from fuxictr_miss.preprocess.coded_log import INTERACTS, CodedLog
from fuxictr_miss.preprocess.protocol import Protocol, filter_log, split_frames, statistics
from fuxictr_miss.preprocess.splits import report, splits_folder, write_splits

Row = tuple[str, str, int]  # user, item, time
SCHEMA = {"user_id": pl.String, "item_id": pl.String, "time": pl.Int64}


def log_of(rows: list[Row], attribute: bool = False, shards: int = 1) -> CodedLog:
    log = CodedLog(["cate_id"] if attribute else [], shards)
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    log.add(frame.with_columns(pl.format("c{}", pl.col("item_id").str.head(2)).alias("cate_id")))
    return log


def splits_of(
    rows: list[Row], protocol: Protocol, attribute: bool = False, shards: int = 1
) -> dict[str, list[dict]]:
    record = filter_log(log_of(rows, attribute, shards), protocol.k_core)
    splits: dict[str, list[dict]] = {name: [] for name in protocols.SPLITS}
    for part in record.parts():
        for name, frame in split_frames(record, part, protocol):
            splits[name] += frame.to_dicts()
    return splits


# --- the same protocol, written for reading ---------------------------------------------------


def plain_core(rows: list[Row], of_user: int, of_item: int) -> list[Row]:
    while True:
        users, items = Counter(u for u, _, _ in rows), Counter(i for _, i, _ in rows)
        left = [r for r in rows if users[r[0]] >= of_user and items[r[1]] >= of_item]
        if left == rows:
            return rows
        rows = left


def plain_splits(rows: list[Row], protocol: Protocol) -> dict[str, list[dict]]:
    first_seen = {u: n for n, u in reversed(list(enumerate(u for u, _, _ in rows)))}
    item_seen = {i: n for n, i in reversed(list(enumerate(i for _, i, _ in rows)))}
    core = plain_core(rows, max(protocol.k_core, 4), protocol.k_core)
    counts = Counter(i for _, i, _ in core)
    items = sorted(counts, key=lambda item: item_seen[item])
    users = sorted({u for u, _, _ in core}, key=lambda user: first_seen[user])
    lengths = [sum(u == user for u, _, _ in core) for user in users]
    targets = [3 if protocol.protocol == "leave-last-three" else n - 1 for n in lengths]
    all_draws = np.random.default_rng(protocol.seed).random((sum(targets), protocol.num_negatives))
    draws = iter(all_draws)
    splits: dict[str, list[dict]] = {"train": [], "valid": [], "test": []}
    for u, user in enumerate(users):
        did = [i for _, i, _ in sorted((r for r in core if r[0] == user), key=lambda r: r[2])]
        # an untouched item stands here once, or as often as it occurs
        urn = [i for i in items if i not in did]
        if protocol.negatives == "popularity":
            urn = [i for i in urn for _ in range(counts[i])]
        if not urn:
            raise InputError("touched all")
        for target in range(len(did) - targets[u], len(did)):
            split = {len(did) - 1: "test", len(did) - 2: "valid"}.get(target, "train")
            history = did[:target][-protocol.max_len :]
            negatives = [urn[int(draw * len(urn))] for draw in next(draws)]
            for candidate in [did[target], *negatives]:
                splits[split].append(
                    {
                        "label": int(candidate == did[target]),
                        "user_id": user,
                        "item_id": candidate,
                        "cate_id": f"c{candidate[:2]}",
                        "item_history": "^".join(history),
                        "cate_history": "^".join(f"c{i[:2]}" for i in history),
                    }
                )
    return splits


ROWS = st.lists(
    st.tuples(
        st.integers(0, 5).map("u{}".format),
        st.integers(0, 8).map("i{}".format),
        st.integers(0, 4),  # few times: many ties
    ),
    max_size=70,
)
PROTOCOLS = st.builds(
    Protocol,
    protocol=st.sampled_from(protocols.PROTOCOLS),
    k_core=st.integers(1, 5),
    max_len=st.integers(1, 6),
    negatives=st.sampled_from(protocols.NEGATIVES),
    num_negatives=st.integers(1, 3),
    seed=st.integers(0, 9),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, protocol=PROTOCOLS)
def test_splits_of_any_log_equal_those_of_plain_python(rows: list[Row], protocol: Protocol) -> None:
    try:
        expected = plain_splits(rows, protocol)
    except InputError:
        with pytest.raises(InputError, match="no negative"):
            splits_of(rows, protocol, attribute=True)
        return
    if not expected["train"]:
        with pytest.raises(InputError, match="Nothing is left"):
            splits_of(rows, protocol, attribute=True)
        return
    assert splits_of(rows, protocol, attribute=True) == expected


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, protocol=PROTOCOLS)
def test_any_log_keeps_the_promises_of_the_protocol(rows: list[Row], protocol: Protocol) -> None:
    try:
        splits = splits_of(rows, protocol)
    except InputError:
        return
    times: dict[tuple[str, str], list[int]] = {}
    for user, item, time in rows:
        times.setdefault((user, item), []).append(time)
    for name, rows_of_split in splits.items():
        positives = [row for row in rows_of_split if row["label"] == 1]
        if name != "train" or protocol.protocol == "leave-last-three":
            assert len({row["user_id"] for row in positives}) == len(positives)
        assert len(rows_of_split) == len(positives) * (1 + protocol.num_negatives)
        for row in rows_of_split:
            history = row["item_history"].split("^")
            assert 1 <= len(history) <= protocol.max_len
            if row["label"] == 1:
                newest = max(times[row["user_id"], row["item_id"]])
                assert all(min(times[row["user_id"], item]) <= newest for item in history)
            else:
                assert (row["user_id"], row["item_id"]) not in times


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, protocol=PROTOCOLS, shards=st.integers(2, 4))
def test_shards_hold_the_rows_that_one_file_holds(
    rows: list[Row], protocol: Protocol, shards: int
) -> None:
    try:
        whole = splits_of(rows, protocol, attribute=True)
    except InputError:
        return
    parts = splits_of(rows, protocol, attribute=True, shards=shards)
    for name in protocols.SPLITS:
        assert sorted(map(str, parts[name])) == sorted(map(str, whole[name]))


# --- one rule a test ---------------------------------------------------------------------------

# five users and items, everyone with everyone but one item each: a 4-core with negatives
BLOCK = [(f"u{u}", f"i{i}", i) for u in range(5) for i in range(5) if u != i]


def test_core_goes_on_where_one_pass_is_not_enough() -> None:
    # u9 has four, but i9 only one; without i9 u9 falls below four, and then nothing else changes
    chain = [("u9", "i0", 0), ("u9", "i1", 1), ("u9", "i2", 2), ("u9", "i9", 3)]
    record = filter_log(log_of(BLOCK + chain), 4)
    assert record.users.to_list() == [f"u{u}" for u in range(5)]
    assert sorted(record.items["item_id"]) == [f"i{i}" for i in range(5)]


def test_targets_are_the_last_three_and_the_history_grows() -> None:
    rows = [("u0", f"i{n}", n) for n in range(5)] + [("v", "other", n) for n in range(4)]
    splits = splits_of(rows, Protocol(k_core=1))
    mine = {name: [r for r in rows if r["user_id"] == "u0"] for name, rows in splits.items()}
    assert {name: r[0]["item_id"] for name, r in mine.items()} == {
        "train": "i2",
        "valid": "i3",
        "test": "i4",
    }
    assert [r[0]["item_history"] for r in mine.values()] == ["i0^i1", "i0^i1^i2", "i0^i1^i2^i3"]


def test_every_prefix_trains_and_the_last_two_are_kept_for_the_end() -> None:
    rows = [("u0", f"i{n}", n) for n in range(6)] + [("v", "other", n) for n in range(4)]
    splits = splits_of(rows, Protocol("every-prefix", k_core=1, max_len=2))
    told = {
        name: [(r["item_history"], r["item_id"]) for r in rows if r["label"] and r["user_id"] < "v"]
        for name, rows in splits.items()
    }
    assert told == {
        "train": [("i0", "i1"), ("i0^i1", "i2"), ("i1^i2", "i3")],
        "valid": [("i2^i3", "i4")],
        "test": [("i3^i4", "i5")],
    }


def test_the_last_two_targets_are_those_of_the_papers_protocol() -> None:
    rows = [(f"u{u}", f"i{(u * n) % 7}", n) for u in range(6) for n in range(8)]
    rows += [(f"u{u}", f"j{u}", 9) for u in range(6)]
    paper, din = (splits_of(rows, Protocol(name, k_core=1)) for name in protocols.PROTOCOLS)
    for name in ("valid", "test"):
        assert [r for r in din[name] if r["label"]] == [r for r in paper[name] if r["label"]]


def test_instances_of_every_prefix_are_those_of_training() -> None:
    record = filter_log(log_of(BLOCK), 1)
    (part,) = record.parts()
    protocol = Protocol("every-prefix", k_core=1, num_negatives=2)
    rows = Counter()
    for name, frame in split_frames(record, part, protocol):
        rows[name] += frame.height
    assert statistics(record, protocol).instances == rows["train"]


def test_splits_in_many_pieces_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*BLOCK, *[("u9", f"j{n}", n) for n in range(40)]]
    protocol = Protocol("every-prefix", k_core=1)
    whole = splits_of(rows, protocol)
    monkeypatch.setattr(instances, "CHUNK", 7)
    assert splits_of(rows, protocol) == whole


def test_ties_in_time_keep_the_order_of_the_file() -> None:
    rows = [("u0", item, 7) for item in ("i3", "i1", "i4", "i2")] + BLOCK[4:]
    train = splits_of(rows, Protocol(k_core=1))["test"][0]
    assert (train["item_history"], train["item_id"]) == ("i3^i1^i4", "i2")


def test_a_history_is_cut_to_its_newest() -> None:
    rows = [("u0", f"i{n % 4}", n) for n in range(9)] + BLOCK[4:]
    test = splits_of(rows, Protocol(k_core=1, max_len=3))["test"][0]
    assert test["item_history"] == "i1^i2^i3"  # of 0 1 2 3 0 1 2 3, before the ninth


def test_a_repeated_item_counts_each_time_and_stays() -> None:
    rows = [(user, item, n) for user, item in (("u0", "i1"), ("v", "i2")) for n in range(4)]
    test = splits_of(rows, Protocol(k_core=4))["test"][0]
    assert (test["item_history"], test["item_id"], test["label"]) == ("i1^i1^i1", "i1", 1)


def test_users_too_short_for_three_targets_are_left_out_and_counted() -> None:
    record = filter_log(log_of([*BLOCK, ("u7", "i0", 0), ("u7", "i1", 1)]), 1)
    assert record.short_users == 1
    assert "u7" not in record.users.to_list()


def test_a_user_who_touched_every_item_is_named() -> None:
    rows = [*BLOCK, ("u0", "i0", 9)]
    with pytest.raises(InputError, match=r"'u0' has touched all 5 items.*no negative exists"):
        splits_of(rows, Protocol(k_core=1))


def test_what_was_touched_without_interaction_is_no_negative() -> None:
    log = log_of([*BLOCK, *[("v", "i5", n) for n in range(4)]])
    touch = {"user_id": ["u0"], "item_id": ["i0"], "time": [3], INTERACTS: [False]}
    log.add(pl.DataFrame(touch))
    record = filter_log(log, 1)
    assert int(record.item_counts.sum()) == len(BLOCK) + 4
    (part,) = record.parts()
    for _, frame in split_frames(record, part, Protocol(k_core=1, num_negatives=50)):
        # u0 interacted with i1 to i4 and touched i0, so that only i5 is left
        assert set(frame.filter(user_id="u0", label=0)["item_id"]) == {"i5"}


def test_popular_items_are_drawn_as_often_as_they_occur() -> None:
    # v has touched only "own"; a occurs 3 times as often as b
    rows = [("v", "own", n) for n in range(4)]
    rows += [("w", item, n) for n, item in enumerate("aaab" * 10)]
    rows += [("x", "own", n) for n in range(4)]  # or w would have nothing left but "own"
    for negatives, share in (("popularity", 3 / 4), ("uniform", 1 / 2)):
        protocol = Protocol(k_core=1, negatives=negatives, num_negatives=4000)
        train = splits_of(rows, protocol)["train"]
        drawn = Counter(r["item_id"] for r in train if r["user_id"] == "v" and r["label"] == 0)
        deviation = (share * (1 - share) / 4000) ** 0.5
        assert abs(drawn["a"] / 4000 - share) < 4 * deviation


def test_a_caret_in_an_id_keeps_tokens_apart() -> None:
    items = ["a^b", "a", "b", "a%5Eb", "50%"]
    rows = [("u0", item, n) for n, item in enumerate(items)]
    rows += [("u1", f"other{n % 4}", n) for n in range(8)]
    test = splits_of(rows, Protocol(k_core=1))["test"][0]
    assert test["item_history"].split("^") == ["a%5Eb", "a", "b", "a%255Eb"]
    assert test["item_id"] == "50%25"


def test_an_items_newest_attribute_holds_for_all_its_rows() -> None:
    log = CodedLog(["cate_id"])
    frame = pl.DataFrame(BLOCK, schema=SCHEMA, orient="row")
    log.add(frame.with_columns(cate_id=pl.lit("old")))
    log.add(
        pl.DataFrame(
            {"user_id": ["u0"] * 3, "item_id": ["i1", "i2", "i3"], "time": [1, 0, 9]}
        ).with_columns(cate_id=pl.Series(["tie, later line", "older time", None]))
    )
    record = filter_log(log, 1)
    values = dict(record.items.select("item_id", "cate_id").rows())
    assert values["i1"] == "tie, later line"
    assert values["i2"] == "old"
    assert values["i3"] == "unknown"


def test_features_count_users_items_and_attribute_values() -> None:
    record = filter_log(log_of(BLOCK, attribute=True), 1)
    # 5 users, 5 items, the 5 categories "ci0" .. "ci4"; user, item, category, and two histories
    assert statistics(record, Protocol()) == (5, 5, 10, 15, 5)


def test_differences_from_the_paper_are_an_error_on_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = filter_log(log_of(BLOCK), 1)
    ours = statistics(record, Protocol())
    report("log", record, Protocol(), ours, expect_paper=True)
    report("log", record, Protocol(), ours._replace(items=7))
    assert "-2" in capsys.readouterr().out
    with pytest.raises(InputError, match="differs from the paper's Table II"):
        report("log", record, Protocol(), ours._replace(items=7), expect_paper=True)
    with pytest.raises(InputError, match="has no row for log"):
        report("log", record, Protocol(), None, expect_paper=True)


def write(rows: list[Row], output: Path, shards: int = 1, seed: int = 1) -> dict[str, bytes]:
    protocol = Protocol(k_core=1, seed=seed)
    record = filter_log(log_of(rows, attribute=True, shards=shards), 1)
    folder = splits_folder(output, [])
    with folder.work():
        write_splits(record, protocol, folder, {}, shards)
    files = sorted(path for path in output.rglob("*") if path.is_file())
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    rows = [*BLOCK, *[("u9", f"j{n}", n) for n in range(40)]]
    first = write(rows, tmp_path / "a")
    assert set(first) == {
        *(f"{name}.parquet" for name in ("items", "test", "train", "valid")),
        "statistics.json",
    }
    assert write(rows, tmp_path / "b") == first
    assert write(rows, tmp_path / "c", seed=2)["train.parquet"] != first["train.parquet"]


def test_another_number_of_shards_leaves_nothing_of_the_last_build(tmp_path: Path) -> None:
    write(BLOCK, tmp_path)
    sharded = write(BLOCK, tmp_path, shards=2)
    assert {name for name in sharded if name.startswith("train")} == {
        "train/part-000000.parquet",
        "train/part-000001.parquet",
    }
    assert "train.parquet" in write(BLOCK, tmp_path)
    assert not (tmp_path / "train").exists()


def test_a_full_disk_leaves_the_last_build_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(BLOCK, tmp_path)
    real = pq.ParquetWriter

    def fill_up(file: IO[bytes], *arguments: object, **options: object) -> pq.ParquetWriter:
        place = "/dev/full" if Path(file.name).name == "valid.parquet" else file
        return real(place, *arguments, **options)

    monkeypatch.setattr(instances.pq, "ParquetWriter", fill_up)
    with pytest.raises(OSError, match=r"No space left on device.*valid\.parquet"):
        write([*BLOCK, ("u9", "i1", 1)], tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after == before


@pytest.mark.parametrize(
    "setting", [{"k_core": 0}, {"max_len": 0}, {"num_negatives": 0}, {"seed": -1}]
)
def test_a_setting_out_of_range_is_named(setting: dict[str, int]) -> None:
    option = "--" + next(iter(setting)).replace("_", "-")
    with pytest.raises(InputError, match=option):
        Protocol(**setting)


def test_a_wrong_kind_of_negatives_is_answered_with_the_closest() -> None:
    with pytest.raises(InputError, match="'popularity'"):
        Protocol(negatives="popular")


@pytest.mark.slow
def test_fuxictr_and_ray_read_the_parts_of_a_sharded_build(tmp_path: Path) -> None:
    import ray
    from fuxictr.preprocess import FeatureProcessor

    write(BLOCK, tmp_path, shards=3)
    rows = [
        row
        for path in sorted((tmp_path / "train").iterdir())
        for row in pl.read_parquet(path).rows()
    ]
    lazy = FeatureProcessor.read_data(None, str(tmp_path / "train"), data_format="parquet")
    assert lazy.collect().rows() == rows
    ray.init(num_cpus=1, include_dashboard=False)
    try:
        read = ray.data.read_parquet(str(tmp_path / "train")).take_all()
    finally:
        ray.shutdown()
    assert sorted(tuple(row.values()) for row in read) == sorted(rows)
