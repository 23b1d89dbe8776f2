"""The `ssl_` and `miss_` keys: defaults, types, ranges, and what a wrong one is answered."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fuxictr_miss.config.settings import SSLSettings, keys_of, read_settings
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.miss import MISSSettings
from fuxictr_miss.self_supervision import check_method_keys, method_defaults

# the table "Hyper-parameters" of the design, from Section VI.A of the paper
DEFAULTS = {
    "ssl_weight": 0.5,
    "ssl_feature_weight": None,
    "ssl_temperature": 0.1,
    "miss_max_width": 3,
    "miss_max_height": 2,
    "miss_max_distance": 3,
    "miss_num_pairs": 1,
    "miss_far_share": 0.0,
    "miss_num_feature_pairs": 1,
    "miss_interest_encoder": [20, 20],
    "miss_feature_encoder": [10, 10],
    "miss_extractor": "cnn",
    "miss_activation": "relu",
    "miss_variant": "",
    "ssl_training": "joint",
    "ssl_pretrain_epochs": 30,
    "ssl_sequences": None,
}

BAD_VALUES = [
    ("ssl_weight", -0.1),
    ("ssl_weight", math.nan),
    ("ssl_weight", "0.5"),
    ("ssl_weight", None),
    ("ssl_weight", True),
    ("ssl_feature_weight", -1),
    ("ssl_feature_weight", math.nan),
    ("ssl_feature_weight", [0.5]),
    ("ssl_temperature", 0),
    ("ssl_temperature", -0.1),
    ("ssl_temperature", math.nan),
    ("ssl_temperature", math.inf),
    ("ssl_temperature", "nan"),
    ("ssl_weight", math.inf),
    ("ssl_feature_weight", math.inf),
    ("ssl_pretrain_learning_rate", math.inf),
    ("ssl_pretrain_learning_rate", math.nan),
    ("ssl_pretrain_learning_rate", False),
    ("ssl_label_gradient", math.inf),
    ("ssl_every", True),
    ("ssl_block_size", 128.0),
    ("ssl_pretrain_epochs", "30"),
    ("ssl_sequences", []),
    ("ssl_sequences", ["item_history", "item_history"]),
    ("miss_num_pairs", -1),
    ("miss_num_pairs", 1e3),
    ("miss_max_width", "1e1"),
    ("miss_interest_encoder", [True]),
    ("miss_symmetric", 1),
    ("miss_symmetric", "False"),
    ("ssl_block_size", 0),
    ("ssl_block_size", 1.5),
    ("ssl_every", 0),
    ("ssl_every", None),
    ("ssl_pretrain_batch_size", 0),
    ("ssl_pretrain_learning_rate", 0.0),
    ("ssl_training", "joined"),
    ("ssl_training", None),
    ("ssl_pretrain_epochs", 0),
    ("ssl_pretrain_epochs", 2.5),
    ("ssl_label_gradient", -1.0),
    ("ssl_label_gradient", math.nan),
    ("ssl_label_gradient", 1.1),
    ("ssl_other_gradient", 2),
    ("ssl_recipe", "papers"),
    ("ssl_start", "ppmi"),
    ("ssl_row_norm", "unit"),
    ("ssl_thaw", "yes"),
    ("ssl_user", 3),
    ("ssl_label_learning_rate", 0),
    ("ssl_pretrain_schedule", "cosine"),
    ("ssl_pretrain_sampling", "rows"),
    ("ssl_sequences", "item_history"),
    ("ssl_sequences", [1, 2]),
    ("miss_max_width", 0),
    ("miss_max_width", 3.0),
    ("miss_max_width", None),
    ("miss_max_height", 0),
    ("miss_max_height", False),
    ("miss_max_distance", 0),
    ("miss_max_distance", -3),
    ("miss_far_share", 1.1),
    ("miss_far_share", None),
    ("miss_num_pairs", 0),
    ("miss_num_pairs", True),
    ("miss_num_feature_pairs", 0),
    ("miss_interest_encoder", [20, 0]),
    ("miss_interest_encoder", 20),
    ("miss_interest_encoder", "[20, 20]"),
    ("miss_feature_encoder", [10, -1]),
    ("miss_feature_encoder", [10, 2.5]),
    ("miss_extractor", "CNN2d"),
    ("miss_variant", "F"),
    ("miss_variant", None),
]

GOOD_VALUES = [
    ("ssl_weight", 0.0),
    ("ssl_feature_weight", 0.0),
    ("ssl_feature_weight", None),
    ("ssl_training", "pretrain"),
    ("ssl_training", "pretrain_joint"),
    ("ssl_label_gradient", 0.0),
    ("ssl_label_gradient", 1.0),
    ("ssl_recipe", "paper"),
    ("ssl_sequences", ["item_history"]),
    ("miss_max_width", 1),
    ("miss_interest_encoder", [1]),
    ("miss_interest_encoder", []),
    ("miss_feature_encoder", []),
    ("miss_max_distance", None),
    ("miss_extractor", "self_attention"),
    ("miss_extractor", "lstm"),
    ("miss_variant", "/F"),
    ("miss_variant", "/F/U"),
    ("miss_variant", "/F/L"),
    ("miss_variant", "/F/U/L"),
]


def read(params: dict[str, Any]) -> dict[str, Any]:
    """All keys with their values, as a model reads them from its config."""
    ssl = read_settings(SSLSettings, "ssl_", params)
    miss = read_settings(MISSSettings, "miss_", params)
    values = {
        key: getattr(ssl, key.removeprefix("ssl_"))
        for key in keys_of(SSLSettings, "ssl_").model_fields
    }
    for key in keys_of(MISSSettings, "miss_").model_fields:
        values[key] = getattr(miss, key.removeprefix("miss_"))
    return values


def test_defaults_are_those_of_the_paper() -> None:
    assert DEFAULTS.items() <= read({}).items()


def test_a_temperature_of_null_rises_with_the_width_of_the_embeddings() -> None:
    settings = read_settings(SSLSettings, "ssl_", {"ssl_temperature": None})
    assert settings.of_width(10) == SSLSettings(temperature=0.1)
    assert settings.of_width(40) == SSLSettings(temperature=0.2)
    assert SSLSettings(temperature=0.3).of_width(40).temperature == 0.3


def test_every_key_has_a_default_for_the_config() -> None:
    """FuxiCTR's tuner refuses a key that the base config does not list."""
    assert read({}).items() <= method_defaults().items()


def test_defaults_are_valid_values() -> None:
    assert read(method_defaults()) == read({})


@pytest.mark.parametrize(("key", "value"), GOOD_VALUES)
def test_a_good_value_is_kept(key: str, value: object) -> None:
    assert read({key: value}) == read({}) | {key: value}


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_a_bad_value_gives_one_sentence_that_names_the_key(key: str, value: object) -> None:
    with pytest.raises(InputError, match=key) as error:
        read({key: value})
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    shown = [value, *value] if isinstance(value, list) else [value]
    assert any(repr(each) in message for each in shown)


@pytest.mark.parametrize("key", ["ssl_weight", "ssl_feature_weight", "ssl_temperature"])
def test_a_whole_number_will_do_for_a_real_one(key: str) -> None:
    value = read({key: 1})[key]
    assert value == 1.0
    assert isinstance(value, float)


def test_scientific_text_which_yaml_does_not_take_for_a_number_is_one() -> None:
    assert read({"ssl_temperature": "1e-1"})["ssl_temperature"] == 0.1


@pytest.mark.parametrize(
    ("key", "value"),
    [("miss_num_pairs", 0), ("irssl_dropout", math.nan), ("cl4srec_crop_ratio", math.inf),
     ("s3rec_layers", True), ("rule_encoder", []), ("rule_encoder", [20, -1])],
)  # fmt: skip
def test_values_of_every_method_are_checked_with_the_keys(key: str, value: object) -> None:
    with pytest.raises(InputError, match=key):
        check_method_keys({key: value})


def test_a_list_may_be_a_tuple() -> None:
    assert read({"miss_interest_encoder": (8, 4)})["miss_interest_encoder"] == [8, 4]


def test_settings_of_two_models_share_no_list() -> None:
    first, second = MISSSettings(), MISSSettings()
    first.interest_encoder.append(1)
    assert second.interest_encoder == [20, 20]


@pytest.mark.parametrize(
    ("weight", "feature_weight", "alpha"),
    [(0.5, None, (0.5, 0.5)), (0.5, 0.2, (0.5, 0.2)), (0.5, 0.0, (0.5, 0.0)), (0, None, (0, 0))],
)
def test_the_second_weight_is_the_first_unless_given(
    weight: float, feature_weight: float | None, alpha: tuple[float, float]
) -> None:
    assert SSLSettings(weight=weight, feature_weight=feature_weight).alpha == alpha


@pytest.mark.parametrize(
    ("key", "closest"),
    [
        ("ssl_wieght", "ssl_weight"),
        ("ssl_temprature", "ssl_temperature"),
        ("ssl_tau", None),
        ("ssl_max_width", "miss_max_width"),
        ("miss_max_widht", "miss_max_width"),
        ("miss_num_pair", "miss_num_pairs"),
    ],
)
def test_an_unknown_key_is_refused_with_the_closest(key: str, closest: str | None) -> None:
    with pytest.raises(InputError, match=f"Unknown key '{key}'") as error:
        check_method_keys({"embedding_dim": 10, key: 1})
    if closest:
        assert f"Did you mean '{closest}'?" in str(error.value)
    for valid in DEFAULTS:
        assert valid in str(error.value)


def test_keys_of_others_are_none_of_our_business() -> None:
    check_method_keys({"embedding_dim": 10, "missing": 1, "sslash": 2, "dnn_hidden_units": [3]})
    check_method_keys(DEFAULTS)


@dataclasses.dataclass
class Theirs:
    """The settings of somebody's own method: a plain dataclass."""

    rate: float = 0.1
    width: Annotated[int, Field(ge=8, description="a width of 8 or more")] = 16
    depth: Annotated[int, Field(le=3)] = 1
    name: str = ""
    kind: Literal["mean", "last"] = "mean"
    sizes: list[int] | None = None

    def __post_init__(self) -> None:
        if self.depth > self.width:
            raise InputError("own_depth must be at most own_width.")


@pytest.mark.parametrize(
    ("field", "value", "taken"),
    [("rate", "1e-3", 1e-3), ("rate", 1, 1.0), ("name", "1e3", "1e3"), ("sizes", (8, 4), [8, 4]),
     ("sizes", None, None), ("kind", "last", "last")],
)  # fmt: skip
def test_a_plain_dataclass_of_somebody_else_is_read_by_its_annotations(field, value, taken):
    settings = read_settings(Theirs, "own_", {f"own_{field}": value, "other_width": "x"})
    assert getattr(settings, field) == taken
    assert type(getattr(settings, field)) is type(taken)
    assert type(settings) is Theirs
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("rate", math.nan, "must be a finite number, got nan"),
        ("rate", True, "must be a finite number, got True"),
        ("width", 4, "must be a width of 8 or more, got 4"),
        ("width", "16", "got '16'"),
        ("width", "1e1", "got '1e1'"),
        ("depth", 4, "must be less than or equal to 3, got 4"),
        ("name", 3, "must be a text, got 3"),
        ("kind", "means", "Did you mean 'mean'"),
        ("kind", 3, "must be one of mean, last, got 3"),
        ("sizes", [8, "4"], r"got \[8, '4'\]"),
        ("width", None, "got None"),
    ],
)
def test_a_bad_value_of_it_is_one_sentence_with_the_place(field, value, words):
    key = f"own_{field}"
    with pytest.raises(InputError, match=words) as error:
        read_settings(Theirs, "own_", {key: value}, {key: "x.yaml, line 3"})
    assert str(error.value).startswith("x.yaml, line 3: ")
    assert key in str(error.value)
    assert "\n" not in str(error.value)


def test_its_own_rules_are_kept():
    @dataclasses.dataclass
    class Wide(Theirs):
        depth: int = 1

    with pytest.raises(InputError, match="own_depth must be at most"):
        read_settings(Wide, "own_", {"own_depth": 20})
