"""Keys of FuxiCTR 1 and 2.0, as the configs of the BARS benchmark have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fuxictr_miss.config import Config, load_config
from fuxictr_miss.errors import InputError


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"patience": 3}, {"early_stop_patience": 3}),
        ({"workers": 2}, {"num_workers": 2}),
        ({"debug": False}, {"debug_mode": False}),
        ({"ordered_features": None}, {"use_features": None}),
        ({"use_hdf5": True, "partition_block_size": -1, "version": "pytorch"}, {}),
        ({"every_x_epochs": 1}, {}),
        ({"eval_interval": 1}, {}),
    ],
)
def test_an_old_key_of_fuxictr_means_its_new_one(old, new):
    assert Config.of(old).params == new


def test_an_old_and_a_new_name_with_two_values_are_refused():
    assert Config.of({"patience": 3, "early_stop_patience": 3}).params["early_stop_patience"] == 3
    with pytest.raises(InputError, match=r"patience is 3, and early_stop_patience, .*, is 4"):
        Config.of({"patience": 3, "early_stop_patience": 4})


def test_an_old_name_of_an_experiment_holds_against_the_new_one_of_the_base(tmp_path):
    (tmp_path / "dataset_config.yaml").write_text("tiny: {data_format: csv, data_root: data}\n")
    base = yaml.safe_load(Path("config/model_config/base.yaml").read_text())["Base"]
    base |= {"early_stop_patience": 2, "num_workers": 3, "use_features": None}
    (tmp_path / "model_config.yaml").write_text(
        yaml.safe_dump({"Base": base})
        + "X: {model: DIN, dataset_id: tiny, patience: 7, workers: 9, ordered_features: [a]}\n"
    )
    params = load_config(str(tmp_path), "X").params
    assert params["early_stop_patience"] == 7
    assert params["num_workers"] == 9
    assert params["use_features"] == ["a"]


def test_the_old_names_are_said_once(caplog):
    config = Config.of({"patience": 3})
    config.override(["epochs=2"], 1)
    assert [record.getMessage() for record in caplog.records] == [
        "patience is read as early_stop_patience, its name in FuxiCTR 2.3."
    ]


@pytest.mark.parametrize("key", ["every_x_epochs", "eval_interval"])
def test_another_interval_of_evaluation_is_refused_and_not_ignored(key):
    with pytest.raises(InputError, match=rf"{key} is 2.*eval_steps"):
        Config.of({key: 2})


def test_an_old_key_is_checked_like_its_new_one():
    with pytest.raises(InputError, match="early_stop_patience must be"):
        Config.of({"patience": "three"})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"na_value": 0}, {"fill_na": 0}),
        ({"na_value": 0, "fill_na": 1}, {"fill_na": 1}),
        ({"encoder": "MaskedSumPooling"}, {"feature_encoder": "layers.MaskedSumPooling()"}),
        ({"encoder": "null"}, {"feature_encoder": None}),
        ({"encoder": None}, {"feature_encoder": None}),
    ],
)
def test_old_keys_of_a_column_mean_their_new_ones(old, new):
    [column] = Config.of({"feature_cols": [{"name": "a", **old}]}).feature_cols
    assert column == {"name": "a", **new}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (("a", "b"), [["a", "b"]]),
        ([("a", "b"), ("c", "d")], [["a", "b"], ["c", "d"]]),
        ([("a", "b"), "c"], [["a", "b"], "c"]),
        (["a", "b"], ["a", "b"]),
        ("a", "a"),
        (None, None),
        ([], []),
    ],
)
def test_a_tuple_of_fields_is_one_group(written, read):
    assert Config.of({"din_sequence_field": written}).params == {"din_sequence_field": read}
    again = Config.of({}).replace({"din_sequence_field": written}, "a tuner")
    assert again.params == {"din_sequence_field": read}
