"""Configs: all of them load, and mistakes in them are named."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from fuxictr.utils import load_config

from fuxictr_miss.config import list_expids, load_params, misspelt, override
from fuxictr_miss.enhancer import method_defaults
from fuxictr_miss.errors import InputError
from fuxictr_miss.registry import list_methods, list_models

CONFIG = "config"


@pytest.mark.parametrize("expid", list_expids(CONFIG))
def test_every_expid_means_the_same_to_fuxictr(expid):
    theirs = load_config(CONFIG, expid)
    assert load_params(CONFIG, expid) == theirs
    model, dataset = theirs["model"], theirs["dataset_id"]
    assert expid == f"{model}_{dataset}"


def test_every_key_of_a_method_stands_in_the_base():
    """Or FuxiCTR's tuner rejects the key in a search space."""
    with open(f"{CONFIG}/model_config/base.yaml", encoding="utf-8") as file:
        base = yaml.safe_load(file)["Base"]
    prefixes = ("ssl_", *(f"{name.lower()}_" for name in list_methods()))
    assert {key for key in base if key.startswith(prefixes)} == set(method_defaults())


@pytest.mark.parametrize("dataset_id", ["demo", "alipay", "amazonbeauty", "amazonbooks",
                                        "amazoncds", "amazoncds_subset"])  # fmt: skip
def test_every_model_has_an_expid_on_every_data_set(dataset_id):
    backbones = {name for name in list_models() if "_" not in name and name != "MISS"}
    models = backbones | {f"{name}_MISS" for name in backbones - {"LR"}}
    assert {f"{model}_{dataset_id}" for model in models} <= set(list_expids(CONFIG))


def test_the_backbones_of_table_v_have_every_method_on_every_data_set_that_allows_it():
    for backbone in ("DIN", "PNN", "FiGNN"):
        expids = [e for e in list_expids(CONFIG) if e.startswith(f"{backbone}_")]
        for method in list_methods():
            found = sum(e.startswith(f"{backbone}_{method}_") for e in expids)
            assert found == (5 if method == "Rule" else 6)  # Rule needs a category


def test_templates_are_no_expids():
    assert not [name for name in list_expids(CONFIG) if name.startswith("_") or name == "Base"]


def test_an_unknown_expid_names_the_closest():
    with pytest.raises(InputError, match="Did you mean 'DIN_MISS_demo'"):
        load_params(CONFIG, "DIN_MIS_demo")


def test_a_folder_without_config_is_named():
    with pytest.raises(InputError, match="nowhere"):
        load_params("nowhere", "DIN_demo")


@pytest.mark.parametrize(
    ("text", "value"),
    [("learning_rate=1e-3", 1e-3), ("epochs=3", 3), ("shuffle=False", False),
     ("miss_interest_encoder=[8, 8]", [8, 8]), ("ssl_feature_weight=null", None)],
)  # fmt: skip
def test_set_takes_yaml_values_and_scientific_numbers(text, value):
    params = load_params(CONFIG, "DIN_MISS_demo")
    assert override(params, [text], None)[text.partition("=")[0]] == value


def test_overridden_runs_have_names_of_their_own():
    params = load_params(CONFIG, "DIN_MISS_demo")
    ids = {
        override(params, sets, seed)["model_id"]
        for sets in ([], ["epochs=3"], ["epochs=4"])
        for seed in (None, 1, 2)
    }
    assert len(ids) == 9


@pytest.mark.parametrize("text", ["epochs", "epoch=3", "ssl_wieght=1"])
def test_set_refuses_what_is_no_key(text):
    params = load_params(CONFIG, "DIN_MISS_demo")
    with pytest.raises(InputError):
        override(params, [text], None)


def test_a_misspelt_key_of_fuxictr_is_pointed_out():
    params: dict[str, Any] = {"learning_rat": 1, "batch_size": 2, "something_of_mine": 3}
    (sentence,) = misspelt(params, {"hidden_units"})
    assert "'learning_rat'" in sentence
    assert "'learning_rate'" in sentence
