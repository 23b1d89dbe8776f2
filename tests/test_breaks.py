"""The breaks of breaks.yaml fit the code as it is, and each is seen by its test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from breaks import ROOT, broken, read_breaks

BREAKS = read_breaks()


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: one.sentence)
def test_every_break_fits_the_code_and_names_a_test(one):
    broken((ROOT / one.file).read_text(encoding="utf-8"), one)
    file, _, name = one.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_invariant_has_three_breaks_or_more():
    names = [one.invariant for one in BREAKS]
    assert min(names.count(name) for name in names) >= 3
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    assert all(f"| {name} | {names.count(name)} |" in page for name in names)


@pytest.mark.slow
def test_every_break_is_seen_by_its_test():
    command = [sys.executable, str(Path(__file__).with_name("breaks.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, [line for line in done.stdout.splitlines() if "NOT" in line]
