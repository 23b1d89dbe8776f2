"""The columns of a config: what FuxiCTR could not use is refused before data is read."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fuxictr_miss.data import build_dataset
from fuxictr_miss.data.columns import feature_columns, label_columns
from fuxictr_miss.errors import InputError

ID = {"active": True, "dtype": "str", "type": "categorical"}
SEQUENCE = {"active": True, "dtype": "str", "type": "sequence", "max_len": 3}
NUMBER = {"active": True, "dtype": "float", "type": "numeric"}


def features(*columns: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    label = {"name": "label", "dtype": "float"}
    return feature_columns({"feature_cols": list(columns), "label_col": label, **params})


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ([{**ID, "name": "type"}], "'type'.*rename"),
        ([{**ID, "name": "user.age"}], "'user.age' has a dot.*rename"),
        ([{**NUMBER, "name": "keys"}], "'keys'"),
        ([{**SEQUENCE, "name": "training"}], "'training'"),
        ([{**ID, "name": "label"}], "'label' twice"),
        ([{**ID, "name": ["a", "b", "a"]}], "'a' twice"),
        ([{**ID, "name": 7}], "must be text.*7"),
        ([{**ID}], "needs a name"),
        ([], "names no feature_cols"),
        ([{**ID, "name": "a", "type": "categorial"}], "Did you mean 'categorical'"),
        ([{**SEQUENCE, "name": "a", "maxlen": 5}], "'a' has the key 'maxlen'.*write 'max_len'"),
        ([{**SEQUENCE, "name": "a", "share_embeding": "i"}], "write 'share_embedding'"),
        ([{**ID, "name": "a", "active": "False"}], "active must be True or False, not 'False'"),
        ([{"name": "a", "type": "categorical"}], "'a' must have dtype"),
        ([{**ID, "name": "a", "dtype": "print(1)"}], "'a' must have dtype"),
        ([{**NUMBER, "name": "a", "dtype": "str"}], "'a' must have dtype float or int"),
        ([{**NUMBER, "name": "a", "fill_na": ""}], "fill_na must be a number"),
        ([{**NUMBER, "name": "a", "fill_na": float("nan")}], "fill_na must be a number"),
        ([{**NUMBER, "name": "a", "normalizer": "minmax"}], "Did you mean 'MinMaxScaler'"),
        ([{**ID, "name": "a", "dtype": "int", "fill_na": "x"}], "fill_na must be an int"),
        ([{**SEQUENCE, "name": "a", "max_len": "50"}], "max_len must be a whole number"),
        ([{**SEQUENCE, "name": "a", "max_len": -1}], "max_len must be a whole number"),
        ([{**SEQUENCE, "name": "a", "padding": "left"}], "padding of 'a'"),
        ([{**SEQUENCE, "name": "a", "splitter": ""}], "splitter"),
        ([{**ID, "name": "a", "category_processor": "hash_bucket"}], "category_processor"),
        ([{**ID, "name": "a", "min_categr_count": 0}], "min_categr_count"),
        ([{**ID, "name": "a", "type": "embedding"}], "pretrain_dim"),
        ([{**SEQUENCE, "name": "h", "share_embedding": "item"}], "'item', which is not an active"),
        (
            [{**SEQUENCE, "name": "h", "share_embedding": "item"}, {**ID, "name": "item"}],
            "before it",
        ),
        (
            [{**ID, "name": "i", "active": 0}, {**SEQUENCE, "name": "h", "share_embedding": "i"}],
            "not an active",
        ),
        (
            [{**ID, "name": "item_id"}, {**SEQUENCE, "name": "h", "share_embedding": "itemid"}],
            "Did you mean 'item_id'",
        ),
        (
            [{**NUMBER, "name": "n"}, {**SEQUENCE, "name": "h", "share_embedding": "n"}],
            "categorical or sequence",
        ),
    ],
)  # fmt: skip
def test_a_column_that_fuxictr_cannot_use_is_refused_by_name(columns, match):
    with pytest.raises(InputError, match=match):
        features(*columns)


def test_a_key_of_somebody_elses_may_be_there():
    (column,) = features({**ID, "name": "a", "na_value": "", "note": "from the shop"})
    assert column["note"] == "from the shop"


def test_every_attribute_of_a_module_dict_is_refused_as_a_name():
    from torch import nn

    for name in dir(nn.ModuleDict()):
        with pytest.raises(InputError, match="rename"):
            features({**ID, "name": name})


@pytest.mark.parametrize(
    ("label", "match"),
    [
        (None, "no label_col"),
        ({"name": "label", "dtype": "str"}, "float or int"),
        ({"dtype": "float"}, "needs a name"),
        ([{"name": "a", "dtype": "float"}, {"name": "b"}], "'b' must have dtype"),
    ],
)
def test_a_label_that_is_no_number_is_refused(label, match):
    with pytest.raises(InputError, match=match):
        label_columns({"label_col": label})


def test_an_inactive_column_is_as_if_it_were_not_there(params):
    params["feature_cols"].append({"name": ["type", "user_id"], "active": False})
    build_dataset(params)
    params["feature_cols"] = [{**ID, "name": "a", "active": False}]
    with pytest.raises(InputError, match="No entry of feature_cols is active"):
        build_dataset(params)


def test_python_types_are_taken_as_their_names():
    assert [c["dtype"] for c in features({**ID, "name": ["a", "b"], "dtype": str})] == ["str"] * 2


@pytest.mark.parametrize("metric", ["gAUC", "avgAUC", "MRR", "NDCG(5)"])
def test_a_metric_by_group_needs_a_group_that_is_there(params, metric):
    params |= {"metrics": ["AUC", metric], "group_id": None}
    with pytest.raises(InputError, match=rf"{re.escape(metric)} is a mean over groups.*group_id"):
        build_dataset(params)
    user = {**ID, "name": "user_id"}
    with pytest.raises(InputError, match=r"'userid'.*Did you mean 'user_id'"):
        features(user, group_id="userid")
    assert features(user, group_id="user_id")


def test_a_table_of_ints_alone_keeps_its_type_and_any_text_in_it_makes_it_text():
    item, other = {**ID, "name": "item", "dtype": "int"}, {**ID, "name": "other", "dtype": "int"}
    shared = {**other, "share_embedding": "item"}
    history = {**SEQUENCE, "name": "h", "share_embedding": "other"}
    assert [c["dtype"] for c in features(item, shared)] == ["int", "int"]
    assert [c["dtype"] for c in features(item, shared, history)] == ["str"] * 3
    assert [c["dtype"] for c in features(item, other, history)] == ["int", "str", "str"]


def test_the_config_itself_is_left_as_it_was(params):
    before = repr(params)
    build_dataset(params)
    assert repr(params) == before
