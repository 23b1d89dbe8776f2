"""Tables and figures -> experiments."""

from __future__ import annotations

import dataclasses

import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.paper import published
from fuxictr_miss.paper.plan import Planner, dataset_params, variants_of
from fuxictr_miss.paper.tables import REPORTS, Variant
from paper.conftest import an_experiment

CONFIG = "config"
# counted in the paper
ROWS = {3: 14, 4: 6, 5: 12, 6: 14, 7: 4, 8: 3, 9: 6, 10: 6}


@pytest.mark.parametrize("number", ROWS)
def test_every_table_has_the_papers_rows(number):
    names = [variant.name for block in REPORTS[f"table_{number}"].blocks for variant in block]
    in_paper = [name for name in names if published.metrics("amazoncds", name)]
    assert len(in_paper) == ROWS[number]
    assert set(names) - set(in_paper) <= {"MISS-Pre-Joint"}


def test_every_row_of_every_table_has_an_expid_where_items_have_a_category():
    planner = Planner(CONFIG)
    for variant in variants_of(REPORTS):
        assert planner.experiment(variant, "demo", 1) is not None, variant


def test_an_experiment_that_several_tables_share_is_planned_once():
    planner = Planner(CONFIG)
    apart = [planner.experiments(variants_of([f"table_{n}"]), ["demo"], 2) for n in (3, 4)]
    together = planner.experiments(variants_of(["table_3", "table_4"]), ["demo"], 2)
    # DIN, IPNN, FiGNN and MISS = DIN-MISS are in both
    assert len(together) == sum(map(len, apart)) - 4 * 2
    assert len({each.key for each in together}) == len(together)


def test_the_digest_changes_with_a_setting_but_not_with_the_place_or_the_seed():
    one = an_experiment(CONFIG, Variant("", "DIN_MISS"), "demo")

    def digest_with(**changes):
        return dataclasses.replace(one, params={**one.params, **changes}).digest

    assert digest_with(learning_rate=0.123) != one.digest
    assert digest_with(miss_max_width=2) != one.digest
    assert digest_with(model_root="elsewhere", gpu=3, verbose=0, seed=9) == one.digest
    assert dataclasses.replace(one, seed=2).digest == one.digest
    assert dataclasses.replace(one, seed=2).key != one.key


def test_keys_of_other_methods_do_not_touch_a_models_digest():
    plain = an_experiment(CONFIG, Variant("", "DIN"), "demo")
    miss = an_experiment(CONFIG, Variant("", "DIN_MISS"), "demo")
    for one, key in ((plain, "ssl_weight"), (plain, "miss_max_width"), (miss, "rule_dropout")):
        other = dataclasses.replace(one, params={**one.params, key: 77})
        assert other.digest == one.digest, key


def test_without_feature_level_slash_f_is_the_whole_miss_and_says_so():
    planner = Planner(CONFIG)
    whole = planner.experiment(Variant("", "DIN_MISS"), "amazoncds_subset", 1)
    part = Variant("DIN-MISS/F", "DIN_MISS", {"miss_variant": "/F"})
    assert planner.experiment(part, "amazoncds_subset", 1).key == whole.key
    assert "J = 1" in planner.note(part, "amazoncds_subset")
    assert (
        planner.experiment(part, "demo", 1).key
        != planner.experiment(Variant("", "DIN_MISS"), "demo", 1).key
    )
    assert planner.note(part, "demo") == ""


def test_a_model_that_the_data_do_not_allow_is_absent_with_a_reason():
    planner = Planner(CONFIG)
    rule = Variant("DIN-Rule", "DIN_Rule")
    assert planner.experiment(rule, "amazoncds_subset", 1) is None
    assert "category" in planner.absence(rule, "amazoncds_subset")


def test_a_cell_inherits_what_search_chose_and_sets_its_own_on_top():
    chosen = {("demo", "DIN_MISS"): {"ssl_weight": 5.0, "ssl_temperature": 1.0}}
    cell = Variant("", "DIN_MISS", {"ssl_weight": 0.05, "miss_variant": "/F/U"})
    experiment = Planner(CONFIG, chosen).experiment(cell, "demo", 1)
    expected = {"ssl_weight": 0.05, "ssl_temperature": 1.0, "miss_variant": "/F/U"}
    assert experiment.overrides == expected
    assert {k: experiment.params[k] for k in expected} == expected


def test_an_unknown_data_set_is_refused_with_the_closest():
    with pytest.raises(InputError, match="Did you mean 'amazoncds'"):
        dataset_params(CONFIG, "amazoncd")
