"""Recipes: which keys they set, and what wins over them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

import fuxictr_miss as fm
from fuxictr_miss import experiment
from fuxictr_miss.config import Config, load_config
from fuxictr_miss.config.recipes import read_recipe
from fuxictr_miss.errors import InputError
from fuxictr_miss.self_supervision import check_method_keys, method_defaults

PAPER, RECOMMENDED = read_recipe("paper"), read_recipe("recommended")
# a key in which they differ, whatever they say
KEY = next(key for key in PAPER if key != "ssl_recipe" and PAPER[key] != RECOMMENDED[key])
BASE = {
    "model_root": "./checkpoints/", "data_root": "./data/", "metrics": ["AUC"], "optimizer": "adam",
    "loss": "binary_crossentropy", "batch_size": 8, "epochs": 1, "seed": 1, "verbose": 0,
    "dataset_id": "tiny",
}  # fmt: skip


@pytest.fixture
def load(tmp_path: Path):
    """(model, keys of its entry, keys of the data set) -> its config, from a foreign folder."""

    def make(model: str, keys: dict[str, Any] | None = None, data: dict[str, Any] | None = None):
        entries = {"Base": BASE, "exp": {"model": model, **(keys or {})}}
        (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(entries))
        data = {"data_format": "csv", **(data or {})}
        (tmp_path / "dataset_config.yaml").write_text(yaml.safe_dump({"tiny": data}))
        return load_config(str(tmp_path), "exp")

    return make


def recipe_of(config: Config) -> dict[str, Any]:
    return {key: config.params[key] for key in PAPER if key in config.params}


def test_recipes_set_the_same_keys_and_know_no_others():
    assert PAPER.keys() == RECOMMENDED.keys()
    assert set(PAPER) <= set(method_defaults())
    for recipe in (PAPER, RECOMMENDED):
        check_method_keys(recipe)


def test_the_papers_recipe_is_the_default_of_the_code():
    """What the paper names; the rest is what changes nothing of it."""
    defaults = method_defaults()
    alpha = {"ssl_feature_weight": PAPER["ssl_weight"]}  # null: α1
    differing = {k: v for k, v in PAPER.items() if v != {**defaults, **alpha}[k]}
    assert differing == {"ssl_recipe": "paper"}


@pytest.mark.parametrize("model", ["DIN_MISS", "PNN_MISS", "MISS", "DIN_PPMI"])
def test_one_word_in_a_foreign_folder_gives_the_recommended_recipe(load, model):
    assert recipe_of(load(model)) == RECOMMENDED


@pytest.mark.parametrize("model", ["DIN", "DIN_S3Rec", "DIN_CL4SRec"])
def test_other_models_have_no_recipe_unless_they_name_one(load, model):
    assert recipe_of(load(model)) == {}
    assert recipe_of(load(model, {"ssl_recipe": "paper"})) == PAPER


def test_null_is_no_recipe(load):
    assert recipe_of(load("DIN_MISS", {"ssl_recipe": None})) == {"ssl_recipe": None}


def test_a_recipe_may_be_named_by_the_model_or_by_the_data_set(load):
    assert recipe_of(load("DIN_MISS", {"ssl_recipe": "paper"})) == PAPER
    assert recipe_of(load("DIN_MISS", data={"ssl_recipe": "paper"})) == PAPER


def test_a_key_of_ones_own_wins_over_the_recipe(load):
    own = {KEY: PAPER[KEY]}
    for config in (load("DIN_MISS", own), load("DIN_MISS", data=own)):
        assert recipe_of(config) == {**RECOMMENDED, **own}


def test_set_resets_every_key_of_the_recipe_but_those_beside_it(load):
    config = load("DIN_MISS", {"ssl_weight": 0.3})
    assert recipe_of(config.override(["ssl_recipe=paper"], None)) == PAPER
    both = config.override(["ssl_recipe=paper", "ssl_weight=0.7"], None)
    assert recipe_of(both) == {**PAPER, "ssl_weight": 0.7}


@pytest.mark.parametrize("name", ["papers", 3])
def test_an_unknown_recipe_is_refused_with_the_valid_ones(load, name):
    config = load("DIN_MISS")
    for make in (
        lambda: load("DIN_MISS", {"ssl_recipe": name}),
        lambda: config.override([f"ssl_recipe={name}"], None),
        lambda: Config.of({**BASE, "model": "DIN_MISS", "ssl_recipe": name}),
    ):
        with pytest.raises(InputError, match="Unknown ssl_recipe") as error:
            make()
        assert "recommended" in str(error.value)


def test_a_recipe_named_in_a_plain_dict_holds_too(params):
    """As in FuxiCTR's own scripts, which merge no recipes."""
    model, _ = experiment.build({**params, "model": "DIN_MISS", "ssl_recipe": "recommended"})
    plain = {key: value for key, value in params.items() if key != "model"}
    direct = fm.get_model("DIN_MISS")(model.feature_map, ssl_recipe="recommended", **plain)
    for each in (model, direct):
        assert each._self_supervision.settings.thaw == RECOMMENDED["ssl_thaw"]
        method = each._self_supervision.methods[0]
        assert method.settings.separate_features == RECOMMENDED["miss_separate_features"]


def test_configs_share_no_list_of_a_recipe(load):
    load("DIN_MISS").params["miss_feature_encoder"].append(1)
    assert load("DIN_MISS").params["miss_feature_encoder"] == RECOMMENDED["miss_feature_encoder"]


def lines(caplog, params: dict[str, Any]) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        experiment.build(params)
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("Recipe ")]


def test_the_log_says_in_one_line_which_recipe_a_run_uses_and_what_it_adds(params, caplog):
    params = {**params, "model": "DIN_MISS", "ssl_recipe": "recommended"}
    (line,) = lines(caplog, params)
    assert line.startswith("Recipe recommended: ")
    for key, value in RECOMMENDED.items():
        if value != method_defaults()[key] and key != "ssl_recipe":
            assert f"{key} {'null' if value is None else value}" in line
    (line,) = lines(caplog, {**params, "ssl_weight": 0.25})
    assert line.endswith("; changed: ssl_weight 0.25.")
    (line,) = lines(caplog, {**params, "model": "DIN_PPMI"})
    assert "miss_" not in line
    assert lines(caplog, {**params, "ssl_recipe": None}) == []


# ----------------------------------------------------------------- renamed keys


def warnings_of(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if "ssl_embedding_lr_scale" in r.getMessage()]


@pytest.mark.parametrize("model", ["DIN_MISS", "DIN_S3Rec"])
def test_the_old_name_of_the_gradients_still_works_with_one_warning(load, caplog, model):
    new = {"ssl_label_gradient": 0.2, "ssl_other_gradient": 0.2}
    config = load(model, {"ssl_embedding_lr_scale": 0.2})
    assert new.items() <= config.params.items()
    assert "ssl_embedding_lr_scale" not in config.params
    Config.of(config.params)
    (warning,) = warnings_of(caplog)
    assert "ssl_label_gradient and ssl_other_gradient" in warning


def test_the_old_name_works_in_set_too(load, caplog):
    config = load("DIN_MISS")
    old = config.override(["ssl_embedding_lr_scale=0.2"], None)
    assert len(warnings_of(caplog)) == 1
    assert old.params["ssl_label_gradient"] == old.params["ssl_other_gradient"] == 0.2
    assert old.model_id != config.model_id
