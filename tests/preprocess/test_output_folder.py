"""Nothing is replaced but what an earlier build wrote, whenever a run fails or is killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from test_interactions import HEADER, LINES, command

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess import alipay, amazon, interactions, output_folder
from fuxictr_miss.preprocess.output_folder import OutputFolder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def folder_of(path: Path, *inputs: Path) -> OutputFolder:
    return OutputFolder(path, ("a", "b", "b.txt"), "stamp.json", frozenset({"old"}), inputs)


def build(path: Path, **files: str) -> None:
    """Write files; `__` in a name is a folder's end."""
    output = folder_of(path)
    with output.work():
        new = output.new()
        for name, text in files.items():
            place = new / name.replace("__", "/")
            place.parent.mkdir(exist_ok=True)
            place.write_text(text)
        output.replace({"about": 1})


def test_a_build_replaces_the_last_one_whole(tmp_path: Path) -> None:
    build(tmp_path, a="1", b__x="2", b__y="3")
    build(tmp_path, a="4", b__y="5")
    assert set(contents(tmp_path)) == {"a", "b/y", "stamp.json"}
    assert (tmp_path / "b/y").read_text() == "5"
    build(tmp_path, a="6")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "stamp.json"}
    stamp = json.loads((tmp_path / "stamp.json").read_text())
    assert stamp["about"] == 1
    assert stamp["files"]["a"]["bytes"] == 1


def test_an_address_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="s3:/bucket/splits cannot be written"):
        folder_of(Path("s3://bucket/splits")).check()
    build(Path("results:v2"), a="1")
    assert contents(tmp_path / "results:v2")["a"] == b"1"


def test_what_lies_beside_the_results_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    (tmp_path / "c").mkdir()
    build(tmp_path, a="1")
    build(tmp_path, b__x="1")
    assert (tmp_path / "mine.csv").read_text() == "mine"
    assert (tmp_path / "c").is_dir()


STRANGERS: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: (path / "a").write_text("mine"),
    "another name of a result": lambda path: (path / "b.txt").write_text("mine"),
    "a file in a folder": lambda path: ((path / "b").mkdir(), (path / "b/mine").write_text("m")),
    "a file deep in a folder": lambda path: (
        (path / "b/c/d").mkdir(parents=True),
        (path / "b/c/d/mine").write_text("m"),
    ),
    "a link": lambda path: (path / "a").symlink_to("/etc/hostname"),
    "a broken link": lambda path: (path / "a").symlink_to("nowhere"),
    "a link to a folder": lambda path: (path / "b").symlink_to("/etc"),
    "a stamp": lambda path: (path / "stamp.json").write_text('{"mine": 1}'),
    "a stamp with other files": lambda path: (path / "stamp.json").write_text(
        '{"files": {"a": 1}}'
    ),
    "a stamp that is no JSON": lambda path: (path / "stamp.json").write_text("mine"),
    "a folder for a stamp": lambda path: (path / "stamp.json").mkdir(),
    "a working folder": lambda path: (
        (path / "unfinished.tmp").mkdir(),
        (path / "unfinished.tmp/mine").write_text("m"),
    ),
    "a file for a working folder": lambda path: (path / "unfinished.tmp").write_text("mine"),
    "a link for a working folder": lambda path: (path / "unfinished.tmp").symlink_to("/etc"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_refused_before_anything_is_written(tmp_path: Path, stranger: str) -> None:
    STRANGERS[stranger](tmp_path)
    before = contents(tmp_path), sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(InputError, match=r"would be replaced.*another --output"),
        folder_of(tmp_path).work(),
    ):
        pytest.fail("went on")
    assert (contents(tmp_path), sorted(tmp_path.rglob("*"))) == before


def test_a_result_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    build(tmp_path, a="1", b__x="2")
    for name in ("a", "b/x"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text("9")
        with pytest.raises(InputError, match=f"{name} would be replaced"):
            build(tmp_path, a="1")
        (tmp_path / name).write_text(text)
    (tmp_path / "b/more").write_text("mine")
    with pytest.raises(InputError, match="b/more would be replaced"):
        build(tmp_path, a="1")


def test_a_stranger_that_appears_during_the_run_stays(tmp_path: Path) -> None:
    output = folder_of(tmp_path)
    with output.work():
        (output.new() / "a").write_text("new")
        (tmp_path / "a").write_text("mine")
        with pytest.raises(InputError, match="a would be replaced"):
            output.replace({})
    assert contents(tmp_path) == {"a": b"mine"}


def test_a_stamp_of_an_earlier_version_stands_for_the_results(tmp_path: Path) -> None:
    (tmp_path / "stamp.json").write_text('{"old": 1}')
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/part-000000.parquet").write_text("1")
    build(tmp_path, a="2")
    assert set(contents(tmp_path)) == {"a", "stamp.json"}
    (tmp_path / "stamp.json").write_text('{"old": 1}')
    (tmp_path / "b").mkdir()
    (tmp_path / "b/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt would be replaced"):
        build(tmp_path, a="3")


@pytest.mark.parametrize("name", ["a", "b/deep/log.csv", "unfinished.tmp/log.csv", "stamp.json"])
def test_an_input_inside_what_is_replaced_is_refused(tmp_path: Path, name: str) -> None:
    build(tmp_path, a="1")
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text("log")
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    for source in (path, link):
        with pytest.raises(InputError, match="is an input of this run"):
            folder_of(tmp_path, source).check()


def fail_in(output: OutputFolder) -> None:
    with suppress(ZeroDivisionError), output.work() as work:
        (work / "spilled").write_text("x")
        raise ZeroDivisionError


def test_a_run_that_fails_leaves_nothing_and_keeps_the_last_build(tmp_path: Path) -> None:
    fail_in(folder_of(tmp_path / "new/folder"))
    assert list(tmp_path.iterdir()) == []
    build(tmp_path, a="1")
    before = contents(tmp_path)
    fail_in(folder_of(tmp_path))
    assert contents(tmp_path) == before


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with (
        folder_of(tmp_path).work(),
        pytest.raises(InputError, match="Another run writes"),
        folder_of(tmp_path).work(),
    ):
        pytest.fail("went on")
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    pass


def test_killed_at_any_step_the_next_run_finds_one_whole_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the disk is the last one once; then a run starts and fails."""
    first = {"a": "1", "b__x": "2", "b__z": "3"}
    second = {"a": "4", "b.txt": "5", "b__x": "6"}
    build(tmp_path / "first", **first)
    build(tmp_path / "second", **second)
    whole = [contents(tmp_path / "first"), contents(tmp_path / "second")]
    ended = set()
    for steps in range(200):
        output = tmp_path / f"out{steps}"
        build(output, **first)
        left = [steps]

        def dying(call: Callable, left: list[int] = left) -> Callable:
            def step(*args: object, **options: object) -> object:
                if left[0] <= 0:
                    raise Killed
                left[0] -= 1
                return call(*args, **options)

            return step

        with monkeypatch.context() as patched:
            for module, name in (
                (os, "replace"),
                (Path, "unlink"),
                (Path, "mkdir"),
                (Path, "rmdir"),
                (Path, "write_text"),
                (shutil, "rmtree"),
            ):
                patched.setattr(module, name, dying(getattr(module, name)))
            try:
                build(output, **second)
                killed = False
            except Killed:
                killed = True
        fail_in(folder_of(output))
        assert contents(output) in whole, steps
        ended.add(whole.index(contents(output)))
        if not killed:
            break
    assert not killed
    assert ended == {0, 1}


# --- the commands ------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "data/train/log.csv"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([HEADER, *LINES]))
    return path


def test_a_log_in_a_folder_called_train_is_not_deleted(log: Path, run) -> None:
    output = log.parent.parent
    before = contents(output)
    ended = run(interactions, *command(f"{log.parent}/*.csv", output))
    assert ended.code == 2
    assert "is an input of this run" in ended.err
    assert contents(output) == before


@pytest.mark.parametrize("place", ["beside", "inside", "above"])
def test_a_stranger_beside_inside_or_above_the_results_stays(
    log: Path, tmp_path: Path, run, place: str
) -> None:
    output = tmp_path / "out"
    stranger = {
        "beside": output / "notes.txt",
        "inside": output / "train/mine.parquet",
        "above": tmp_path / "train.parquet",
    }[place]
    stranger.parent.mkdir(parents=True, exist_ok=True)
    stranger.write_text("mine")
    ended = run(interactions, *command(log, output))
    assert ended.code == (2 if place == "inside" else 0), ended.err
    assert stranger.read_text() == "mine"


def test_another_build_replaces_ours_and_no_log_is_read_before_a_stranger_is_refused(
    log: Path, tmp_path: Path, run
) -> None:
    output = tmp_path / "out"
    for more in ([], ["--shards", 2], []):
        assert run(interactions, *command(log, output, *more)).code == 0
    (output / "valid.parquet").write_bytes(b"mine")
    log.write_text("broken")
    ended = run(interactions, *command(log, output))
    assert ended.code == 2
    assert "valid.parquet would be replaced" in ended.err


def test_the_other_commands_refuse_a_stranger_before_they_read(tmp_path: Path, run) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "train.parquet").write_bytes(b"mine")
    raw = tmp_path / "raw"
    raw.write_text("broken")
    for module, options in (
        (alipay, ["--log", raw]),
        (amazon, ["--dataset", "demo", "--reviews", raw, "--meta", raw]),
        (amazon, ["--dataset", "amazoncds", "--download", "http://127.0.0.1:9"]),
    ):
        ended = run(module, *options, "--output", output)
        assert ended.code == 2
        assert "train.parquet would be replaced" in ended.err
    assert contents(output) == {"train.parquet": b"mine"}


def test_a_leftover_of_a_killed_run_is_cleared_away(log: Path, tmp_path: Path, run) -> None:
    work = tmp_path / "out" / output_folder.WORK
    (work / "interactions-0").mkdir(parents=True)
    (work / "fuxictr_miss.lock").touch()
    assert run(interactions, *command(log, tmp_path / "out")).code == 0
    assert not work.exists()
