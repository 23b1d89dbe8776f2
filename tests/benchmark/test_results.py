"""The results file."""

from __future__ import annotations

import pytest

from benchmark.conftest import an_experiment, row
from fuxictr_miss.benchmark import results as results_module
from fuxictr_miss.benchmark.results import Results
from fuxictr_miss.benchmark.tables import Variant

ONE = Variant("", "DIN_MISS", {"ssl_weight": 5.0})


def test_a_row_is_read_as_it_was_written(tmp_path):
    written = row(
        an_experiment("config", ONE, "demo"),
        test_AUC=0.1 + 0.2,  # 0.30000000000000004: no digit is lost
        epochs=3,
        reason="a comma, and 'quotes'",
        curve={"training step": [10, 20], "similarity": [0.5, 0.25]},
    )
    Results(tmp_path).add(written)
    assert Results(tmp_path).rows == {written["key"]: written}


def test_a_later_row_of_a_key_replaces_the_earlier(tmp_path):
    experiment = an_experiment("config", ONE, "demo")
    results = Results(tmp_path)
    results.add(row(experiment, status="failed", reason="no luck"))
    assert results.finished(experiment.key) is None
    results.add(row(experiment, test_AUC=0.5))
    assert Results(tmp_path).finished(experiment.key)["test_AUC"] == 0.5
    assert len(Results(tmp_path).rows) == 1


def test_two_writers_keep_each_others_rows(tmp_path):
    first, second = Results(tmp_path), Results(tmp_path)
    first.add(row(an_experiment("config", ONE, "demo", 1)))
    second.add(row(an_experiment("config", ONE, "demo", 2)))
    assert {each["seed"] for each in Results(tmp_path).rows.values()} == {1, 2}


def test_the_file_is_whole_if_writing_is_interrupted(tmp_path, monkeypatch):
    results = Results(tmp_path)
    results.add(row(an_experiment("config", ONE, "demo", 1)))
    before = results.path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(results_module.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.add(row(an_experiment("config", ONE, "demo", 2)))
    assert results.path.read_bytes() == before


def test_the_order_of_rows_does_not_depend_on_the_order_of_runs(tmp_path):
    rows = [row(an_experiment("config", ONE, "demo", seed)) for seed in (1, 2, 3)]
    for name, order in (("a", rows), ("b", rows[::-1])):
        for each in order:
            Results(tmp_path / name).add(each)
    assert Results(tmp_path / "a").path.read_bytes() == Results(tmp_path / "b").path.read_bytes()
