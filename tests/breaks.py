"""Break the code on purpose, one small break at a time, and see that a test fails.

    python tests/breaks.py           all of breaks.yaml
    python tests/breaks.py resume    those with one of these words in their sentence or file

Each break is made in a copy of the repository, never in the repository itself. Each test runs in a
fork of this process, which has imported the libraries already. The exit code is 1 if a test passes
on broken code.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "pandas", "scipy.sparse.linalg", "sklearn.metrics", "pyarrow.parquet",
             "fuxictr.features", "fuxictr.preprocess", "fuxictr.pytorch.models")  # fmt: skip
SECONDS = 600  # for one test


class Break(NamedTuple):
    """A text to replace, and the test that has to see it."""

    invariant: str
    sentence: str  # what is wrong then
    file: str
    old: str
    new: str
    test: str


def read_breaks() -> list[Break]:
    """All breaks of breaks.yaml, in its order."""
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return [Break(name, *each.values()) for name, some in yaml.safe_load(text).items()
            for each in some]  # fmt: skip


def broken(text: str, one: Break) -> str:
    """The text of a file with a break in it; it is still valid Python."""
    assert text.count(one.old) == 1, f"{one.file} must have this text once: {one.old}"
    text = text.replace(one.old, one.new)
    if one.file.endswith(".py"):
        compile(text, one.file, "exec")
    return text


def sees(one: Break, copy: Path) -> bool:
    """Whether the test fails on a copy of the repository with this break."""
    file = copy / one.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(broken(whole, one), encoding="utf-8")
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        os._exit(pytest.main(["-x", "-p", "no:cacheprovider", one.test]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    file.write_text(whole, encoding="utf-8")
    return code == pytest.ExitCode.TESTS_FAILED


def main() -> int:
    words = sys.argv[1:] or [""]
    breaks = [b for b in read_breaks() if any(w in f"{b.sentence} {b.file}" for w in words)]
    for name in LIBRARIES:
        importlib.import_module(name)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    unseen = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for name in filter(None, names.split("\0")):
            with contextlib.suppress(FileNotFoundError):  # removed, but not from the index
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        os.chdir(copy)
        path = [str(copy), str(copy / "data_preprocess")]
        sys.path[:] = [*path, *(each for each in sys.path if Path(each).name != "tests")]
        os.environ.update(PYTHONPATH=os.pathsep.join(path), PYTHONDONTWRITEBYTECODE="1")
        sys.dont_write_bytecode = True
        for number, one in enumerate(breaks, 1):
            seen = sees(one, copy)
            unseen += not seen
            print(f"{number}/{len(breaks)} {'seen' if seen else 'NOT SEEN'}: {one.sentence} "
                  f"({one.test.partition('::')[2]})", flush=True)  # fmt: skip
    return unseen > 0


if __name__ == "__main__":
    sys.exit(main())
