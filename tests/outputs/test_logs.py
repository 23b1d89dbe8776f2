"""The log of a run replaces no log of somebody else."""

from __future__ import annotations

import logging

import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.outputs.logs import forget_earlier, set_logger


@pytest.fixture
def run(tmp_path):
    """The log of a run."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield tmp_path / "data" / "run.log"
    for handler in set(logging.root.handlers) - set(handlers):
        handler.close()
    logging.root.handlers[:], logging.root.level = handlers, level
    logging.raiseExceptions = True


def test_a_second_run_replaces_its_own_log_and_a_resumed_one_goes_on(run):
    for resumed, expected in ((False, ["one"]), (False, ["two"]), (True, ["two", "three é"])):
        set_logger(run)
        logging.getLogger("x").info(expected[-1])
        if not resumed:
            forget_earlier(run)
        lines = run.read_text(encoding="utf-8").splitlines()
        assert [line.split(" INFO ")[1] for line in lines] == expected


def test_a_run_that_forgets_the_earlier_lines_goes_on_behind_its_own(run):
    log = logging.getLogger("x")
    set_logger(run)
    log.info("of an earlier run")
    set_logger(run)
    log.info("two")
    forget_earlier(run)
    log.info("three")
    lines = run.read_text(encoding="utf-8").splitlines()
    assert [line.split(" INFO ")[1] for line in lines] == ["two", "three"]


@pytest.mark.parametrize(
    "content", ["my notes\n", "2024-05-01 10:00:00,123 P77 INFO Params: {\n", "\x00\x01"]
)
def test_a_strangers_log_is_refused_and_stays(run, tmp_path, content):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "run.log"
    path.write_text(content)
    with pytest.raises(InputError, match=r"run\.log was not written by fuxictr_miss: move it"):
        set_logger(run)
    assert path.read_text() == content


def test_a_strangers_picture_is_refused_before_the_training(run, tmp_path):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "run.png"
    path.write_bytes(b"\x89PNG of somebody")
    with pytest.raises(InputError, match=r"run\.png was not written by fuxictr_miss"):
        set_logger(run)
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["run.png"]


def test_a_full_disk_takes_no_traceback_out_of_the_log(run, capsys, monkeypatch):
    set_logger(run)
    (handler,) = (each for each in logging.root.handlers if hasattr(each, "baseFilename"))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handler, "format", full)
    logging.getLogger("x").info("a line")
    assert "Traceback" not in capsys.readouterr().err
