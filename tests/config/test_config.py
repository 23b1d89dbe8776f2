"""Configs: all of them load, and mistakes in them are named."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from fuxictr.utils import load_config as load_by_fuxictr

from fuxictr_miss.config import Config, list_datasets, list_expids, load_config
from fuxictr_miss.config.recipes import default_recipe, read_recipe
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.base import list_methods
from fuxictr_miss.registry import list_models
from fuxictr_miss.self_supervision import method_defaults

CONFIG = "config"
ROOT = Path(__file__).resolve().parents[2]
BASE = {
    "model_root": "./checkpoints/", "data_root": "./data/", "metrics": ["AUC"], "optimizer": "adam",
    "loss": "binary_crossentropy", "batch_size": 8, "epochs": 1, "seed": 1, "verbose": 0,
}  # fmt: skip


def config_of(folder: Path, models: str, datasets: str = "tiny: {data_format: csv}\n") -> str:
    """A config folder, BASE in it."""
    folder.mkdir(parents=True, exist_ok=True)
    base = yaml.safe_dump({"Base": BASE})
    (folder / "model_config.yaml").write_text(base + models, encoding="utf-8")
    (folder / "dataset_config.yaml").write_text(datasets, encoding="utf-8")
    return str(folder)


@functools.cache
def pickled_yaml(path: str) -> bytes:
    return pickle.dumps(yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.FullLoader))


@pytest.mark.parametrize("expid", list_expids(CONFIG))
def test_every_expid_means_the_same_to_fuxictr(expid, monkeypatch):
    """But for the recipe below its keys, a layer that FuxiCTR does not have."""
    quick = mock.Mock(load=lambda file, Loader: pickle.loads(pickled_yaml(file.name)))
    monkeypatch.setattr("fuxictr.utils.yaml", quick)  # it parses every file for every expid
    theirs = load_by_fuxictr(CONFIG, expid)
    recipe = default_recipe(theirs["model"])
    below = {} if recipe is None else read_recipe(recipe)
    assert load_config(CONFIG, expid).params == {**below, **theirs}
    model, dataset = theirs["model"], theirs["dataset_id"]
    assert expid == f"{model}_{dataset}"


def test_every_key_of_a_method_stands_in_the_base_or_in_the_recipes():
    """In one of them: what the base sets would win over a recipe."""
    with open(f"{CONFIG}/model_config/base.yaml", encoding="utf-8") as file:
        base = yaml.safe_load(file)["Base"]
    prefixes = ("ssl_", *(f"{name.lower()}_" for name in list_methods()))
    in_base = [key for key in base if key.startswith(prefixes)]
    assert sorted([*in_base, *read_recipe("paper")]) == sorted(method_defaults())


@pytest.mark.parametrize("dataset_id", ["demo", "alipay", "amazonbeauty", "amazonbooks",
                                        "amazoncds", "amazoncds_subset", "amazonapps",
                                        "movielens1m"])  # fmt: skip
def test_every_model_has_an_expid_on_every_data_set(dataset_id):
    backbones = {name for name in list_models() if "_" not in name and name != "MISS"}
    models = backbones | {f"{name}_MISS" for name in backbones - {"LR"}}
    assert {f"{model}_{dataset_id}" for model in models} <= set(list_expids(CONFIG))


def test_the_backbones_of_table_v_have_every_method_on_every_data_set_that_allows_it():
    expids = set(list_expids(CONFIG))
    for dataset in list_datasets(CONFIG):
        for backbone in ("DIN", "PNN", "FiGNN"):
            if f"{backbone}_{dataset}" not in expids:
                assert backbone == "FiGNN"
                continue
            features = load_config(CONFIG, f"{backbone}_{dataset}").params["feature_cols"]
            sequences = sum(feature["type"] == "sequence" for feature in features)
            allowed = set(list_methods()) - ({"Rule"} if sequences == 1 else set())
            found = {m for m in list_methods() if f"{backbone}_{m}_{dataset}" in expids}
            assert found == allowed, (backbone, dataset)  # Rule needs a category


def test_templates_are_no_expids():
    assert not [name for name in list_expids(CONFIG) if name.startswith("_") or name == "Base"]


def test_an_unknown_expid_names_the_closest():
    with pytest.raises(InputError, match="Did you mean 'DIN_MISS_demo'"):
        load_config(CONFIG, "DIN_MIS_demo")


def test_a_folder_without_config_is_named():
    with pytest.raises(InputError, match="nowhere"):
        load_config("nowhere", "DIN_demo")


@pytest.mark.parametrize(
    ("text", "value"),
    [("learning_rate=1e-3", 1e-3), ("epochs=3", 3), ("shuffle=False", False),
     ("miss_interest_encoder=[8, 8]", [8, 8]), ("ssl_feature_weight=null", None)],
)  # fmt: skip
def test_set_takes_yaml_values_and_scientific_numbers(text, value):
    config = load_config(CONFIG, "DIN_MISS_demo")
    assert config.override([text], None).params[text.partition("=")[0]] == value


def test_overridden_runs_have_names_of_their_own():
    config = load_config(CONFIG, "DIN_MISS_demo")
    ids = {
        config.override(sets, seed).model_id
        for sets in ([], ["epochs=3"], ["epochs=4"])
        for seed in (None, 1, 2)
    }
    assert len(ids) == 9


def test_a_mistyped_expid_names_the_three_closest_and_not_all():
    with pytest.raises(InputError) as error:
        load_config(CONFIG, "DIN_MIS_demo")
    said = str(error.value)
    assert said.count("' or '") == 2
    assert "--config config --list` prints all" in said
    assert len(said) < 300


@pytest.mark.parametrize("text", ["epochs", "epoch=3", "ssl_wieght=1", "epochs: 3", "gpu=0",
                                  "dataset_id=amazoncds", "epochs=[", "epochs=*x"])  # fmt: skip
def test_set_refuses_what_is_no_key(text):
    config = load_config(CONFIG, "DIN_MISS_demo")
    with pytest.raises(InputError):
        config.override([text], None)


def test_a_misspelt_key_of_fuxictr_is_pointed_out():
    params: dict[str, Any] = {"learning_rat": 1, "batch_size": 2, "something_of_mine": 3}
    unread = Config.of(params).unread_keys({"hidden_units"}, ("ssl_",))
    assert unread == {"learning_rat": "learning_rate", "something_of_mine": None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs=0", "epochs must be a whole number"),
        ("epochs=1.5", "epochs must be a whole number"),
        ("epochs=", "epochs must be a whole number"),
        ("learning_rate=nan", "learning_rate must be a number"),
        ("learning_rate=.inf", "learning_rate must be a number"),
        ("monitor=auc", "Did you mean 'AUC'"),
        ("optimizer=adamm", "Did you mean 'adam'"),
        ("batch_size=0", "batch_size must be"),
        ("metrics=gAUC", "group_id"),
        ("monitor_mode=min", "worst AUC"),
        ("seed=4294967296", "seed must be"),
        ("ssl_temperature=0", "ssl_temperature must be a number above 0"),
        ("ssl_weight=.nan", "ssl_weight must be"),
        ("ssl_training=jointly", "Did you mean 'joint'"),
        ("model_id=../x", "model_id must be a name"),
        ("model_id=", "model_id must be a name"),
        ("shuffle=yess", "shuffle must be True or False"),
    ],
)
def test_a_bad_value_in_set_is_refused_and_named(text, words):
    with pytest.raises(InputError, match=words) as error:
        load_config(CONFIG, "DIN_MISS_demo").override([text], None)
    assert str(error.value).startswith("--set: ")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(InputError, match="--seed: seed must be a whole number from 0"):
        load_config(CONFIG, "DIN_MISS_demo").override([], seed)


@pytest.mark.parametrize(
    ("text", "value"),
    [("metrics=AUC", ["AUC"]), ("embedding_regularizer=1", 1.0), ("epochs=1_0", 10),
     ("monitor={AUC: 1, logloss: -1}", {"AUC": 1, "logloss": -1}), ("model=2024", "2024")],
)  # fmt: skip
def test_set_gives_the_value_its_type(text, value):
    key = text.partition("=")[0]
    assert load_config(CONFIG, "DIN_MISS_demo").override([text], None).params[key] == value


def test_one_value_written_in_two_ways_is_one_run():
    config = load_config(CONFIG, "DIN_MISS_demo")
    ids = {config.override([f"learning_rate={x}"], None).model_id for x in ("1e-3", "0.001")}
    assert len(ids) == 1


def test_set_gives_no_key_twice():
    with pytest.raises(InputError, match="epochs twice"):
        load_config(CONFIG, "DIN_MISS_demo").override(["epochs=1", "epochs=2"], None)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ("DIN_tiny: {model: DIN, dataset_id: tiny, epochs: 0}", ["DIN_tiny", "epochs", "got 0"]),
        ("DIN_tiny: {model: DIN, dataset_id: tiny, shuffle: 'no'}", ["shuffle", "'no'"]),
        ("DIN_tiny: {model: DIN, dataset_id: tiny, ssl_weight: -1}", ["DIN_tiny", "ssl_weight"]),
        ("DIN_tiny:", ["DIN_tiny is empty"]),
        ("DIN_tiny: DIN", ["DIN_tiny holds 'DIN'"]),
        ("DIN_tiny: [model, DIN]", ["DIN_tiny holds"]),
        ("DIN_tiny: {model: DIN}", ["no dataset_id"]),
        ("DIN_tiny: {dataset_id: tiny}", ["no model"]),
        ("DIN_tiny: {model: DIN, dataset_id: tinny}", ["Did you mean 'tiny'"]),
        ("DIN_tiny: {model: DIN, dataset_id: tiny}\nDIN_tiny: {model: DIN}", ["twice", "line"]),
        ("DIN_tiny: {model: DIN, dataset_id: tiny, model: FM}", ["'model' twice"]),
        ("Base: {}", ["'Base' twice"]),
    ],
)
def test_a_bad_entry_is_one_sentence_with_file_line_and_expid(tmp_path, models, words):
    config = config_of(tmp_path, f"{models}\n")
    with pytest.raises(InputError) as error:
        load_config(config, "DIN_tiny")
    said = str(error.value)
    assert "\n" not in said
    assert all(word in said for word in words), said
    if "Unknown" not in said:
        assert "model_config.yaml" in said


def test_a_value_is_named_with_the_entry_that_it_comes_from(tmp_path):
    config = config_of(
        tmp_path, "DIN_tiny: {model: DIN, dataset_id: tiny}\n", "tiny: {sep: '||'}\n"
    )
    with pytest.raises(InputError, match=r"dataset_config.yaml, line 1, tiny: sep must be"):
        load_config(config, "DIN_tiny")


def test_an_empty_data_set_is_one_sentence(tmp_path):
    config = config_of(tmp_path, "DIN_tiny: {model: DIN, dataset_id: tiny}\n", "tiny:\n")
    with pytest.raises(InputError, match="tiny is empty"):
        load_config(config, "DIN_tiny")


def test_a_key_without_which_nothing_runs_is_named(tmp_path):
    (tmp_path / "dataset_config.yaml").write_text("tiny: {}\n")
    (tmp_path / "model_config.yaml").write_text("DIN_tiny: {model: DIN, dataset_id: tiny}\n")
    with pytest.raises(InputError, match="DIN_tiny, has no model_root: add it there or to Base"):
        load_config(str(tmp_path), "DIN_tiny")


@pytest.mark.parametrize("kind", ["model_config", "dataset_config"])
def test_a_name_in_two_files_is_an_error_with_both_places(tmp_path, kind):
    config = config_of(tmp_path, "DIN_tiny: {model: DIN, dataset_id: tiny}\n")
    (tmp_path / kind).mkdir()
    (tmp_path / f"{kind}.yaml").rename(tmp_path / kind / "a.yaml")
    name = "DIN_tiny" if kind == "model_config" else "tiny"
    (tmp_path / kind / "b.yaml").write_text(f"# ours\n{name}: {{model: DIN, dataset_id: tiny}}\n")
    with pytest.raises(InputError, match=rf"{name} is twice .*a\.yaml, line \d+ .*b\.yaml, line 2"):
        load_config(config, "DIN_tiny")


def test_a_template_may_have_the_same_name_in_two_files(tmp_path):
    config = config_of(tmp_path, "")
    (tmp_path / "model_config").mkdir()
    (tmp_path / "model_config.yaml").rename(tmp_path / "model_config" / "base.yaml")
    for model in ("DIN", "FM"):
        text = f"_t: &t {{model: {model}}}\n{model}_tiny: {{<<: *t, dataset_id: tiny}}\n"
        (tmp_path / "model_config" / f"{model}.yaml").write_text(text)
    assert list_expids(config) == ["DIN_tiny", "FM_tiny"]
    assert load_config(config, "FM_tiny").model == "FM"


@pytest.mark.parametrize("written", ["2024", "'2024'", "2024_01", "010", "1e3", "no"])
@pytest.mark.parametrize("named", ["2024", "'2024'", "2024_01", "010", "1e3", "no"])
def test_a_data_set_may_be_called_by_a_number(tmp_path, written, named):
    config = config_of(
        tmp_path, f"DIN_x: {{model: DIN, dataset_id: {named}}}\n", f"{written}: {{sep: ','}}\n"
    )
    if written.strip("'") == named.strip("'"):
        assert load_config(config, "DIN_x").dataset_id == written.strip("'")
    else:
        with pytest.raises(InputError, match="Unknown dataset_id"):
            load_config(config, "DIN_x")


@pytest.mark.parametrize("name", ["exp [1]", "a*b", "what?", "{x}", "[!a]"])
def test_a_folder_is_no_pattern(tmp_path, name):
    config = config_of(tmp_path / name, "DIN_tiny: {model: DIN, dataset_id: tiny}\n")
    assert list_expids(config) == ["DIN_tiny"]
    assert load_config(config, "DIN_tiny").epochs == 1


def test_values_have_their_types_and_foreign_keys_their_value(tmp_path):
    config = config_of(
        tmp_path,
        "DIN_tiny: {model: DIN, dataset_id: tiny, learning_rate: 1e-3, net_regularizer: 1, "
        "metrics: AUC, dnn_hidden_units: [8, 1], net_dropout: '1e-1', my_key: {a: [1]}}\n",
    )
    params = load_config(config, "DIN_tiny").params
    assert params["learning_rate"] == 1e-3
    assert isinstance(params["net_regularizer"], float)
    assert params["metrics"] == ["AUC"]
    assert (params["dnn_hidden_units"], params["net_dropout"]) == ([8, 1], "1e-1")
    assert params["my_key"] == {"a": [1]}


def test_a_bad_value_is_said_before_torch_is_imported():
    program = """import runpy, sys
try:
    runpy.run_path(sys.argv.pop(1), run_name="__main__")
finally:
    assert not {"torch", "ray", "polars", "pandas"} & set(sys.modules)"""
    for bad in (["--set", "epochs=0"], ["--seed", "-1"], ["--gpu", "foo"], ["--gpu", "-2"]):
        done = subprocess.run(
            [sys.executable, "-c", program, "run_expid.py", "--expid", "DIN_demo", *bad],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "error: " in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
