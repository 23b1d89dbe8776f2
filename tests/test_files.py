"""A file is whole or what it was; nothing is left beside it."""

from __future__ import annotations

import os

import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.files import atomic_write, remove_unfinished, writable


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_is_there_whole_and_alone(tmp_path):
    path = tmp_path / "new folder [1]" / "a.txt"
    with atomic_write(path) as unfinished:
        assert unfinished.suffix == ".txt"
        unfinished.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["a.txt"]


def test_what_killed_processes_left_of_a_file_goes_and_nothing_else(tmp_path):
    kept = [".a.b.12.tmp.state", ".a.tmp.state", "a.12.tmp.state", ".a.12.state", "a.state"]
    for name in [*kept, ".a.12.tmp.state", ".a.345.tmp.model"]:
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path / "a.lock")
    assert names(tmp_path) == sorted(kept)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_what_was_there_stays_if_writing_ends_early(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half() -> None:
        with atomic_write(path) as unfinished:
            unfinished.write_text("hal")
            raise error("no")

    with pytest.raises(InputError if error is OSError else error):
        write_half()
    assert path.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_a_sentence_with_the_path(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "a.txt"
    with (
        pytest.raises(InputError, match=r"Cannot write .*a\.txt \(No space left on device\)"),
        atomic_write(path) as unfinished,
    ):
        unfinished.write_text("whole")
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"), atomic_write(tmp_path / "file" / "a.txt"):
        pass


def test_a_link_keeps_pointing_at_its_file(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("before")
    link = tmp_path / "a.txt"
    link.symlink_to(tmp_path / "real" / "a.txt")
    with atomic_write(link) as unfinished:
        unfinished.write_text("after")
    assert link.is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "after"


def test_a_folder_is_writable_where_the_nearest_that_exists_is(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert writable(tmp_path)
    assert writable(tmp_path / "not" / "yet")
    assert not writable(tmp_path / "file")
    assert not writable(tmp_path / "file" / "below")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    assert not writable(tmp_path / "not" / "yet")
