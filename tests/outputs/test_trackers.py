"""Each tracker for real: what it was told is what stands there, also after a kill and a resume."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.outputs import trackers
from fuxictr_miss.outputs.run_files import METRICS, TRACKER, read_run_file
from fuxictr_miss.training import run as training_run
from fuxictr_miss.training import watch

Curves = dict[str, list[tuple[int, float]]]

CURVES = {
    *(f"train/{name}" for name in ("label_loss", "ssl_loss", "ssl_feature_loss", "similarity",
                                   "negative_similarity", "learning_rate")),
    *(f"valid/{name}" for name in ("AUC", "logloss", "held_out_ssl")),
    *(f"final/{split}_{name}" for split in ("valid", "test") for name in ("AUC", "logloss")),
}  # fmt: skip


@pytest.fixture
def small(params, monkeypatch) -> dict[str, Any]:
    """Two epochs of a pretraining and one of labels, with a point every four steps."""
    monkeypatch.setattr(watch, "EVERY", 4)
    return {**params, "model": "DIN_MISS", "ssl_training": "pretrain", "ssl_pretrain_epochs": 2,
            "epochs": 1}  # fmt: skip


def folder_of(params: dict[str, Any]) -> Path:
    return Path(params["model_root"]) / params["dataset_id"]


def tensorboard(params: dict[str, Any]) -> tuple[Curves, dict[str, Any]]:
    """The curves and the hyper-parameters of the newest run's event files, by its own reader."""
    pytest.importorskip("tensorboard")
    from google.protobuf.json_format import MessageToDict
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    runs = (folder_of(params) / "tensorboard" / params["model_id"]).iterdir()
    events = EventAccumulator(str(max(runs, key=lambda run: int(run.name))))
    events.Reload()
    curves = {
        tag: sorted(
            (e.step, e.value) for e in events.Scalars(tag)
        )  # files of one second: any order
        for tag in events.Tags()["scalars"]
    }
    content = events.summary_metadata.get("_hparams_/session_start_info")
    if content is None:
        return curves, {}
    data = HParamsPluginData.FromString(content.plugin_data.content).session_start_info.hparams
    return curves, {key: MessageToDict(value) for key, value in data.items()}


def steps_of(curve: list[tuple[int, float]]) -> list[int]:
    return [step for step, _ in curve]


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    new = ("seconds", "negative_similarity")
    return [{k: v for k, v in row.items() if k not in new} for row in rows]


def killed_after(monkeypatch, params: dict[str, Any], epochs: int) -> None:
    """A run that ends after the state of an epoch was written."""
    save, done = training_run.Run._save, []

    def end(run: training_run.Run) -> None:
        save(run)
        done.append(run)
        if len(done) == epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Run, "_save", end)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(params)


def test_tensorboard_has_every_curve_and_what_the_run_was(small):
    result = experiment.run({**small, "tracker": "tensorboard"})
    curves, settings = tensorboard(small)
    assert set(curves) == CURVES
    rows = result["history"]
    ends = [sum(row["steps"] for row in rows[: n + 1]) for n in range(3)]  # of the epochs
    assert {*ends, 4} <= set(steps_of(curves["train/learning_rate"]))
    assert steps_of(curves["valid/held_out_ssl"]) == ends[:2]
    for name in ("AUC", "logloss"):
        assert curves[f"valid/{name}"] == [(ends[2], pytest.approx(rows[2][name]))]
        test = curves[f"final/test_{name}"]
        assert test == [(ends[2], pytest.approx(result[f"test_{name}"]))]
    rate = dict(curves["train/learning_rate"])
    assert rate[ends[2]] == pytest.approx(small["learning_rate"])
    assert settings["model"] == "DIN_MISS"
    assert settings["ssl_pretrain_epochs"] == 2
    record = read_run_file(folder_of(small) / f"{small['model_id']}{METRICS}")
    assert settings["data"] == record["data"]
    assert settings["parameters"] == record["parameters"]


def test_points_are_means_since_the_last_one(small):
    """Weighted by their steps, those of an epoch give the mean in its row."""
    rows = experiment.run({**small, "tracker": "tensorboard"})["history"]
    curves, _ = tensorboard(small)
    end = 0
    for row in rows:
        start, end = end, end + row["steps"]
        name = "label_loss" if row["phase"] == "label" else "ssl_loss"
        points = [(s, v) for s, v in curves[f"train/{name}"] if start < s <= end]
        lengths = [
            b - a for a, b in zip([start, *steps_of(points)], steps_of(points), strict=False)
        ]
        assert max(lengths) <= 4
        mean = sum(n * v for n, (_, v) in zip(lengths, points, strict=True)) / row["steps"]
        assert mean == pytest.approx(row[name], rel=1e-5)


@pytest.mark.parametrize(
    ("tracker", "model", "strategy"),
    [("tensorboard", "DIN", "joint"), ("tensorboard", "DIN_MISS", "joint"),
     ("tensorboard", "DIN_MISS", "pretrain"), ("wandb", "DIN_MISS", "pretrain"),
     ("mlflow", "DIN_MISS", "pretrain")],
)  # fmt: skip
def test_a_tracker_changes_no_digit(small, tmp_path, monkeypatch, tracker, model, strategy):
    pytest.importorskip(tracker)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    keys = {"model": model, "ssl_training": strategy, "ssl_label_gradient": 0, "net_dropout": 0.2}
    plain = experiment.run({**small, **keys, "model_id": "plain"})
    watched = experiment.run({**small, **keys, "model_id": "watched", "tracker": tracker})
    assert without_time(plain["history"]) == without_time(watched["history"])
    same = [key for key in plain if key.startswith(("valid_", "test_"))]
    assert len(same) == 4
    assert [plain[key] for key in same] == [watched[key] for key in same]
    folder = folder_of(small)
    assert not (folder / f"plain{TRACKER}").exists()
    assert read_run_file(folder / f"watched{TRACKER}")["finished"]
    if tracker == "tensorboard":
        assert [each.name for each in (folder / "tensorboard").iterdir()] == ["watched"]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_resumed_run_goes_on_with_the_same_curves(small, monkeypatch, epochs):
    params = {**small, "tracker": "tensorboard"}
    experiment.run({**params, "model_id": "whole"})
    killed_after(monkeypatch, params, epochs)
    experiment.run(params, resume=True)
    curves, settings = tensorboard(params)
    expected, of_whole = tensorboard({**params, "model_id": "whole"})
    assert curves == expected
    assert settings == {**of_whole, "model_id": params["model_id"]}
    experiment.run(params, resume=True)  # a finished run has nothing to add
    assert tensorboard(params)[0] == expected


def test_steps_that_a_killed_epoch_has_shown_are_not_shown_again(small, monkeypatch):
    params = {**small, "tracker": "tensorboard"}
    experiment.run({**params, "model_id": "whole"})
    add, steps = watch.Watch.add, []

    def killed(self: watch.Watch, *arguments: Any) -> None:
        add(self, *arguments)
        steps.append(self.step)
        if len(steps) == 11:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(watch.Watch, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(params)
    experiment.run(params, resume=True)
    assert tensorboard(params)[0] == tensorboard({**params, "model_id": "whole"})[0]


def test_a_run_that_is_resumed_with_a_tracker_shows_its_first_epochs_too(small, monkeypatch):
    killed_after(monkeypatch, small, 2)
    rows = experiment.run({**small, "tracker": "tensorboard"}, resume=True)["history"]
    curves, _ = tensorboard(small)
    ends = [rows[0]["steps"], rows[0]["steps"] + rows[1]["steps"]]
    assert curves["train/ssl_loss"] == [
        (end, pytest.approx(row["ssl_loss"])) for end, row in zip(ends, rows, strict=False)
    ]
    assert len(curves["valid/AUC"]) == 1


def test_a_new_run_of_the_same_name_leaves_the_curves_of_the_old_one(small):
    params = {**small, "tracker": "tensorboard"}
    for _ in range(2):
        experiment.run(params)
    runs = sorted((folder_of(params) / "tensorboard" / params["model_id"]).iterdir())
    assert [run.name for run in runs] == ["1", "2"]
    assert [len(list(run.iterdir())) for run in runs] == [1, 1]


def test_without_its_package_a_tracker_is_one_sentence_before_anything_is_done(small, monkeypatch):
    for name in trackers.TRACKERS:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(InputError, match=f"{name}, which cannot.*pip install {name}"):
                experiment.run({**small, "tracker": name})
    assert not folder_of(small).exists()


def test_a_folder_that_has_the_name_of_a_package_is_no_package(elsewhere, monkeypatch):
    """`wandb` writes a folder of that name where a script may stand."""
    (elsewhere / "no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(str(elsewhere))
    with pytest.raises(InputError, match="pip install no_such_tracker"):
        trackers.check_tracker("no_such_tracker")


def test_only_the_chosen_package_is_imported():
    code = """
import sys
from fuxictr_miss import experiment
assert not {"tensorboard", "wandb", "mlflow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_tracker_is_named_with_the_valid_ones(small):
    with pytest.raises(InputError, match=r"Did you mean 'tensorboard'.*mlflow, tensorboard, wandb"):
        experiment.run({**small, "tracker": "tensorbord"})


def log_of(params: dict[str, Any]) -> str:
    return (folder_of(params) / f"{params['model_id']}.log").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_costs_the_curves_only(small):
    folder = folder_of(small)
    folder.mkdir(parents=True)
    (folder / "tensorboard").write_text("a file of somebody")
    result = experiment.run({**small, "tracker": "tensorboard"})
    assert 0 < result["test_AUC"] < 1
    assert log_of(small).count("WARNING tensorboard has failed, the training goes on without") == 1
    assert (folder / "tensorboard").read_text() == "a file of somebody"


@pytest.mark.parametrize("what", ["log", "finish", "close"])
def test_a_disk_that_gets_full_costs_the_curves_only(small, monkeypatch, what):
    told = []

    def full(*arguments: Any) -> None:
        told.append(arguments)
        if what != "log" or len(told) > 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(trackers.TensorBoard, what, full)
    result = experiment.run({**small, "tracker": "tensorboard"})
    assert 0 < result["test_AUC"] < 1
    assert log_of(small).count("WARNING tensorboard has failed") == 1
    assert "No space left on device" in log_of(small)
    assert len(told) == (3 if what == "log" else 1)


def test_a_strangers_tracker_file_is_refused_and_stays(small):
    path = folder_of(small) / f"{small['model_id']}{TRACKER}"
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 3}')
    with pytest.raises(InputError, match="was not written by fuxictr_miss"):
        experiment.run({**small, "tracker": "tensorboard"})
    assert path.read_text() == '{"step": 3}'


@pytest.fixture
def of_mlflow(tmp_path, monkeypatch):
    """(params) -> the curves, the parameters and the status of the newest run in a local store."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")

    def read(params: dict[str, Any]) -> tuple[Curves, dict[str, str], str]:
        client = mlflow.MlflowClient()
        home = client.get_experiment_by_name("fuxictr_miss").experiment_id
        name = f"run_name = '{params['model_id']}'"
        (run,) = client.search_runs([home], filter_string=f"attributes.{name}")
        curves = {
            key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        return curves, run.data.params, run.info.status

    yield read
    mlflow.set_tracking_uri(None)


def test_mlflow_has_every_curve_also_after_a_resume(small, monkeypatch, of_mlflow):
    params = {**small, "tracker": "mlflow", "metrics": ["AUC", "logloss", "NDCG(10)"]}
    params.update(group_id="user_id")
    experiment.run({**params, "model_id": "whole"})
    expected, _, status = of_mlflow({**params, "model_id": "whole"})
    assert status == "FINISHED"
    killed_after(monkeypatch, params, 2)
    assert of_mlflow(params)[2] == "FAILED"
    experiment.run(params, resume=True)
    curves, settings, status = of_mlflow(params)
    assert curves == expected
    assert set(curves) == {*CURVES, "valid/NDCG_10", "final/valid_NDCG_10", "final/test_NDCG_10"}
    assert status == "FINISHED"
    assert settings["model"] == "DIN_MISS"
    assert len(settings["data"]) == 16


def test_wandb_has_every_curve_and_the_settings(small, tmp_path, monkeypatch):
    """Offline: what stands in its file is what a later `wandb sync` sends."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    params = {**small, "tracker": "wandb"}
    killed_after(monkeypatch, params, 2)
    result = experiment.run(params, resume=True)
    first, second = sorted((folder_of(params) / "wandb").glob("offline-run-*/*.wandb"))
    assert first.name == second.name  # one run
    steps: list[int] = []
    names: set[str] = set()
    for file in (first, second):
        for row in _wandb_history(file):
            steps.append(row.pop("step"))
            names.update(row)
    assert steps == sorted(steps)
    ends = sum(row["steps"] for row in result["history"])
    assert steps[-1] == ends
    assert {name for name in names if not name.startswith("_")} == {
        name for name in CURVES if not name.startswith("final/")
    }


def _wandb_history(file: Path) -> list[dict[str, Any]]:
    """The rows of the curves in a file of records, which may be cut by the ends of blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, block, record, rows = file.read_bytes(), 7, 2**15, b"", []
    while place + 7 <= len(content):
        if block - place % block < 7:  # no room for another part: zeros
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            history = Record.FromString(record).history.item
            if history:
                rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json)
                             for i in history})  # fmt: skip
            record = b""
    return rows
