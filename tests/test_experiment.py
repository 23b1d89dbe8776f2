"""The command, from config to a row of results, and one sentence for every wrong input."""

from __future__ import annotations

import ast
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
import torch
import yaml
from filelock import FileLock

from fuxictr_miss import experiment
from fuxictr_miss.commands import train
from fuxictr_miss.errors import InputError, run_command
from fuxictr_miss.training import checkpoint

ROOT = Path(__file__).resolve().parents[1]


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "run_expid.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def failing(workplace, monkeypatch, capsys) -> Callable[..., tuple[str, str]]:
    """(arguments) -> stdout and stderr of the command, in this process; its exit code is 2."""

    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.chdir(workplace)
        monkeypatch.setattr(sys, "argv", ["run_expid.py", *arguments])
        with pytest.raises(SystemExit) as end:
            run_command(train.main)
        assert end.value.code == 2
        return capsys.readouterr()

    return run


@pytest.fixture
def workplace(params, tmp_path) -> Path:
    """A folder with a config of one experiment, DIN_MISS_small, on the small data set."""
    data_keys = {"data_root", "data_format", "train_data", "valid_data", "test_data",
                 "feature_cols", "label_col"}  # fmt: skip
    dataset = {key: params.pop(key) for key in data_keys}
    params.update(model="DIN_MISS", epochs=2, dataset_id="small")
    params.update(ssl_pretrain_epochs=1, ssl_pretrain_sampling="users")  # the recipe's are many
    del params["model_id"], params["gpu"]
    (tmp_path / "config").mkdir()
    config = {"Base": {}, "DIN_MISS_small": params}
    (tmp_path / "config" / "model_config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "config" / "dataset_config.yaml").write_text(yaml.safe_dump({"small": dataset}))
    return tmp_path


def test_one_command_leaves_metrics_log_curves_checkpoint_and_a_row(workplace):
    done = command("--expid", "DIN_MISS_small", "--seed", "5", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "[test] AUC: 0." in done.stdout
    assert "logloss: 0." in done.stdout
    made = workplace / "checkpoints" / "small"
    names = {path.name for path in made.iterdir()}
    assert {f"DIN_MISS_small_seed5.{ending}" for ending in ("log", "png", "model")} <= names
    assert (made / "DIN_MISS_small_seed5.png").read_bytes().startswith(b"\x89PNG")
    row = pd.read_csv(workplace / "config.csv").iloc[0]
    assert row["seed"] == 5
    assert row["learning_rate"] == 0.01
    assert 0 < row["test_AUC"] < 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--expid", "DIN_MIS_small"], ["DIN_MIS_small", "Did you mean 'DIN_MISS_small'"]),
        ([], ["--expid", "--list"]),
        (["--expid", "DIN_MISS_small", "--config", "no_such"], ["no_such", "--config"]),
        (["--expid", "DIN_MISS_small", "--set", "epoch=1"], ["epoch", "Did you mean 'epochs'"]),
        (["--expid", "DIN_MISS_small", "--set", "model=DIN_MISSS"], ["Did you mean 'DIN_MISS'"]),
        (["--expid", "DIN_MISS_small", "--gpu", "99"], ["GPU 99", "--gpu -1"]),
        (["--expid", "DIN_MISS_small", "--set", "ssl_temperature=0"], ["ssl_temperature", "got 0"]),
        (["--expid", "DIN_MISS_small", "--set", "epochs=0"], ["--set", "epochs", "got 0"]),
        (["--expid", "DIN_MISS_small", "--set", "model_root=" + "x" * 300], ["name too long"]),
        (
            ["--expid", "DIN_MISS_small", "--set", "data_root=config/model_config.yaml"],
            ["config/model_config.yaml"],
        ),
        (["--expid", "DIN_MISS_small", "--set", "train_data=gone.parquet"], ["gone.parquet"]),
    ],
)
def test_wrong_input_is_one_sentence_exit_code_2_and_no_half_file(
    workplace, failing, arguments, words
):
    _, errors = failing(*arguments)
    assert "Traceback" not in errors
    message = errors.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert all(word in message for word in words)
    assert not (workplace / "config.csv").exists()
    assert not list(workplace.rglob("*.tmp"))
    assert not list(workplace.rglob("*.model"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"ssl_temperature": 0}, "ssl_temperature"),
        ({"ssl_temperature": -0.1}, "ssl_temperature"),
        ({"miss_num_pairs": 0}, "miss_num_pairs"),
        ({"miss_max_distance": 0}, "miss_max_distance"),
        ({"ssl_training": "jointly"}, "Did you mean 'joint'"),
        ({"miss_variant": "/X"}, "miss_variant"),
        ({"miss_max_width": "three"}, "a whole number"),
        ({"mis_max_width": 2, "ssl_sequences": ["item_histry"]}, "item_history"),
    ],
)
def test_a_wrong_value_names_its_key(params, changes, word):
    with pytest.raises(InputError, match=word):
        experiment.build({**params, "model": "DIN_MISS", **changes})


def test_without_a_sequence_there_is_nothing_to_learn_from(params):
    params["feature_cols"] = params["feature_cols"][:1]
    with pytest.raises(InputError, match="no behavior sequence"):
        experiment.build({**params, "model": "DNN_MISS"})


def test_sequences_of_different_lengths_are_refused_until_some_are_chosen(params):
    params["feature_cols"][2]["max_len"] = 5
    with pytest.raises(InputError, match=r"item_history: length 9.*cate_history: length 5"):
        experiment.build({**params, "model": "DNN_MISS"})
    model, _ = experiment.build({**params, "model": "DNN_MISS", "ssl_sequences": ["item_history"]})
    assert model._self_supervision.sources[0].features == ["item_history"]


def test_sequences_of_different_dimensions_are_refused(params):
    for column, dim in zip(params["feature_cols"][1:], (4, 6), strict=True):
        column["embedding_dim"] = dim
        del column["share_embedding"]
    with pytest.raises(InputError, match=r"dimension 4.*dimension 6"):
        experiment.build({**params, "model": "DNN_MISS"})


def test_a_checkpoint_of_another_model_is_refused(params):
    experiment.run({**params, "model": "DNN", "epochs": 1})
    with pytest.raises(InputError, match="is not a checkpoint of PNN"):
        experiment.load_trained({**params, "model": "PNN"})


def test_a_trained_model_comes_back_with_its_predictions(params):
    params.update(model="PNN_MISS", epochs=1)
    result = experiment.run(params)
    model = experiment.load_trained(params)
    _, loaders = experiment.build(params)
    assert model.evaluate(loaders["test"])["AUC"] == result["test_AUC"]
    plain = model.to_backbone()
    assert (plain.predict(loaders["test"]) == model.predict(loaders["test"])).all()


def test_a_trial_of_a_search_never_opens_the_test_split(params, monkeypatch):
    opened = []
    loader = experiment.TensorDataLoader

    def opening(*arguments, split, **options):
        opened.append(split)
        return loader(*arguments, split=split, **options)

    monkeypatch.setattr(experiment, "TensorDataLoader", opening)
    trial = experiment.run({**params, "epochs": 1}, test=False)
    assert opened == ["train", "valid"]
    assert not [key for key in trial if key.startswith("test_")]
    whole = experiment.run({**params, "epochs": 1})
    assert trial["valid_AUC"] == whole["valid_AUC"]
    assert "test_AUC" in whole


def test_an_experiment_that_is_running_is_not_started_again(params):
    folder = Path(params["model_root"]) / params["dataset_id"]
    folder.mkdir(parents=True)
    with FileLock(folder / f".{params['model_id']}.lock"):
        with pytest.raises(InputError, match="already running with its checkpoint"):
            experiment.run(params)
        assert not list(folder.glob("*.log"))
        assert experiment.run({**params, "model_id": "another"})["epochs"]
    assert experiment.run(params)["epochs"]


def test_a_start_that_is_refused_leaves_the_log_of_the_last_run(params):
    experiment.run({**params, "epochs": 1})
    log = Path(params["model_root"]) / "small" / "DIN_small.log"
    before = log.read_text()
    assert "label epoch 1" in before
    rows = pl.read_parquet(params["train_data"])
    short = str(log.with_name("short.parquet"))  # nobody has a pair
    rows.with_columns(item_history=pl.lit("i1"), cate_history=pl.lit("c1")).write_parquet(short)
    left = log.with_name(".DIN_small.7.tmp.state")
    left.write_bytes(b"half")
    for wrong in ({"ssl_sequences": ["nothing"]}, {"ssl_feature_weight": 0, "train_data": short}):
        with pytest.raises(InputError):
            experiment.run({**params, "epochs": 1, "model": "DIN_MISS", **wrong})
        assert log.read_text().startswith(before)
    assert not left.exists()
    experiment.run({**params, "epochs": 1, "seed": 2})
    assert log.read_text().count("label epoch 1:") == 1


def test_a_strangers_table_is_refused_before_the_run(workplace, failing):
    (workplace / "config.csv").write_text("user,item\nu1,i1\n")
    _, errors = failing("--expid", "DIN_MISS_small")
    assert "no table of run_expid.py" in errors
    assert not (workplace / "checkpoints").exists()
    assert (workplace / "config.csv").read_text() == "user,item\nu1,i1\n"


def test_the_metrics_of_a_run_are_said_before_its_row_is_written(workplace, failing, monkeypatch):
    """The table turns into a stranger's during the run."""
    run = experiment.run

    def and_then(*arguments: Any, **options: Any) -> dict[str, Any]:
        result = run(*arguments, **options)
        (workplace / "config.csv").write_text("user,item\n")
        return result

    monkeypatch.setattr(experiment, "run", and_then)
    printed, errors = failing("--expid", "DIN_MISS_small")
    assert "[test] AUC: 0." in printed
    assert errors.splitlines()[-1].startswith("error: ")
    assert (workplace / "config.csv").read_text() == "user,item\n"


def test_a_full_disk_leaves_no_half_checkpoint(params, monkeypatch):
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="No space left"):
        experiment.run({**params, "model": "DIN_MISS"})
    folder = Path(params["model_root"]) / "small"
    assert not [p for p in folder.iterdir() if p.suffix in (".model", ".state", ".tmp")]


def test_a_broken_state_is_named(tmp_path):
    path = tmp_path / "run.state"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"run\.state cannot be read"):
        checkpoint.load(path)


def test_help_and_list_do_not_wait_for_torch(workplace):
    code = "import sys, runpy\ntry:\n    runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
    code += "finally:\n    assert 'torch' not in sys.modules\n    assert 'ray' not in sys.modules\n"
    for flag in ("--help", "--list"):
        arguments = [sys.executable, "-c", code, str(ROOT / "run_expid.py"), flag]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(arguments, cwd=workplace, check=True, env=environment, capture_output=True)


def test_a_run_starts_no_ray_process(params, tmp_path):
    """FuxiCTR's layers import Ray, and its loaders start it."""
    program = """import json, pathlib, sys
from fuxictr_miss import experiment
experiment.run(json.loads(sys.argv[1]))
import ray
assert not ray.is_initialized()
files = pathlib.Path("/proc/self/task").glob("*/children")
children = [child for file in files for child in file.read_text().split()]
names = [pathlib.Path(f"/proc/{child}/comm").read_text() for child in children]
assert not names, names"""
    params.update(epochs=1)
    arguments = [sys.executable, "-c", program, json.dumps(params)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        arguments, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_the_raw_log_of_the_demo_is_gzip_json(tmp_path):
    """From raw files to metrics nothing knows of the demo: it is a data set like any other."""
    subprocess.run(
        [sys.executable, str(ROOT / "data_preprocess" / "demo.py"), "--output", str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    with gzip.open(tmp_path / "reviews_Demo_5.json.gz", "rt") as file:
        assert '"reviewerID"' in next(file)
    rooms = [ROOT / "model_zoo", *(ROOT / "fuxictr_miss").iterdir()]
    rooms = [room for room in rooms if room.name not in ("preprocess", "commands")]
    sources = [file for room in rooms for file in ([room] if room.is_file() else room.rglob("*"))]
    sources = [file for file in sources if file.suffix == ".py"]
    assert len(sources) > 50
    for path in sources:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):  # an example in a docstring may use the demo
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = ""
        assert "demo" not in ast.unparse(tree), path


def test_a_class_of_a_zoo_that_fails_while_training_is_named_in_one_sentence(params, tmp_path):
    """As FuxiCTR's DIEN does on some batches of 2.3.10."""
    source = tmp_path / "zoo" / "Late" / "src" / "Late.py"
    source.parent.mkdir(parents=True)
    source.write_text(
        "from model_zoo.DNN import DNN\n"
        "class Late(DNN):\n"
        "    def add_loss(self, *values):\n"
        "        if getattr(self, '_total_steps', 0) == 2:\n"
        "            raise ValueError('no row has a history')\n"
        "        return super().add_loss(*values)\n"
    )
    late = {**params, "model": "Late", "model_zoo_path": str(tmp_path / "zoo")}
    words = "Late does not run .*: ValueError: no row has a history in Late.py, line 5"
    with pytest.raises(InputError, match=words):
        experiment.run(late)
