"""Tables and figures -> experiments."""

from __future__ import annotations

import dataclasses

import pytest

from fuxictr_miss.commands import benchmark
from fuxictr_miss.config.recipes import read_recipe
from fuxictr_miss.errors import InputError
from fuxictr_miss.paper import published
from fuxictr_miss.paper.plan import Planner, dataset_params, variants_of
from fuxictr_miss.paper.tables import CONTROL, REPORTS, RIVALS, Variant
from fuxictr_miss.paper.yardsticks import YARDSTICKS
from paper.conftest import an_experiment

CONFIG = "config"
# counted in the paper; with IPNN-MISS of its Table IV in Table III
ROWS = {3: 15, 4: 6, 5: 12, 6: 14, 7: 4, 8: 3, 9: 6, 10: 6}


@pytest.mark.parametrize("number", ROWS)
def test_every_table_has_the_papers_rows(number):
    variants = [variant for block in REPORTS[f"table_{number}"].blocks for variant in block]
    others = [v for v in variants if not published.metrics("amazoncds", v.in_paper)]
    assert len(variants) - len(others) == ROWS[number]
    for variant in others:
        assert (
            variant.role == CONTROL
            or variant.settings.get("ssl_recipe") == "recommended"
            or variant.name == "MISS-Pre-Joint (paper)"
            or variant.name.rpartition("-")[2] in RIVALS
        ), variant


def test_every_row_of_every_table_has_an_expid_where_items_have_a_category():
    planner = Planner(CONFIG)
    for variant in variants_of(REPORTS):
        assert planner.experiment(variant, "demo", 1) is not None, variant


def test_an_experiment_that_several_tables_share_is_planned_once():
    planner = Planner(CONFIG)
    apart = [planner.experiments(variants_of([f"table_{n}"]), ["demo"], 2) for n in (3, 4)]
    together = planner.experiments(variants_of(["table_3", "table_4"]), ["demo"], 2)
    # DIN, IPNN, FiGNN, and DIN-MISS and IPNN-MISS under both recipes are in both
    assert len(together) == sum(map(len, apart)) - 7 * 2
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
    paper = Variant("", "DIN_MISS", {"ssl_recipe": "paper"})
    whole = planner.experiment(paper, "amazoncds_subset", 1)
    part = Variant("DIN-MISS/F", "DIN_MISS", {"ssl_recipe": "paper", "miss_variant": "/F"})
    assert planner.experiment(part, "amazoncds_subset", 1).key == whole.key
    assert "J = 1" in planner.note(part, "amazoncds_subset")
    assert planner.experiment(part, "demo", 1).key != planner.experiment(paper, "demo", 1).key
    assert planner.note(part, "demo") == ""


def test_without_feature_level_nothing_can_be_added_to_the_recommended_recipe():
    planner = Planner(CONFIG)
    whole = planner.experiment(Variant("", "DIN_MISS"), "amazoncds_subset", 1)
    (added,) = (v for v in variants_of(["table_6"]) if v.name == "DIN-MISS+F (recommended)")
    assert planner.experiment(added, "amazoncds_subset", 1).key == whole.key
    assert "J = 1" in planner.note(added, "amazoncds_subset")
    assert planner.experiment(added, "demo", 1).overrides == {"miss_variant": ""}


def test_a_variant_of_another_recipe_keeps_its_own_keys():
    """Also one that the config's own recipe sets to the same value."""
    planner = Planner(CONFIG)
    settings = {"ssl_recipe": "paper", "ssl_training": "pretrain"}
    for key in ("ssl_training", "ssl_weight"):
        value = planner.experiment(Variant("", "DIN_MISS"), "demo", 1).params[key]
        params = planner.experiment(Variant("", "DIN_MISS", {**settings, key: value}), "demo", 1)
        assert params.params == {**params.params, **settings, key: value}


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


@pytest.mark.parametrize("dataset", ["demo", "amazoncds_subset"])
def test_the_recipe_of_a_row_is_the_whole_recipe_and_its_own_keys_on_top(dataset):
    paper = an_experiment(CONFIG, Variant("", "PNN_MISS", {"ssl_recipe": "paper"}), dataset)
    recipe = read_recipe("paper")
    assert {key: paper.params[key] for key in recipe} == recipe  # demo sets keys of its own
    settings = {"ssl_recipe": "paper", "ssl_weight": 5.0}
    other = an_experiment(CONFIG, Variant("", "PNN_MISS", settings), dataset)
    assert {k: v for k, v in other.params.items() if paper.params[k] != v} == {"ssl_weight": 5.0}
    assert len({paper.digest, other.digest}) == 2


def test_a_key_that_a_row_sets_wins_over_its_recipe_though_the_config_has_that_value_already():
    for variant in variants_of(["figure_6"]):  # α1 = α2; the paper's recipe has 0.5 for α2
        params = an_experiment(CONFIG, variant, "demo").params
        assert (params["ssl_recipe"], params["ssl_feature_weight"]) == ("paper", None)
        assert variant.name == f"{params['ssl_weight']:g} (paper)"


def test_the_recipe_that_the_config_has_already_changes_nothing_of_it():
    own = an_experiment(CONFIG, Variant("", "DIN_MISS"), "demo")
    named = an_experiment(CONFIG, Variant("", "DIN_MISS", {"ssl_recipe": "recommended"}), "demo")
    assert named == own
    assert named.overrides == {}


def test_a_search_of_one_recipe_does_not_change_the_keys_of_the_other():
    chosen = {("demo", "DIN_MISS"): {"ssl_temperature": 1.0, "learning_rate": 0.01}}
    planner = Planner(CONFIG, chosen)
    paper = planner.experiment(Variant("", "DIN_MISS", {"ssl_recipe": "paper"}), "demo", 1)
    own = planner.experiment(Variant("", "DIN_MISS", {"ssl_recipe": "recommended"}), "demo", 1)
    assert (paper.params["ssl_temperature"], paper.params["learning_rate"]) == (0.1, 0.01)
    assert (own.params["ssl_temperature"], own.params["learning_rate"]) == (1.0, 0.01)


@pytest.mark.parametrize("model", ["DIN", "PNN"])
def test_a_row_without_a_feature_has_all_others(model):
    variant = Variant("", model, role=CONTROL, without="user_id")
    experiment = an_experiment(CONFIG, variant, "demo")
    kept = ["item_id", "cate_id", "item_history", "cate_history"]
    assert experiment.params["use_features"] == experiment.overrides["use_features"] == kept
    assert experiment.digest != an_experiment(CONFIG, Variant("", model), "demo").digest
    seller = dataclasses.replace(variant, without="seller_id")
    assert Planner(CONFIG).experiment(seller, "demo", 1) is None
    assert Planner(CONFIG).absence(seller, "demo") == "demo has no seller_id."


def test_each_yardstick_is_an_experiment_of_its_own_wherever_din_is():
    planner = Planner(CONFIG)
    found = [planner.experiment(Variant(y, y), "demo", 1) for y in YARDSTICKS]
    assert [each.model for each in found] == list(YARDSTICKS)
    assert len({each.digest for each in found} | {an_experiment(CONFIG, Variant("", "DIN"), "demo")
               .digest}) == len(YARDSTICKS) + 1  # fmt: skip
    for each in found:
        other = dataclasses.replace(each, params={**each.params, "embedding_dim": 64})
        assert other.digest != each.digest
    assert planner.absence(Variant("", "ItemKNN"), "nowhere") == "DIN_nowhere is not in the config."


def test_an_unknown_data_set_is_refused_with_the_closest():
    with pytest.raises(InputError, match="Did you mean 'amazoncds'"):
        dataset_params(CONFIG, "amazoncd")


@pytest.fixture
def small_folder(tmp_path):
    """A config folder with DIN and DIN_MISS on one data set, and an expid on another."""
    (tmp_path / "dataset_config.yaml").write_text(
        "mine: &mine\n"
        "  {data_root: d/, train_data: t.csv, feature_cols: [{name: user_id, type: categorical}]}\n"
        "theirs: *mine\n"
    )
    (tmp_path / "model_config.yaml").write_text(
        "Base: {model_root: c/, metrics: [AUC], optimizer: adam, loss: binary_crossentropy,\n"
        "       batch_size: 8, epochs: 1, seed: 1, verbose: 0, dataset_id: mine}\n"
        "DIN_mine: {model: DIN}\n"
        "DIN_MISS_mine: {model: DIN_MISS}\n"
        "PNN_mine: {model: DIN}\n"
        "FM_theirs: {model: FM}\n"
    )
    return str(tmp_path)


def test_an_expid_in_the_place_of_a_data_set_is_answered_with_its_data_set(small_folder):
    with pytest.raises(InputError, match=r"DIN_MISS_mine is an expid, .*: --dataset mine, with"):
        dataset_params(small_folder, "DIN_MISS_mine")


def test_what_the_config_lacks_is_said_and_nothing_at_all_is_an_error(small_folder, monkeypatch):
    planner = Planner(small_folder)
    asked = [Variant("", name) for name in ("DIN", "SIM", "SIM_MISS")]
    assert len(planner.experiments(asked, ["mine"], 1)) == 1
    assert planner.left_out(asked, ["mine"]).endswith("no such expid: SIM_mine, SIM_MISS_mine.")
    assert planner.left_out(asked[:1], ["mine"]) == ""
    command = ["benchmark", "--table", "3", "--dataset", "mine", "--config", small_folder]
    monkeypatch.setattr("sys.argv", [*command, "--dry-run", "--model", "SIM"])
    with pytest.raises(InputError, match=r"^Left out, .* no such expid: SIM_mine\."):
        benchmark.main()


@pytest.mark.parametrize(("model", "dataset"), [("PNN", "mine"), ("FM", "theirs")])
def test_an_expid_of_another_model_or_data_set_than_its_name_says_is_refused(
    small_folder, model, dataset
):
    with pytest.raises(InputError, match=f"{model}_{dataset} for a model and its data set, but"):
        Planner(small_folder).experiment(Variant("", model), dataset, 1)
