"""A command ends with one sentence and an exit code, whatever the user or the machine did."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuxictr_miss.errors import InputError, explained, run_command, unknown

ROOT = Path(__file__).resolve().parents[1]


def end_of(error: BaseException, capsys) -> tuple[int, str]:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_command(main)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InputError("No."), "error: No.\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "error: /x: Permission denied."),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/x"), "error: /x: Is a directory."),
        (OSError(errno.ENAMETOOLONG, "File name too long", "y"), "error: y: File name too long."),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device."),
        (OSError(errno.EXDEV, "Cross-device", "a", None, "b"), "error: a and b: Cross-device."),
        (OSError("without a number"), "error: without a number."),
        (ConnectionResetError(104, "Connection reset by peer"), "error: Connection reset by peer."),
    ],
)
def test_what_the_user_or_the_machine_did_is_one_line_and_exit_code_2(error, sentence, capsys):
    code, said = end_of(error, capsys)
    assert code == 2
    assert said.startswith(sentence)
    assert said.count("\n") == 1


def test_ctrl_c_is_exit_code_130(capsys):
    assert end_of(KeyboardInterrupt(), capsys) == (130, "interrupted; finished files are whole\n")


def test_a_defect_of_ours_keeps_its_traceback():
    def main() -> None:
        raise KeyError("key")

    with pytest.raises(KeyError):
        run_command(main)


def python(program: str, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options}
    command = ["bash", "-o", "pipefail", "-c", program.replace("python", sys.executable)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_an_error_stands_behind_no_progress_bar():
    done = python("""python -c '
from tqdm import tqdm
from fuxictr_miss.errors import InputError, run_command
def main():
    for i in tqdm(range(9)):
        raise InputError("No.")
run_command(main)'""")
    assert done.returncode == 2
    assert done.stderr.endswith("\nerror: No.\n")


def test_a_reader_that_goes_away_is_no_traceback():
    done = python("""python -c '
from fuxictr_miss.errors import run_command
run_command(lambda: print("line\\n" * 100_000))' | head -1""")
    assert done.stdout == "line\n"
    assert done.returncode == 141
    assert not done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_of_a_service_are_no_error(closed, tmp_path):
    done = python(f"""python -c '
import sys
from tqdm import tqdm
from fuxictr_miss.errors import run_command
def main():
    for i in tqdm(range(9)):
        print(i)
    open(sys.argv[1], "w").write("done")
run_command(main)' {tmp_path / "out"} {closed}""")
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "done"


def test_a_terminal_without_utf_8_gets_every_line():
    done = python("""python -c '
from fuxictr_miss.errors import run_command
run_command(lambda: print("expid_\\u00e9"))'""", PYTHONIOENCODING="ascii")  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "expid_\\xe9\n")


def test_an_unknown_name_is_shown_with_the_closest_and_all_valid_ones():
    said = str(unknown("optimizer", "adamm", ["SGD", "Adam"]))
    assert said == "Unknown optimizer 'adamm'. Did you mean 'Adam'? Valid: Adam, SGD."
    assert str(unknown("seed", 3, ["a"])) == "Unknown seed 3. Valid: a."


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "No space left on device"),
        (ValueError("first  line\nsecond"), "first line"),
        (ValueError(), "ValueError"),
    ],
)
def test_an_error_of_a_library_becomes_one_sentence(error, reason):
    with (
        pytest.raises(InputError, match=rf"^a cannot be read \({reason}\): fetch it again\.$"),
        explained((OSError, ValueError), "a cannot be read", "fetch it again"),
    ):
        raise error


def test_a_sentence_of_ours_and_an_error_that_is_not_named_stay_as_they_are():
    for error in (InputError("No."), KeyError("a")):
        with pytest.raises(type(error)) as raised, explained(ValueError, "a", "b"):
            raise error
        assert raised.value is error
