"""One door to all commands, from any folder; a wrong word is answered with the right one."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fuxictr_miss import experiment, export
from fuxictr_miss.commands import benchmark
from fuxictr_miss.commands import export as export_command
from fuxictr_miss.commands.main import COMMANDS
from fuxictr_miss.commands.options import add_experiment_options
from fuxictr_miss.commands.preprocess import SOURCES
from fuxictr_miss.config import default_config, list_expids, load_config
from fuxictr_miss.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
DATA_KEYS = {
    *("data_root", "data_format", "train_data", "valid_data", "test_data"),
    *("feature_cols", "label_col"),
}


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fuxictr_miss", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_parameters_are_set_behind_one_option_or_several():
    parser = argparse.ArgumentParser()
    add_experiment_options(parser)
    assert parser.parse_args(["--set", "a=1", "b=2", "--set", "c=3"]).set == ["a=1", "b=2", "c=3"]


@pytest.mark.parametrize(
    "command", [[], *([name] for name in COMMANDS), *(["preprocess", name] for name in SOURCES)]
)
def test_every_command_has_help_without_torch(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fuxictr_miss", *command, "--help"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert " ".join(["usage: fuxictr-miss", *command]) in done.stdout
    assert "| torch" not in done.stderr


@pytest.mark.parametrize(
    ("command", "closest"), [(["trian"], "train"), (["preprocess", "amazn"], "amazon")]
)
def test_a_mistyped_command_is_answered_with_the_closest(command, closest, tmp_path):
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert f"Did you mean {closest!r}?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_shipped_config_is_found_from_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "DIN_MISS_demo" in list_expids(default_config())
    assert "DIN_MISS_demo" in run("train", "--list", cwd=tmp_path).stdout.split()
    (tmp_path / "config").mkdir()
    assert default_config() == "config"


def test_the_scripts_of_the_checkout_are_the_same_commands(tmp_path):
    for script in ("run_expid.py", "run_benchmark.py", "run_param_tuner.py",
                   *(f"data_preprocess/{name}.py" for name in SOURCES)):  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(ROOT / script), "--help"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )  # fmt: skip
        assert f"usage: {Path(script).name}" in done.stdout


def test_an_exported_backbone_loads_strictly_with_the_feature_map_beside_it(params, tmp_path):
    from fuxictr.features import FeatureMap

    from model_zoo.DIN import DIN

    params.update(model="DIN_MISS", epochs=1)
    experiment.run(params)
    model = experiment.load_trained(params)
    folder = tmp_path / "exported"
    weights, feature_map_file = export.export_backbone(model, folder)
    feature_map = FeatureMap("small", str(folder))
    feature_map.load(str(feature_map_file), params)
    plain = DIN(feature_map, **params)
    plain.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    _, loaders = experiment.build(params)
    assert (plain.predict(loaders["test"]) == model.predict(loaders["test"])).all()
    assert "labels" in json.loads(feature_map_file.read_text())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "Nothing to export: give --output"),
        ("--embeddings e.h5 --quantize", "--quantize is for the model.onnx of --output"),
        ("--output a --backbone ./a", "must be two folders"),
    ],
)
def test_export_says_which_option_is_missing(options, says, monkeypatch):
    monkeypatch.setattr("sys.argv", ["fuxictr-miss export", *options.split()])
    with pytest.raises(InputError, match=says):
        export_command.main()


def test_export_writes_an_artefact_of_an_experiment(params, tmp_path, monkeypatch, capsys):
    regularizers = ("embedding_regularizer", "net_regularizer")
    params = {k: v for k, v in params.items() if k not in regularizers}
    params.update(model="LR", model_id="LR_small", epochs=1)
    data = {k: params.pop(k) for k in list(params) if k in DATA_KEYS}
    for name, content in (
        ("dataset_config", {"small": data}),
        ("model_config", {"LR_small": {**params, "dataset_id": "small"}}),
    ):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(content))  # JSON is YAML
    config = load_config(tmp_path, "LR_small")
    experiment.run(config)
    output = str(tmp_path / "served")
    options = ["--config", str(tmp_path), "--expid", "LR_small", "--output", output, "--quantize"]
    monkeypatch.setattr("sys.argv", ["fuxictr-miss export", *options])
    export_command.main()
    files = sorted(Path(output).iterdir())
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    assert "model.onnx" in {file.name for file in files}


def test_an_export_never_goes_where_something_is(params, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "DIN.model").write_text("theirs")
    with pytest.raises(InputError, match="not an empty folder"):
        export.export_backbone(object(), tmp_path / "mine")
    assert (tmp_path / "mine" / "DIN.model").read_text() == "theirs"


def test_an_option_of_several_names_may_be_given_several_times(monkeypatch):
    names = ["--dataset", "a", "--table", "3", "--dataset", "b", "c", "--table", "5"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *names])
    arguments = benchmark._parse()
    assert (arguments.dataset, arguments.table) == (["a", "b", "c"], ["3", "5"])
