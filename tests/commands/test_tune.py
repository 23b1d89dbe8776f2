"""The tuner's command: what it refuses before anything runs, and how it ends."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import yaml

from fuxictr_miss.commands import tune as command
from fuxictr_miss.config.yaml_files import read_entries
from fuxictr_miss.errors import InputError
from fuxictr_miss.paper.results import Results

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "run_param_tuner.py"
SPACE = {"base_config": "config", "base_expid": "DIN_small"}
BREAKING = """
import os

from model_zoo.DIN import DIN


class Breaking(DIN):
    def __init__(self, feature_map, **params):
        if params["learning_rate"] == 0.05:
            os._exit(1)
        super().__init__(feature_map, **params)
        if params["learning_rate"] == 0.06:
            raise RuntimeError("no memory")
"""


def tune(name: str, *arguments: str) -> None:
    """Run the command in this process, where torch is loaded already."""
    with mock.patch("sys.argv", [str(SCRIPT), "--config", name, *arguments]):
        command.main()


def write(name: str, space: dict, **keys: str) -> None:
    Path(name).write_text(yaml.safe_dump({**SPACE, **keys, "tuner_space": space}))


@pytest.fixture
def breaking(place: Path) -> Path:
    """A model whose worker dies with learning_rate 0.05; 0.06 raises."""
    file = place / "config" / "model_config.yaml"
    models = yaml.safe_load(file.read_text())
    models["Breaking_small"] = {**models["Killer_small"], "model": "Breaking"}
    file.write_text(yaml.safe_dump(models))
    (place / "zoo" / "Breaking.py").write_text(BREAKING)
    return place


def test_failed_trials_stop_no_other_and_the_best_is_trained_again_as_printed(breaking, capsys):
    write("my space.yaml", {"learning_rate": [0.05, 0.06, 0.01, 1e30]}, base_expid="Breaking_small")
    with pytest.raises(SystemExit, match=r"3 of 4 trials have no result\."):
        tune("my space.yaml", "--gpu", "-1", "-1")
    folder = Path("checkpoints/tuner/my space")
    before = Results(folder).rows
    outcomes = {row["params"]["learning_rate"]: row["status"] for row in before.values()}
    assert outcomes == {0.05: "failed", 0.06: "failed", 0.01: "ok", 1e30: "diverged"}
    assert not [column for row in before.values() for column in row if column.startswith("test_")]
    said = capsys.readouterr().out
    for words in ("failed: Breaking does not run with this config on this data: RuntimeError: no m",
                  "failed: the worker died", "diverged: "):  # fmt: skip
        assert said.count(words) == 1

    # every trial is an expid, and nothing of the test split was looked at
    assert len(read_entries(folder / "model_config.yaml")) == 4
    logs = "".join(path.read_text() for path in folder.rglob("*.log"))
    assert "valid: AUC" in logs
    assert "test: AUC" not in logs
    table = pd.read_csv(folder / "ranking.csv")
    assert len(table.columns) <= 10
    assert list(table["rank"])[:1] == [1]
    assert table["rank"].isna().sum() == 3

    # the command at the end trains the best as it was, and tests it
    line = said.splitlines()[-1]
    assert shlex.split(line)[:2] == [sys.executable, str(ROOT / "run_expid.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True, env=env)
    (best,) = [row for row in before.values() if row["status"] == "ok"]
    assert f"[valid] AUC: {best['valid_AUC']:.6f}" in done.stdout
    assert "[test] AUC: " in done.stdout


def test_if_all_trials_fail_there_is_no_best_one(place, monkeypatch, capsys):
    def run_each(trials, number, results, *_):
        for trial in trials:
            results.add({**trial.row(), "status": "failed", "reason": "Out of memory."})
            yield results.rows[trial.key]

    monkeypatch.setattr("fuxictr_miss.tuning.search.run_each", run_each)
    write("space.yaml", {"epochs": [1, 2, 3, 4]})
    for arguments in ([], ["--search", "tpe", "--trials", "4"]):
        with pytest.raises(SystemExit, match=r"4 of 4 trials have no result\."):
            tune("space.yaml", *arguments)
        said = capsys.readouterr().out
        assert said.count("failed: Out of memory.") == 4
        assert "Best" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trials", "3"], "--trials goes with --search random or tpe"),
        (["--search", "tpe"], "--search tpe needs --trials N"),
        (["--search", "random", "--trials", "0"], "--search random needs --trials N"),
        (["--search", "tpe", "--trials", "3", "--tag", "001"], "--tag chooses trials of a grid"),
        (["--gpu", "-2"], "--gpu: gpu must be"),
        (["--gpu", "99"], "GPU 99 does not exist"),
        (["--tag", "none"], "Unknown tag 'none'.*DIN_small_001_"),
    ],
)
def test_options_that_cannot_be_followed_are_one_sentence(place, arguments, words):
    write("space.yaml", {"epochs": [1, 2]})
    with pytest.raises(InputError, match=words) as error:
        tune("space.yaml", *arguments)
    assert "\n" not in str(error.value)
    assert not list(place.rglob("*_config.yaml"))[2:]  # beside config/'s two


def test_a_table_to_which_the_last_command_could_not_add_is_refused_first(place):
    write("space.yaml", {"epochs": [1, 2]})
    (place / "space.csv").write_text("user,item\n")
    with pytest.raises(InputError, match="no table of run_expid"):
        tune("space.yaml")


def test_data_that_is_not_there_fails_before_any_trial(place):
    file = place / "config" / "dataset_config.yaml"
    data = yaml.safe_load(file.read_text())
    data["small"]["train_data"] = "gone.parquet"
    file.write_text(yaml.safe_dump(data))
    write("space.yaml", {"epochs": [1, 2]})
    with (
        mock.patch("ray.init", side_effect=AssertionError),
        pytest.raises(InputError, match=r"gone\.parquet"),
    ):
        tune("space.yaml")


def test_help_does_not_wait_for_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT), "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "--search tpe --trials 50" in done.stdout
    assert " torch" not in done.stderr
