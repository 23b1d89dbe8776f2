"""A tuner's YAML is checked before anything runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from fuxictr_miss.config import load_config
from fuxictr_miss.data.build import _SETTINGS
from fuxictr_miss.errors import InputError
from fuxictr_miss.tuning.space import read_space

ROOT = Path(__file__).resolve().parents[2]


def test_a_trial_is_the_experiment_with_other_values_under_a_name_of_fuxictrs_form(space_of):
    space = space_of({"epochs": [1, 2], "learning_rate": [0.01, 0.001], "seed": 7})
    trials = [space.trial(n, each) for n, each in enumerate(space.combinations(), 1)]
    assert [dict(each.overrides) for each in trials] == [
        {"epochs": epochs, "learning_rate": rate} for epochs in (1, 2) for rate in (0.01, 0.001)
    ]
    base = load_config("config", "DIN_small").params
    for number, trial in enumerate(trials, 1):
        assert trial.name == f"DIN_small_00{number}_{trial.digest[:8]}"
        assert trial.params == {**base, **trial.overrides, "seed": 7}
        assert (trial.purpose, trial.seed, trial.row()["number"]) == ("search", 7, number)
    assert len({trial.key for trial in trials}) == 4


def test_a_list_in_a_list_is_a_value_and_a_mapping_is_one_too(space_of):
    space = space_of(
        {
            "dnn_hidden_units": [[8, 8], [8]],
            "metrics": [["AUC", "logloss"]],
            "monitor": {"AUC": 1, "logloss": -1},
        }
    )
    assert [each["dnn_hidden_units"] for each in space.combinations()] == [[8, 8], [8]]
    assert space.config.monitor == {"AUC": 1, "logloss": -1}


def test_a_value_given_twice_is_tried_once_and_one_value_is_no_search(space_of):
    space = space_of({"epochs": [1, 2, 1], "learning_rate": [0.5], "batch_size": 8})
    assert list(space.values) == ["epochs"]
    assert space.size == 2
    assert (space.config.learning_rate, space.config.batch_size) == (0.5, 8)
    assert list(space_of({"epochs": 1}).combinations()) == [{}]


def test_a_range_has_whole_numbers_if_both_ends_and_the_key_do(space_of):
    space = space_of(
        {
            "epochs": {"low": 1, "high": 4},
            "learning_rate": {"low": 1, "high": 2},
            "label_noise_rate": {"low": 0, "high": 0.5},
        }
    )
    assert space.size == float("inf")
    ends = {key: (each.low, each.high) for key, each in space.values.items()}
    kinds = {key: {type(end) for end in pair} for key, pair in ends.items()}
    assert kinds == {"epochs": {int}, "learning_rate": {float}, "label_noise_rate": {float}}
    with pytest.raises(InputError, match="epochs is a range, which has no combinations: list its"):
        list(space.combinations())


def test_only_trials_on_other_data_get_encoded_data_of_their_own(space_of):
    space = space_of({"epochs": [1, 2], "min_categr_count": [1, 2], "embedding_dim": [4, 8]})
    trials = [space.trial(n, each) for n, each in enumerate(space.combinations(), 1)]
    names = {each.params["min_categr_count"]: each.dataset for each in trials}
    assert len({each.dataset for each in trials}) == 2
    assert all(each.dataset == names[each.params["min_categr_count"]] for each in trials)
    same = space_of({"epochs": [1, 2]})
    assert {same.trial(1, each).dataset for each in same.combinations()} == {"small"}


def test_keys_of_the_models_method_are_checked_and_need_not_be_in_the_config(space_of, place):
    file = place / "config" / "model_config.yaml"
    file.write_text(file.read_text().replace("model: DIN_MISS", "model: DIN_S3Rec"))
    keys = {"s3rec_heads": [1, 2], "ssl_pretrain_epochs": 1}
    assert list(space_of(keys, base_expid="DIN_MISS_small").values) == ["s3rec_heads"]
    with pytest.raises(InputError, match=r"yaml, tuner_space: s3rec_heads must be a whole number"):
        space_of({"s3rec_heads": [1, 0]}, base_expid="DIN_MISS_small")
    with pytest.raises(InputError, match=r"Unknown key .*'s3rec_heads'"):
        space_of(keys)


def test_every_setting_of_the_encoded_data_is_one_of_the_space_too(space_of):
    for key in _SETTINGS:
        space = dataclasses.replace(space_of({"epochs": [1, 2]}), values={key: [1, 2]})
        assert not space.has_one_data_set


def test_another_data_set_than_the_expids_may_be_named(space_of, place):
    file = place / "config" / "dataset_config.yaml"
    file.write_text(file.read_text() + file.read_text().replace("small:", "other:", 1))
    space = space_of({"epochs": [1, 2]}, dataset_id="other")
    assert space.trial(1, {"epochs": 1}).dataset == "other"


def test_a_data_set_beside_the_space_is_not_read_and_that_is_said(space_of, capsys):
    space = space_of({"epochs": 1}, dataset_id="small", small={"train_data": "x.csv"})
    assert space.config.train_data != "x.csv"
    assert "small is ignored: base_config has the data set" in capsys.readouterr().err


def test_the_data_set_and_the_model_may_stand_in_the_file_itself_as_bars_has_them(space_of, place):
    read = {name: yaml.safe_load((place / "config" / f"{name}.yaml").read_text())
            for name in ("dataset_config", "model_config")}  # fmt: skip
    data = {**read["dataset_config"]["small"], "min_categr_count": 3}
    space = space_of({"epochs": [1, 2]}, dataset_id="inline", dataset_config={"inline": data})
    assert space.config.params["min_categr_count"] == 3
    assert space.trial(1, {"epochs": 1}).dataset == "inline"
    models = {"Base": read["model_config"]["Base"], "mine": read["model_config"]["DIN_small"]}
    space = space_of({"epochs": [1, 2]}, base_expid="mine", model_config=models)
    assert space.config.model == "DIN"
    with pytest.raises(
        InputError, match=r"my space\.yaml, line \d+, dataset_config: inline is empty"
    ):
        space_of({"epochs": 1}, dataset_id="inline", dataset_config={"inline": None})
    with pytest.raises(InputError, match="dataset_config must have an entry for each name"):
        space_of({"epochs": 1}, dataset_config=["inline"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_config": None}, r"No model_config.* in '\.': set the folder .* by base_config"),
        ({"base_expid": None}, "base_expid is missing"),
        ({"base_config": "gone"}, "'gone': set the folder"),
        ({"base_config": ["a"]}, "base_config must be a text"),
        ({"base_expid": "DIN_smal"}, "Did you mean .*'DIN_small'"),
        ({"dataset_id": "smal"}, "Did you mean 'small'"),
        ({"tuner_spase": {"epochs": [1]}}, "Unknown key 'tuner_spase'. Did you mean 'tuner_spac"),
    ],
)
def test_a_bad_head_is_one_sentence(space_of, change, words):
    with pytest.raises(InputError, match=words) as error:
        space_of({"epochs": [1]}, **change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tuner_space", "words"),
    [
        (None, "tuner_space is missing"),
        ([1], "tuner_space must be lines"),
        ("epochs", "tuner_space must be lines"),
        ({"epochs": []}, "epochs in tuner_space has no value"),
        ({"epoch": [1]}, "Did you mean 'epochs'"),
        ({"epochs": [1, 0]}, r"my space\.yaml, tuner_space: epochs must be"),
        ({"epochs": 0}, "tuner_space: epochs must be"),
        ({"optimizer": ["adam", "adamm"]}, "Did you mean 'adam'"),
        ({"learning_rate": ["high"]}, "learning_rate must be"),
        ({"dnn_hidden_units": [64, 32]}, "dnn_hidden_units must be a list of layer sizes"),
        ({"epochs": {"low": 1}}, "tuner_space, epochs: high is missing"),
        ({"epochs": {"low": 1, "high": 3, "step": 2}}, "Unknown key 'step'"),
        ({"epochs": {"low": "1", "high": 3}}, "epochs: low must be a number, got '1'"),
        ({"epochs": {"low": 3, "high": 3}}, "epochs: low must be below high, got 3 and 3"),
        ({"epochs": {"low": 0, "high": 3}}, "tuner_space: epochs must be"),
        ({"epochs": {"low": 1, "high": 3.5}}, "tuner_space: epochs must be"),
        ({"ssl_weight": {"low": 0, "high": 0.5, "log": True}}, "low must be above 0 for log"),
        ({"ssl_recipe": ["paper", "recommended"]}, "ssl_recipe cannot be in tuner_space: search"),
        ({"dataset_id": "other"}, "dataset_id cannot be in tuner_space: write it beside base_ex"),
        ({"monitor": ["AUC", "logloss"]}, "monitor must have one value, the same for all trials"),
        ({"model_root": ["a", "b"]}, "model_root must have one value"),
        ({"metrics": [["logloss"]]}, r"my space\.yaml compares trials by AUC: add it to metrics"),
    ],
)
def test_a_bad_space_is_one_sentence(space_of, tuner_space, words):
    with pytest.raises(InputError, match=words) as error:
        space_of(tuner_space)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- a", "text", "a: [", "tuner_space: {a: 1, a: 2}"])
def test_a_file_that_is_no_tuner_yaml_is_one_sentence(tmp_path, text):
    path = tmp_path / "my space.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"my space\.yaml"):
        read_space(path)


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/tuner_config/*.yaml")), ids=str)
def test_every_shipped_space_is_valid(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    space = read_space(path)
    assert space.trial(1, next(space.combinations())).name.startswith(space.expid)


def test_the_space_of_the_documentation_is_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    (tmp_path / "space.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    values = read_space(tmp_path / "space.yaml").values
    assert list(values) == ["net_dropout", "dnn_hidden_units", "ssl_temperature", "miss_max_width"]
