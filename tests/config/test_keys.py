"""Every value that FuxiCTR or we read: what is taken, as what, and what is refused."""

from __future__ import annotations

import datetime
import math
from typing import Any, get_args

import pytest
import torch
from fuxictr.metrics import evaluate_metrics
from fuxictr.pytorch.torch_utils import get_loss, get_optimizer, get_regularizer
from hypothesis import given, settings
from hypothesis import strategies as st

from fuxictr_miss import experiment
from fuxictr_miss.config import Config
from fuxictr_miss.config.keys import Loss, Optimizer
from fuxictr_miss.config.settings import SSLSettings, keys_of
from fuxictr_miss.config.values import describe
from fuxictr_miss.errors import InputError

TAKEN = [
    ("epochs", 3, 3),
    ("learning_rate", "1e-3", 1e-3),  # what YAML 1.1 makes of 1e-3
    ("learning_rate", 1, 1.0),
    ("metrics", "AUC", ["AUC"]),
    ("metrics", ("AUC", "logloss"), ["AUC", "logloss"]),
    ("monitor", {"AUC": 1, "logloss": -1}, {"AUC": 1, "logloss": -1}),
    ("optimizer", "ADAM", "ADAM"),
    ("optimizer", "SGD", "SGD"),
    ("embedding_regularizer", 1, 1.0),
    ("embedding_regularizer", 0, 0.0),
    ("net_regularizer", None, None),
    ("net_regularizer", "1e-4", 1e-4),
    ("net_regularizer", "l2(1e-4)", "l2(1e-4)"),
    ("regularizer", "l1_l2(1.e-4, 0.5)", "l1_l2(1.e-4, 0.5)"),
    ("eval_steps", None, None),
    ("dataset_id", 2024, "2024"),
    ("shuffle", 0, False),
    ("verbose", True, True),
    ("seed", 2**32 - 1, 2**32 - 1),
    ("valid_size", 1000, 1000),
    ("valid_size", 0.1, 0.1),
    ("gpu", -1, -1),
    ("task", ["binary_classification", "binary_classification"],
     ["binary_classification", "binary_classification"]),
    ("test_data", None, None),
    ("memory_budget_gb", 0, 0.0),
]  # fmt: skip
REFUSED = [
    ("epochs", 0), ("epochs", 1.5), ("epochs", 3.0), ("epochs", "3"), ("epochs", None),
    ("epochs", True), ("epochs", [3]), ("epochs", 10**20), ("epochs", -1), ("epochs", math.nan),
    ("batch_size", 0), ("batch_size", 12.5), ("batch_size", 2**31),
    ("learning_rate", 0), ("learning_rate", -1e-3), ("learning_rate", math.nan),
    ("learning_rate", math.inf), ("learning_rate", "fast"), ("learning_rate", "nan"),
    ("learning_rate", True), ("learning_rate", None), ("learning_rate", [1e-3]),
    ("max_gradient_norm", 0), ("max_gradient_norm", math.inf), ("max_gradient_norm", None),
    ("seed", -1), ("seed", 2**32), ("seed", 1.0), ("seed", None), ("seed", "1"),
    ("early_stop_patience", 0), ("early_stop_patience", 2.5), ("early_stop_patience", math.inf),
    ("eval_steps", 0), ("eval_steps", -5), ("eval_steps", 0.5), ("eval_steps", "100"),
    ("metrics", []), ("metrics", None), ("metrics", {"AUC": 1}), ("metrics", ["auc"]),
    ("metrics", [None]), ("metrics", ["AUC", "RMSE"]), ("metrics", "NDCG@5"),
    ("metrics", ["NDCG"]), ("metrics", ["NDCG(0)"]), ("metrics", ["NDCG.__class__"]),
    ("monitor", "auc"), ("monitor", {}), ("monitor", ["AUC"]), ("monitor", None),
    ("monitor", {"AUC": 0}), ("monitor", {"AUC": math.nan}), ("monitor", {"AUC": "1"}),
    ("monitor", {"AUC": True}), ("monitor", {"Auc": 1}),
    ("monitor_mode", "maximum"), ("monitor_mode", None), ("monitor_mode", ["max"]),
    ("optimizer", "adamm"), ("optimizer", "sgd"), ("optimizer", "LBFGS"), ("optimizer", None),
    ("optimizer", "SparseAdam"), ("optimizer", "__class__"), ("optimizer", ["adam"]),
    ("loss", "bcee"), ("loss", None), ("loss", "relu"), ("loss", []), ("loss", ["bce", "x"]),
    ("task", "classification"), ("task", None), ("task", []),
    ("embedding_regularizer", -1), ("embedding_regularizer", math.nan),
    ("embedding_regularizer", "l3(1)"), ("embedding_regularizer", "l2(x)"),
    ("embedding_regularizer", "l2"), ("embedding_regularizer", "0.1"),
    ("embedding_regularizer", "l2(-1)"), ("embedding_regularizer", "l2(1"),
    ("embedding_regularizer", True), ("embedding_regularizer", [1e-5]),
    ("net_regularizer", "l1_l2(1)"), ("net_regularizer", math.inf), ("regularizer", "none"),
    ("embedding_dim", 0), ("embedding_dim", None), ("embedding_dim", 8.0), ("embedding_dim", "8"),
    ("num_workers", -1), ("num_workers", None), ("verbose", -1), ("verbose", "1"),
    ("shuffle", "False"), ("shuffle", None), ("shuffle", 2), ("shuffle", "no"),
    ("save_best_only", "True"), ("reduce_lr_on_plateau", 0.5), ("debug_mode", "x"),
    ("label_noise_rate", 1), ("label_noise_rate", -0.1), ("label_noise_rate", math.nan),
    ("train_sample_rate", 0), ("train_sample_rate", 1.1), ("train_sample_rate", "80%"),
    ("memory_budget_gb", -1), ("memory_budget_gb", "2GB"), ("memory_budget_gb", math.inf),
    ("autocast", "fp8"), ("autocast", True), ("data_format", "csvv"), ("data_format", None),
    ("vocab_scope", "al"), ("split_type", "sequentially"), ("valid_size", 1.5),
    ("valid_size", -1), ("test_size", math.nan), ("sep", "||"), ("sep", ""), ("sep", None),
    ("model", None), ("model", ""), ("model", ["DIN"]), ("model", "a/b"),
    ("dataset_id", ".."), ("dataset_id", "a\\b"), ("dataset_id", True), ("dataset_id", 1.5),
    ("dataset_id", datetime.date(2024, 1, 1)), ("model_id", "x" * 300), ("model_id", " x"),
    ("gpu", -2), ("gpu", "0"), ("gpu", [0]), ("gpu", 1.0), ("gpu", None),
    ("model_root", None), ("model_root", ""), ("model_root", 7), ("data_root", ["x"]),
    ("data_root", "~/x"), ("model_root", "~"),
    ("train_data", 3), ("valid_data", ["a"]), ("vocab_data", {}), ("model_zoo_path", 1),
    ("feature_cols", []), ("feature_cols", None), ("feature_cols", "item_id"),
    ("feature_cols", ["item_id"]), ("label_col", "label"), ("use_features", "all"),
    ("feature_specs", 3), ("feature_specs", ["a"]),
    ("group_id", ["a"]), ("min_categr_count", -1), ("num_tasks", 0), ("num_buckets", 1.5),
    ("buffer_size", "big"), ("data_block_size", -2), ("rebuild_dataset", "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "expected"), TAKEN)
def test_a_good_value_is_taken_in_its_type(key, value, expected):
    taken = Config.of({key: value}).params
    assert taken == {key: expected}
    assert type(taken[key]) is type(expected)


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_bad_value_is_one_sentence_with_the_place_the_key_and_the_value(key, value):
    with pytest.raises(InputError) as error:
        Config.of({key: value}, {key: "config/x.yaml, line 3, DIN_x"})
    said = str(error.value)
    assert said.startswith("config/x.yaml, line 3, DIN_x: ")
    assert key in said
    assert "\n" not in said
    assert said.endswith(".")
    shown = [value]
    if isinstance(value, list | dict):
        shown += [*value, *(value.values() if isinstance(value, dict) else ())]
    assert any(repr(each)[:40] in said for each in shown), said


@pytest.mark.parametrize(
    ("key", "value", "closest"),
    [("monitor", "auc", "AUC"), ("optimizer", "adamm", "adam"), ("optimizer", "sgd", "SGD"),
     ("optimizer", "Adamw", "AdamW"), ("metrics", ["LogLoss"], "logloss"),
     ("metrics", ["NDCG@10"], "NDCG(10)"), ("loss", "binary_crosentropy", "binary_crossentropy"),
     ("task", "regresion", "regression"), ("data_format", "Parquet", "parquet"),
     ("monitor_mode", "MAX", "max"), ("vocab_scope", "al", "all"), ("autocast", "bf32", "bf16")],
)  # fmt: skip
def test_a_mistyped_name_is_answered_with_the_closest(key, value, closest):
    with pytest.raises(InputError, match="Did you mean") as error:
        Config.of({key: value})
    assert f"Did you mean {closest!r}?" in str(error.value)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"monitor": "logloss", "monitor_mode": "max"}, "worst logloss"),
        ({"monitor": "logloss"}, "worst logloss"),  # FuxiCTR's default is max
        ({"monitor": "AUC", "monitor_mode": "min"}, "worst AUC"),
        ({"monitor": {"AUC": 1, "logloss": 1}, "monitor_mode": "max"}, "worst logloss"),
        ({"monitor": {"AUC": -1}, "monitor_mode": "max"}, "worst AUC"),
        ({"metrics": ["gAUC"]}, "group_id"),
        ({"metrics": ["NDCG(5)"], "group_id": None}, "group_id"),
        ({"metrics": ["AUC"], "monitor": "MRR"}, "group_id"),
        ({"group_id": "usr", "feature_cols": [{"name": ["user", "item"]}]}, "Did you mean 'user'"),
        ({"use_features": ["itm"], "feature_cols": [{"name": "item"}]}, "Did you mean 'item'"),
        ({"use_features": ["item"], "group_id": "user"}, "use_features leaves out 'user'"),
        ({"feature_specs": [{"name": "itm"}], "feature_cols": [{"name": "item"}]}, "feature_specs"),
    ],
)
def test_two_values_that_contradict_each_other_are_refused(params, words):
    with pytest.raises(InputError, match=words):
        Config.of(params)


@pytest.mark.parametrize(
    "params",
    [
        {"monitor": "logloss", "monitor_mode": "min"},
        {"monitor": {"AUC": 1, "logloss": -0.5}, "monitor_mode": "max"},
        {"monitor": {"AUC": -1, "logloss": 1}, "monitor_mode": "min"},
        {"metrics": ["AUC"], "monitor": "logloss", "monitor_mode": "min"},  # FuxiCTR computes it
        {"metrics": ["gAUC", "NDCG(k=3)"], "group_id": "user", "feature_cols": [{"name": "user"}]},
        {"metrics": ["gAUC"], "group_id": "user"},  # encoded elsewhere: no feature_cols
    ],
)
def test_two_values_that_fit_are_taken(params):
    assert Config.of(params).params == params


def test_keys_of_a_model_pass_untouched():
    own = {"num_heads": 0, "my_rate": math.nan, "din_target_field": object()}
    assert Config.of(own).params == own


def test_every_optimizer_on_the_list_takes_a_step():
    for name in get_args(get_args(Optimizer)[0]):
        layer = torch.nn.Linear(2, 2)
        before = layer.weight.clone()
        optimizer = get_optimizer(name, layer.parameters(), 0.1)
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        assert not torch.equal(before, layer.weight), name


def test_every_loss_on_the_list_is_one_of_a_prediction_and_a_label():
    for name in get_args(Loss):
        loss = get_loss(name)(torch.tensor([[0.4]]), torch.tensor([[1.0]]), reduction="mean")
        assert loss.ndim == 0, name


def test_fuxictr_knows_every_metric_and_regularizer_that_is_taken():
    for metric in ("AUC", "logloss", "binary_crossentropy"):
        assert evaluate_metrics([0, 1], [0.2, 0.6], Config.of({"metrics": metric}).metrics)
    for key, value, _ in TAKEN:
        if key.endswith("regularizer") and value is not None:
            assert get_regularizer(Config.of({key: value}).params[key])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(Config.model_fields)), VALUES, max_size=4))
def test_any_values_are_taken_for_good_or_refused_in_one_sentence(params: dict[str, Any]):
    try:
        taken = Config.of(params).params
    except InputError as error:
        said = str(error)
    else:
        said = "taken."
        assert repr(Config.of(taken).params) == repr(taken)
        assert taken.keys() == params.keys()
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("key", "value"),
    [("dnn_hidden_units", "a"), ("dnn_hidden_units", [0]), ("hidden_units", 40),
     ("attention_hidden_units", [4.5]), ("hidden_units", [True]), ("net_dropout", 2),
     ("net_dropout", math.nan), ("attention_dropout", -0.1), ("dropout_rates", "a"),
     ("dnn_activations", 3), ("batch_norm", 5), ("batch_norm", "False"),
     ("din_use_softmax", "maybe"), ("use_wide", 2)],
)  # fmt: skip
def test_keys_that_mean_the_same_in_every_model_are_checked_by_their_ending(key, value):
    with pytest.raises(InputError, match=f"^{key} must be "):
        Config.of({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [("dnn_hidden_units", []), ("dnn_hidden_units", None), ("tower_hidden_units", [[8, 4], [4]]),
     ("net_dropout", 0), ("net_dropout", 1), ("net_dropout", [0.1, 0]), ("batch_norm", 1),
     ("dnn_activations", ["relu", "Dice"]), ("dnn_activations", None), ("not_dropout_at_all", "x")],
)  # fmt: skip
def test_what_a_model_may_have_there_passes(key, value):
    assert Config.of({key: value}).params == {key: value}


def test_a_key_that_is_not_given_has_its_default_but_is_not_passed_on():
    config = Config.of({"model": "DIN", "my_key": 1})
    assert (config.num_threads, config.shuffle, config.max_gradient_norm) == (1, True, 10.0)
    assert config.params == {"model": "DIN", "my_key": 1}


def test_other_values_make_another_config_and_their_place_is_named():
    config = Config.of({"epochs": 1, "dnn_hidden_units": [8]})
    assert config.replace({"epochs": 2}, "").params == {"epochs": 2, "dnn_hidden_units": [8]}
    assert config.epochs == 1
    for changes in ({"epochs": 0}, {"dnn_hidden_units": [0]}, {"ssl_weight": -1},
                    {"monitor_mode": "min"}):  # fmt: skip
        with pytest.raises(InputError, match=r"^my_file\.yaml: "):
            config.replace(changes, "my_file.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 0


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("dnn_hidden_units", [0], "a list of layer sizes, whole numbers from 1"),
        ("net_dropout", "x", "a number from 0 to 1, or a list, each entry a number from 0 to 1, "),
        ("batch_norm", 5, "True or False, without quotes, or null"),
        ("eval_steps", 0, "a whole number from 1 to 2147483647, or null"),
        ("ssl_sequences", [["a"], ["a"]], "a list of sequences, each once, or a list of such"),
        ("ssl_block_size", 0, "a whole number from 1 to 2147483647, or null"),
        ("optimizer", 3, "one of ASGD, "),
        ("train_data", 3, "a text, or null"),
    ],
)
def test_a_sentence_says_what_each_part_of_a_type_takes(key, value, rule):
    with pytest.raises(InputError, match=f"{key} must be {rule}.*, got "):
        Config.of({key: value})


def test_every_key_says_what_it_takes():
    for fields in (Config.model_fields, keys_of(SSLSettings, "ssl_").model_fields):
        assert not [key for key, field in fields.items() if not describe(field)]


def test_a_config_is_a_config_already():
    config = Config.of({"epochs": 1})
    assert Config.of(config) is config


@pytest.mark.parametrize("key", ["model", "epochs", "metrics", "seed", "model_id"])
def test_an_experiment_without_a_key_that_it_needs_is_refused(params, key):
    del params[key]
    for start in (experiment.run, experiment.build, experiment.load_trained):
        with pytest.raises(InputError, match=f"The config has no {key}: add it"):
            start(params)


def test_a_key_that_is_no_text_is_refused():
    with pytest.raises(InputError, match="The key 1 must be text"):
        Config.of({1: "x"})


def test_keys_named_like_parts_of_a_config_are_keys_like_others():
    own = {"params": 1, "settings": 2, "override": 3, "model_config": 4, "copy": 5, "file": 6}
    assert Config.of(own).params == own
    changed = Config.of(own).override(["epochs=2"], None)
    assert changed.params == {**own, "epochs": 2, "model_id": changed.model_id}


def test_where_a_run_happens_does_not_decide_what_it_computes():
    there = {"gpu": 0, "verbose": 1, "model_root": "x", "data_root": "y", "num_workers": 3}
    assert Config.of({"epochs": 2, "ssl_weight": 1, **there}).settings == {
        "epochs": 2, "ssl_weight": 1,
    }  # fmt: skip
