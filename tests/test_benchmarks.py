"""The benchmarks that need no data run; how fast is for them to say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        ("long_histories.py --rounds 1", 2),
        ("large_tables.py --steps 1", 4),
        ("step.py --rows 2000 --every 2", 2),
    ],
)
def test_a_benchmark_prints_its_table(command, rows, monkeypatch, capsys):
    name, *options = command.split()
    monkeypatch.setattr(sys, "argv", [name, *options])
    monkeypatch.syspath_prepend(FOLDER)
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + rows
    assert {line.count("|") for line in table} == {table[0].count("|")}
