"""The JSON files of a run: valid, whole, of this run, and never somebody else's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.outputs.run_files import METRICS, read_run_file, versions, write_run_file
from fuxictr_miss.training import run as training_run


@pytest.fixture
def small(params) -> dict[str, Any]:
    return {**params, "epochs": 1}


def record_of(params: dict[str, Any], model_id: str = "DIN_small") -> dict[str, Any] | None:
    return read_run_file(experiment.Config.of(params | {"model_id": model_id}).file(METRICS))


def test_a_number_that_json_does_not_know_is_null(tmp_path):
    path = tmp_path / "run.metrics.json"
    nan = float("nan")
    write_run_file(path, {"metrics": {"test": {"AUC": nan, "gAUC": -float("inf"), "ECE": 0.1}}})
    strict = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert strict["metrics"] == {"test": {"AUC": None, "gAUC": None, "ECE": 0.1}}
    assert [each.name for each in tmp_path.iterdir()] == ["run.metrics.json"]


@pytest.mark.parametrize("content", [b'{"AUC": 0.7}', b"[1]", b"{", b"\xff\x00"])
def test_a_strangers_file_is_refused_before_the_training_and_stays(small, content):
    path = experiment.Config.of(small).file(METRICS)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"DIN_small\.metrics\.json was not written by fuxictr_m"):
        experiment.run(small)
    assert path.read_bytes() == content
    with pytest.raises(InputError, match="was not written by fuxictr_miss"):
        write_run_file(path, {})
    assert path.read_bytes() == content


def test_a_finished_run_says_what_it_was_in_its_log_and_beside_it(small):
    params = {**small, "model": "DIN_MISS", "ssl_pretrain_epochs": 1, "ssl_recipe": "recommended"}
    result = experiment.run(params)
    record = record_of(params)
    assert record["metrics"]["test"]["AUC"] == result["test_AUC"]  # to the last digit
    assert record["metrics"]["valid"]["logloss"] == result["valid_logloss"]
    assert record["versions"] == versions()
    assert record["recipe"] == "recommended"
    assert record["seed"] == 3
    assert len(record["data"]) == 16
    assert record["epochs"] == len(result["history"])
    model, _ = experiment.build(params)
    assert record["parameters"] == sum(p.numel() for p in model.parameters())
    last = (experiment.Config.of(params).file(".log")).read_text().splitlines()[-1]
    for name in ("recipe", "seed", "data", "parameters"):
        assert f"{name} {record[name]}" in last
    for name, version in versions().items():
        assert f"{name} {version}" in last


def test_metrics_of_an_earlier_run_never_pass_as_those_of_a_new_one(small, monkeypatch):
    experiment.run(small)
    assert record_of(small)["seed"] == 3

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Run, "_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(small)
    assert record_of(small) is None


def test_a_resumed_run_writes_the_metrics_of_the_whole_run(small, monkeypatch):
    small["epochs"] = 2
    whole = experiment.run({**small, "model_id": "whole"})
    save = training_run.Run._save

    def killed(run: training_run.Run) -> None:
        save(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Run, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(small)
    assert record_of(small) is None
    experiment.run(small, resume=True)
    for _ in range(2):  # a finished run that is resumed trains no further
        record = record_of(small)
        expected = {**record_of(small, "whole"), "expid": "DIN_small"}
        for each in (record, expected):
            assert each.pop("training_seconds") > 0
        assert record == expected
        assert record["metrics"]["test"]["AUC"] == whole["test_AUC"]
        experiment.run(small, resume=True)


def test_a_disk_that_is_full_at_the_end_costs_no_metrics(small, monkeypatch):
    def full(*_: Any) -> None:
        raise InputError("Cannot write DIN_small.metrics.json (No space left on device).")

    monkeypatch.setattr(experiment, "write_run_file", full)
    assert 0 < experiment.run(small)["test_AUC"] < 1
    log = experiment.Config.of(small).file(".log").read_text()
    assert "in its log only: Cannot write" in log
    assert "test: AUC 0." in log
