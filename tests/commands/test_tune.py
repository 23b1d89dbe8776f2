"""The tuner: its YAML is checked before anything runs, and a failed run is not hidden."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import yaml

from fuxictr_miss.commands import tune as tuner_command
from fuxictr_miss.config.yaml_files import read_values
from fuxictr_miss.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"base_config": "con [1]", "base_expid": "DIN_tiny", "dataset_id": "tiny",
        "tuner_space": {"epochs": [1, 2], "learning_rate": [1e-2, 1e-3]}}  # fmt: skip


@pytest.fixture
def tuner():
    return tuner_command


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with a config of DIN_tiny on a data set whose files are not there."""
    base = {"model_root": "./checkpoints/", "metrics": ["AUC"], "optimizer": "adam", "seed": 1,
            "loss": "bce", "batch_size": 8, "epochs": 1, "verbose": 0,
            "learning_rate": 0.1}  # fmt: skip
    data = {"data_root": "./data/", "data_format": "csv", "train_data": "gone.csv",
            "feature_cols": [{"name": "a", "type": "categorical", "dtype": "str"}],
            "label_col": {"name": "label", "dtype": "float"}}  # fmt: skip
    config = tmp_path / "con [1]"
    config.mkdir()
    models = {"Base": base, "DIN_tiny": {"model": "DIN", "dataset_id": "tiny"}}
    (config / "model_config.yaml").write_text(yaml.safe_dump(models))
    datasets = {"tiny": data, "other": {**data, "train_data": "gone_too.csv"}}
    (config / "dataset_config.yaml").write_text(yaml.safe_dump(datasets))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tune(tuner, content, *arguments: str) -> list[list[str]]:
    """The commands that would be run."""
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    Path("my space.yaml").write_text(text)
    commands = []

    def run(command, **_):
        commands.append(command)
        return mock.Mock(returncode=0)

    with (
        mock.patch("sys.argv", ["run_param_tuner.py", "--config", "my space.yaml", *arguments]),
        mock.patch.object(tuner.subprocess, "run", run),
    ):
        tuner.main()
    return commands


def test_every_combination_is_run_with_this_python_in_a_folder_with_any_name(tuner, place):
    commands = tune(tuner, GOOD, "--gpu", "-1", "-1")
    folder = Path("checkpoints/tuner/my space")
    trials = read_values(folder / "model_config.yaml")
    assert sorted(command[command.index("--expid") + 1] for command in commands) == sorted(trials)
    assert {(each["epochs"], each["learning_rate"]) for each in trials.values()} == {
        (1, 0.01), (1, 0.001), (2, 0.01), (2, 0.001)
    }  # fmt: skip
    for command in commands:
        assert command[0] == sys.executable
        assert command[command.index("--config") + 1] == str(folder)
    assert set(read_values(folder / "dataset_config.yaml")) == {
        each["dataset_id"] for each in trials.values()
    }


def test_a_second_start_writes_the_same_and_a_tag_chooses(tuner, place):
    first = tune(tuner, GOOD)
    assert tune(tuner, GOOD) == first
    (command,) = tune(tuner, GOOD, "--tag", "_002_")
    assert command in first
    with pytest.raises(InputError, match="Unknown tag 'none'"):
        tune(tuner, GOOD, "--tag", "none")


def test_another_data_set_than_the_expids_may_be_named(tuner, place):
    tune(tuner, {**GOOD, "dataset_id": "other"})
    (data,) = read_values(Path("checkpoints/tuner/my space/dataset_config.yaml")).values()
    assert data["train_data"] == "gone_too.csv"


def test_a_data_set_beside_the_space_is_not_read_and_that_is_said(tuner, place, capsys):
    assert tune(tuner, {**GOOD, "tiny": {"train_data": "x.csv"}}) == tune(tuner, GOOD)
    assert "tiny is ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_config": None}, "my space.yaml: base_config is missing"),
        ({"base_expid": None}, "base_expid is missing"),
        ({"tuner_space": None}, "tuner_space is missing"),
        ({"tuner_space": {}}, "tuner_space must be lines"),
        ({"tuner_space": [1]}, "tuner_space must be lines"),
        ({"tuner_space": "epochs"}, "tuner_space must be lines"),
        ({"tuner_space": {"epochs": []}}, "epochs in tuner_space has no value"),
        ({"tuner_space": {"epoch": [1]}}, "Did you mean 'epochs'"),
        ({"tuner_space": {"epochs": [1, 0]}}, "my space.yaml, tuner_space: epochs must be"),
        ({"tuner_space": {"optimizer": ["adam", "adamm"]}}, "Did you mean 'adam'"),
        ({"tuner_space": {"learning_rate": ["high"]}}, "learning_rate must be"),
        ({"tuner_spase": {"epochs": [1]}}, "Unknown key .*'tuner_spase'. Did you mean 'tuner_spac"),
        ({"base_config": "gone"}, "'gone': set the folder"),
        ({"base_config": ["a"]}, "base_config must be a text"),
        ({"base_expid": "DIN_tinny"}, "Did you mean 'DIN_tiny'"),
        ({"dataset_id": "tinny"}, "Did you mean 'tiny'"),
    ],
)
def test_a_bad_tuner_yaml_is_one_sentence_and_writes_nothing(tuner, place, change, words):
    content = {**GOOD, **change}
    with pytest.raises(InputError, match=words) as error:
        tune(tuner, {k: v for k, v in content.items() if v is not None})
    assert "\n" not in str(error.value)
    assert not (place / "checkpoints").exists()


@pytest.mark.parametrize("text", ["", "- a", "text", "a: [", "tuner_space: {a: 1, a: 2}"])
def test_a_file_that_is_no_tuner_yaml_is_one_sentence(tuner, place, text):
    with pytest.raises(InputError, match=r"my space\.yaml"):
        tune(tuner, text)


@pytest.mark.parametrize("name", ["model_config.yaml", "dataset_config.yaml"])
def test_a_strangers_file_inside_is_refused_and_those_beside_and_above_stay(tuner, place, name):
    folder = place / "checkpoints" / "tuner" / "my space"
    folder.mkdir(parents=True)
    others = [folder / "notes.txt", folder.parent / "my space.yaml", folder.parent / "a.yaml",
              place / "checkpoints" / "mine", place / "other.csv"]  # fmt: skip
    for path in others:
        path.write_text("somebody's")
    tune(tuner, GOOD)
    assert {path.read_text() for path in others} == {"somebody's"}
    (folder / name).write_text("mine: {model: DIN}\n")
    with pytest.raises(InputError, match=rf"{name} was not written by run_param_tuner\.py"):
        tune(tuner, GOOD)
    assert (folder / name).read_text() == "mine: {model: DIN}\n"


def test_a_strangers_table_is_refused_before_the_first_run(tuner, place):
    (place / "my space.csv").write_text("user,item\n")
    with pytest.raises(InputError, match="no table of run_expid"):
        tune(tuner, GOOD)


def test_a_run_that_fails_fails_the_command(place):
    Path("space.yaml").write_text(yaml.safe_dump({**GOOD, "tuner_space": {"epochs": 1}}))
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_param_tuner.py"), "--config", "space.yaml"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 of 1 runs failed: DIN_tiny_001_" in done.stderr
    assert "gone.csv" in done.stderr
    assert "Traceback" not in done.stderr
