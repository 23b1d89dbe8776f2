"""The benchmarks that need no data run; how fast is for them to say."""

from __future__ import annotations

import dataclasses
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from fuxictr_miss.config.recipes import read_recipe
from fuxictr_miss.config.settings import read_settings
from fuxictr_miss.methods import base
from fuxictr_miss.methods.miss import MISSSettings
from fuxictr_miss.paper.results import Results
from fuxictr_miss.tuning.space import read_space

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_searches_in_the_results_of_a_grid_print_their_table(tmp_path, monkeypatch, capsys):
    file = "config/tuner_config/DIN_MISS_demo_grid.yaml"
    space, results = read_space(Path(file)), Results(tmp_path)
    for number, settings in enumerate(space.combinations()):
        results.add({**space.trial(number, settings).row(), "status": "ok", "valid_AUC": number})
    options = ["--config", file, "--results", str(tmp_path), "--trials", "3", "--searches", "2"]
    monkeypatch.setattr(sys, "argv", ["tuning.py", *options])
    runpy.run_path(str(FOLDER / "tuning.py"), run_name="__main__")
    assert len([line for line in capsys.readouterr().out.splitlines() if line[0] == "|"]) == 4


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        ("long_histories.py --rounds 1", 2),
        ("large_tables.py --steps 1", 4),
        ("step.py --rows 2000 --every 2", 2),
        (
            "parts.py --made-up interleaved --part windows --weights 0.3 --set epochs=1 "
            "--set ssl_pretrain_epochs=1 --set ssl_thaw=False",
            4,
        ),
    ],
)
def test_a_benchmark_prints_its_table(command, rows, monkeypatch, capsys):
    name, *options = command.split()
    monkeypatch.setattr(sys, "argv", [name, *options])
    monkeypatch.setattr(base, "_methods", dict(base._methods))  # some register their own
    monkeypatch.syspath_prepend(FOLDER)
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + rows
    assert {line.count("|") for line in table} == {table[0].count("|")}


@pytest.mark.parametrize(
    "command",
    ["parts.py --dataset nowhere", "whole_run.py --model DIN --dataset nowhere",
     "start_up.py --expid DIN_nowhere"],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence(command):
    name, *options = command.split()
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *options],
        cwd=FOLDER.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*MISS_nowhere.*\n|error: .*DIN_nowhere.*\n", done.stderr)


def test_every_part_of_the_paper_differs_from_the_recipe(monkeypatch):
    monkeypatch.setattr(base, "_methods", dict(base._methods))  # it registers its own
    monkeypatch.syspath_prepend(FOLDER)
    parts = runpy.run_path(str(FOLDER / "parts.py"))["PARTS"]
    recipe = read_settings(MISSSettings, "miss_", read_recipe("recommended"))
    for name, keys in parts.items():
        assert (dataclasses.replace(recipe, **keys) == recipe) == (name == "more"), name
