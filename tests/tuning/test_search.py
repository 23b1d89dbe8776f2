"""What a search runs, what it runs again, and how it ranks; no trial is trained here."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from filelock import FileLock
from paper.conftest import row

from fuxictr_miss.config import list_expids, load_config
from fuxictr_miss.errors import InputError
from fuxictr_miss.tuning.search import Search, own_folder

FOLDER = Path("checkpoints/tuner/space")


@pytest.fixture
def run(monkeypatch):
    """Plan a search and run it; returns it, and the settings of the trials that were run.

    `value` gives a trial's AUC, None if it fails, or "diverged"; KeyboardInterrupt ends the search.
    """

    def search(space, kind="grid", number=None, tag=None, value=lambda _: 0.5):
        ran = []

        def run_each(trials, number, results, *_):
            for trial in trials:
                found = value(trial.overrides)
                ran.append(dict(trial.overrides))
                status = {None: "failed", "diverged": "diverged"}.get(found, "ok")
                made = {"status": status, "number": trial.number}
                made |= {"reason": "Why."} if status != "ok" else {
                    "valid_AUC": found, "valid_logloss": 1 - found}  # fmt: skip
                results.add(row(trial, data=searched._digest(trial), **made))
                yield results.rows[trial.key]

        monkeypatch.setattr("fuxictr_miss.tuning.search.run_each", run_each)
        searched = Search(space, FOLDER)
        if kind == "grid":
            searched.plan_grid(tag)
        else:
            searched.plan_samples(kind, number)
        searched.run([-1], None)
        return searched, ran

    return search


def interrupted_after(number):
    calls = iter(range(number))

    def value(_):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return 0.5

    return value


def test_a_second_start_runs_what_is_missing_or_failed_but_not_what_diverged(space_of, run):
    space = space_of({"epochs": [1, 2, 3, 4]})
    results = {1: 0.5, 2: None, 3: "diverged", 4: 0.6}
    run(space, value=lambda settings: results[settings["epochs"]])
    search, ran = run(space)
    assert ran == [{"epochs": 2}]
    assert [row["status"] for _, row in search.ranked()] == ["ok", "ok", "ok", "diverged"]
    assert run(space)[1] == []


@pytest.mark.parametrize("kind", ["grid", "random", "tpe"])
def test_an_interrupted_search_goes_on_where_it_was(space_of, run, kind):
    space = space_of({"epochs": [1, 2, 3, 4, 5], "batch_size": [8, 16]})
    with pytest.raises(KeyboardInterrupt):
        run(space, kind, 10, value=interrupted_after(4))
    search, ran = run(space, kind, 10)
    assert len(ran) == 6
    assert len(search.ranked()) == 10
    assert sorted(trial.number for trial, _ in search.ranked()) == list(range(1, 11))


@pytest.mark.parametrize("kind", ["grid", "random", "tpe"])
def test_a_changed_space_keeps_the_results_of_trials_that_are_still_in_it(space_of, run, kind):
    run(space_of({"epochs": [1, 2]}), kind, 2)
    search, ran = run(space_of({"epochs": [2, 3, 4]}), kind, 3)
    assert sorted(each["epochs"] for each in ran) == [3, 4]
    assert sorted(trial.overrides["epochs"] for trial, _ in search.ranked()) == [2, 3, 4]


def test_results_under_another_config_or_on_other_data_are_no_results(space_of, run, place):
    run(space_of({"epochs": [1, 2]}))
    assert len(run(space_of({"epochs": [1, 2], "batch_size": 8}))[1]) == 2
    file = place / "config" / "dataset_config.yaml"
    data = yaml.safe_load(file.read_text())
    data["small"]["train_data"] = data["small"]["valid_data"]
    file.write_text(yaml.safe_dump(data))
    search, ran = run(space_of({"epochs": [1, 2]}))
    assert len(ran) == 2
    assert len(search.ranked()) == 2


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_larger_number_of_trials_only_adds(space_of, run, kind):
    space = space_of({"learning_rate": {"low": 1e-3, "high": 1e-1}})
    _, first = run(space, kind, 3)
    _, more = run(space, kind, 5)
    assert (len(first), len(more)) == (3, 2)
    assert not [each for each in more if each in first]


def test_more_trials_than_combinations_try_every_combination(space_of, run):
    for values in ([1, 2, 3], {"low": 1, "high": 3}):
        space = space_of({"epochs": values, "batch_size": len(values)})
        assert sorted(each["epochs"] for each in run(space, "tpe", 50)[1]) == [1, 2, 3]


def test_a_tag_chooses_among_the_names(space_of, run):
    space = space_of({"epochs": [1, 2, 3]})
    assert run(space, tag="_002_")[1] == [{"epochs": 2}]
    with pytest.raises(InputError, match=r"Unknown tag 'none'.*DIN_small_001_"):
        run(space, tag="none")


def test_the_folder_is_a_config_folder_with_an_expid_for_every_trial(space_of, run, place):
    file = place / "config" / "dataset_config.yaml"
    data = yaml.safe_load(file.read_text())
    data["small"] |= {"learning_rate": 0.5, "epochs": 9}  # as ours do, which then hold
    file.write_text(yaml.safe_dump(data))
    space = space_of({"epochs": [1, 2], "min_categr_count": [1, 2], "dnn_hidden_units": [[8], [4]]})
    for kind in ("grid", "tpe"):
        search, _ = run(space, kind, 8)
        assert list_expids(str(FOLDER)) == sorted(trial.name for trial, _ in search.ranked())
        for trial, _ in search.ranked():
            config = load_config(str(FOLDER), trial.name)
            assert config.params == {**trial.params, "model_id": trial.name}


def test_the_ranking_is_by_validation_with_the_best_first_in_ten_columns(space_of, run):
    values = {1: 0.5, 2: None, 3: 0.7, 4: 0.5}
    space = space_of({"epochs": [1, 2, 3, 4]})
    search, _ = run(space, value=lambda settings: values[settings["epochs"]])
    search.write_ranking()
    table = pd.read_csv(search.ranking_file)
    columns = ["rank", "trial", "epochs", "valid_AUC", "valid_logloss", "seconds", "outcome"]
    assert list(table.columns) == columns
    assert table["valid_AUC"].tolist()[:3] == [0.7, 0.5, 0.5]
    assert [int(name.split("_")[2]) for name in table["trial"]] == [3, 1, 4, 2]
    assert table["outcome"].tolist() == ["ok", "ok", "ok", "Why."]

    wide = space_of({"learning_rate": [0.1, 0.2], "epochs": [1, 2], "ssl_every": [1, 2],
                     "embedding_dim": [4, 8], "batch_size": [4, 8]})  # fmt: skip
    search, _ = run(wide)
    table = search.ranking()
    assert len(table.columns) == 10
    assert table["other keys"][0] == "embedding_dim=4 batch_size=4"


def test_a_metric_to_be_minimised_ranks_the_least_first(space_of, run):
    space = space_of({"epochs": [1, 2, 3], "monitor": "logloss", "monitor_mode": "min"})
    search, _ = run(space, value=lambda settings: settings["epochs"] / 10)
    assert [trial.overrides["epochs"] for trial, _ in search.ranked()] == [3, 2, 1]


def test_two_tuners_in_one_folder_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with (
        FileLock(tmp_path / "a" / ".lock"),
        pytest.raises(InputError, match=r"Another tuner is running in .*a: wait for it"),
        own_folder(tmp_path / "a", "DIN_small"),
    ):
        pass


def test_a_search_of_another_experiment_under_the_same_name_is_refused(space_of, run, tmp_path):
    search, _ = run(space_of({"epochs": [1, 2]}))
    folder, expid = search.folder, search.space.expid
    before = (folder / "model_config.yaml").read_bytes()
    said = f"holds the trials of {expid}.*of PNN_other: rename"
    with pytest.raises(InputError, match=said), own_folder(folder, "PNN_other"):
        pass
    with own_folder(folder, expid):
        assert (folder / "model_config.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["model_config.yaml", "dataset_config.yaml", "ranking.csv"])
def test_a_strangers_file_is_refused_and_stays(tmp_path, name):
    (tmp_path / name).write_text("mine: {model: DIN}\n")
    (tmp_path / "notes.txt").write_text("mine")
    said = rf"{name} was not written by run_param_tuner\.py"
    with pytest.raises(InputError, match=said), own_folder(tmp_path, "DIN_small"):
        pass
    assert (tmp_path / name).read_text() == "mine: {model: DIN}\n"
