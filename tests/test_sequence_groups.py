"""Which sequences make one behavior: as the backbone reads them, and never zipped by accident."""

from __future__ import annotations

from typing import Any

import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.sequence_groups import behavior_groups, check_names


class Map:
    """As much of FuxiCTR's FeatureMap as is read: (name, max_len, share_embedding)."""

    def __init__(self, *sequences: tuple[str, int, str]) -> None:
        self.features: dict[str, Any] = {"item_id": {"type": "categorical"}}
        for name, length, table in sequences:
            spec = {"type": "sequence", "max_len": length, "share_embedding": table}
            self.features[name] = spec


class Pooled:
    def __init__(self, feature_map: Any, **kwargs: Any) -> None: ...


class Attentive:
    def __init__(
        self,
        feature_map: Any,
        din_target_field: Any = None,
        din_sequence_field: Any = None,
        neg_seq_field: Any = (),
        **kwargs: Any,
    ) -> None: ...


CLICKS, CLICKED = ("clicks", 9, "item_id"), ("click_cates", 9, "cate_id")
BUYS, BOUGHT = ("buys", 9, "item_id"), ("buy_cates", 9, "cate_id")
BOTH = Map(CLICKS, CLICKED, BUYS, BOUGHT)


def test_each_group_of_a_backbones_field_is_a_behavior_of_its_own() -> None:
    fields = {"din_sequence_field": [("clicks", "click_cates"), ("buys", "buy_cates")]}
    assert behavior_groups(Attentive, BOTH, fields) == [
        ["clicks", "click_cates"], ["buys", "buy_cates"],
    ]  # fmt: skip


def test_a_list_of_names_is_a_behavior_each_as_fuxictr_reads_it() -> None:
    fields = {"din_sequence_field": ["clicks", "buys"]}
    assert behavior_groups(Attentive, BOTH, fields) == [["clicks"], ["buys"]]


@pytest.mark.parametrize("value", [("clicks", "click_cates"), [["clicks", "click_cates"]]])
def test_a_tuple_and_a_list_in_a_list_are_one_behavior(value: Any) -> None:
    groups = behavior_groups(Attentive, BOTH, {"din_sequence_field": value})
    assert groups == [["clicks", "click_cates"]]


def test_a_sequence_that_the_backbone_does_not_read_is_left_out() -> None:
    groups = behavior_groups(Attentive, BOTH, {"din_sequence_field": [["buys", "buy_cates"]]})
    assert groups == [["buys", "buy_cates"]]


def test_a_backbone_without_fields_takes_those_that_the_config_names_for_others() -> None:
    fields = {"din_sequence_field": [["clicks", "click_cates"], ["buys", "buy_cates"]]}
    assert behavior_groups(Pooled, BOTH, fields) == behavior_groups(Attentive, BOTH, fields)


def test_without_any_field_a_second_sequence_of_a_table_begins_a_new_behavior() -> None:
    expected = [["clicks", "click_cates"], ["buys", "buy_cates"]]
    assert behavior_groups(Pooled, BOTH, {}) == expected
    assert behavior_groups(Attentive, BOTH, {}) == expected


def test_without_any_field_another_length_begins_a_new_behavior() -> None:
    feature_map = Map(CLICKS, ("tags", 5, "tag"))
    assert behavior_groups(Pooled, feature_map, {}) == [["clicks"], ["tags"]]


def test_attributes_of_one_behavior_stay_together() -> None:
    feature_map = Map(CLICKS, CLICKED, ("click_sellers", 9, "seller_id"))
    assert behavior_groups(Pooled, feature_map, {}) == [["clicks", "click_cates", "click_sellers"]]


@pytest.mark.parametrize("fields", [{}, {"din_sequence_field": [["pos_items"], ["neg_items"]]}])
def test_negatives_are_no_behavior_by_their_name(fields: Any) -> None:
    feature_map = Map(("pos_items", 9, "item_id"), ("neg_items", 9, "item_id"))
    assert behavior_groups(Attentive, feature_map, fields) == [["pos_items"]]
    assert behavior_groups(Pooled, feature_map, fields) == [["pos_items"]]


@pytest.mark.parametrize("name", ["skipped_items", "not_clicked", "noclk_his", "disliked"])
def test_what_a_user_passed_over_is_no_behavior(name: str) -> None:
    feature_map = Map(CLICKS, (name, 9, "item_id"))
    assert behavior_groups(Attentive, feature_map, {"din_sequence_field": ["clicks", name]}) == [
        ["clicks"]
    ]


def test_negatives_are_no_behavior_by_their_key() -> None:
    fields = {"din_sequence_field": ["clicks"], "neg_seq_field": [("buys",)]}
    assert behavior_groups(Attentive, BOTH, fields) == [["clicks"]]


def test_a_name_that_only_begins_like_a_negative_stays() -> None:
    feature_map = Map(("negotiations", 9, "item_id"))
    assert behavior_groups(Pooled, feature_map, {}) == [["negotiations"]]


def test_a_behavior_that_two_fields_name_is_one() -> None:
    fields = {"din_sequence_field": [["clicks"], ["clicks"]]}
    assert behavior_groups(Attentive, BOTH, fields) == [["clicks"]]


def test_a_backbone_may_read_its_groups_as_one_behavior() -> None:
    class Joining(Attentive):
        reads_one_behavior = True

    groups = behavior_groups(Joining, BOTH, {"din_sequence_field": ["clicks", "click_cates"]})
    assert groups == [["clicks", "click_cates"]]


def test_an_unknown_name_is_refused_with_the_closest() -> None:
    with pytest.raises(InputError, match=r"ssl_sequences 'click'.*Did you mean 'clicks'\?"):
        check_names(["click"], BOTH)
    with pytest.raises(InputError, match="Valid: buy_cates, buys, click_cates, clicks"):
        check_names(["item_id"], BOTH)
