"""Search: the same budget for every model, judged by validation."""

from __future__ import annotations

import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.paper.plan import Planner, variants_of
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.search import read_spaces, space_of, trials, winners
from fuxictr_miss.paper.tables import REPORTS, Variant
from paper.conftest import row

SPACES = {
    "backbone": {"learning_rate": [0.1, 0.01, 0.001, 0.2, 0.3]},
    "ssl": {"ssl_weight": [1, 5]},
}
MODELS = [Variant("DIN", "DIN"), Variant("MISS", "DIN_MISS")]


@pytest.fixture
def planner(place) -> Planner:
    return Planner(str(place / "config"))


def test_every_model_gets_the_same_budget_with_the_config_as_it_stands_first(planner):
    tried = trials(planner, MODELS, ["small"], 3, SPACES)
    assert {place: len(each) for place, each in tried.items()} == {
        ("small", "DIN"): 3,
        ("small", "DIN_MISS"): 3,
    }
    for experiments in tried.values():
        assert experiments[0].overrides == {}
        assert len({each.key for each in experiments}) == 3
        assert {each.purpose for each in experiments} == {"search"}


def test_a_larger_budget_only_adds(planner):
    small, large = (trials(planner, MODELS, ["small"], n, SPACES) for n in (2, 4))
    for place, experiments in small.items():
        assert [each.key for each in large[place]][:2] == [each.key for each in experiments]


def test_the_first_value_of_every_key_alone_comes_before_the_second_of_any(planner):
    tried = trials(planner, MODELS[1:], ["small"], 9, SPACES)["small", "DIN_MISS"]
    weights, rates = SPACES["ssl"]["ssl_weight"], SPACES["backbone"]["learning_rate"]
    config = tried[0].params["learning_rate"]  # what is the config's own is no change
    singles = [{"ssl_weight": weights[0]}, {"learning_rate": rates[0]}, {"ssl_weight": weights[1]}]
    singles += [{"learning_rate": rate} for rate in rates[1:] if rate != config]
    tried_alone = [dict(each.overrides) for each in tried[1:]]
    assert tried_alone[: len(singles)] == singles
    assert all(len(each) == 2 for each in tried_alone[len(singles) :])


def test_a_small_space_is_tried_whole(planner):
    # 5 learning rates, of which 0.01 is the config's
    assert len(trials(planner, MODELS[:1], ["small"], 100, SPACES)["small", "DIN"]) == 5


def test_selection_is_by_validation_and_never_looks_at_test(planner, tmp_path):
    tried = trials(planner, MODELS, ["small"], 4, SPACES)
    chosen = []
    for name, test in (("a", (0.1, 0.2, 0.3, 0.4)), ("b", (0.4, 0.3, 0.2, 0.1))):
        results = Results(tmp_path / name)
        for experiments in tried.values():
            for each, valid, auc in zip(experiments, (0.5, 0.7, 0.6, 0.65), test, strict=True):
                results.add(row(each, valid_AUC=valid, test_AUC=auc))
        chosen.append(winners(tried, results))
    assert chosen[0] == chosen[1]
    for place, experiments in tried.items():
        assert chosen[0][place].overrides == experiments[1].overrides
        assert chosen[0][place].value == 0.7


def test_a_monitor_to_be_minimised_is(planner, tmp_path):
    tried = trials(planner, MODELS[:1], ["small"], 2, SPACES)
    results = Results(tmp_path)
    for each, loss in zip(tried["small", "DIN"], (0.6, 0.5), strict=True):
        each.params.update(monitor="logloss", monitor_mode="min")
        results.add(row(each, valid_logloss=loss))
    assert winners(tried, results)["small", "DIN"].value == 0.5


def test_trials_that_diverged_cannot_win(planner, tmp_path):
    tried = trials(planner, MODELS[:1], ["small"], 2, SPACES)
    results = Results(tmp_path)
    first, second = tried["small", "DIN"]
    results.add(row(first, valid_AUC=0.5))
    results.add(row(second, status="diverged", reason="nan"))
    winner = winners(tried, results)["small", "DIN"]
    assert (winner.overrides, winner.trials) == ({}, 1)


def test_a_key_that_the_model_does_not_have_is_an_error(planner):
    with pytest.raises(InputError, match="Did you mean 'learning_rate'"):
        trials(planner, MODELS, ["small"], 2, {"backbone": {"learning_rat": [1]}})


def test_a_method_with_a_section_of_its_own_takes_that_instead_of_the_shared_one():
    spaces = {**SPACES, "MISS": {"miss_num_pairs": [2]}, "DIN": {"net_dropout": [0.1]}}
    assert list(space_of("DIN_MISS", spaces)) == ["miss_num_pairs", "net_dropout"]
    assert list(space_of("PNN_PPMI", spaces)) == ["ssl_weight", "learning_rate"]
    assert list(space_of("PNN", spaces)) == ["learning_rate"]


def test_no_trial_of_the_control_is_one_without_effect():
    spaces = read_spaces("config")
    tried = trials(Planner("config"), [Variant("x", "DIN_PPMI")], ["demo"], 8, spaces)
    changed = [key for each in tried["demo", "DIN_PPMI"][1:] for key in each.overrides]
    read = {"ppmi_max_distance", "ppmi_power", "ppmi_row_norm", "ssl_label_gradient"}
    assert len(changed) == 7
    assert {*changed} == {*read, "learning_rate"}


def test_no_trial_of_miss_is_one_without_effect():
    spaces = read_spaces("config")
    tried = trials(Planner("config"), [Variant("x", "DIN_MISS")], ["amazoncds"], 8, spaces)
    changed = [key for each in tried["amazoncds", "DIN_MISS"][1:] for key in each.overrides]
    assert changed == [
        *("ssl_training", "ssl_temperature", "ssl_weight", "ssl_pretrain_epochs"),
        *("miss_far_share", "miss_max_distance", "learning_rate"),
    ]


def test_every_shipped_space_fits_every_model_of_the_tables():
    spaces = read_spaces("config")
    planner = Planner("config")
    tried = trials(planner, variants_of(REPORTS), ["demo"], 2, spaces)
    assert all(len(each) == 2 for each in tried.values())
    # the paper's ranges (Section VI.A.5)
    space = space_of("DIN_MISS", spaces)
    assert sorted(space["learning_rate"]) == [1e-4, 1e-3, 1e-2, 1e-1]
    for key in ("ssl_weight", "ssl_temperature"):
        assert space[key] == [0.05, 0.1, 0.5, 1, 5]
    widest = (("miss_max_width", 4), ("miss_max_height", 2), ("miss_max_distance", 4))
    for key, largest in widest:
        assert sorted(space[key]) == list(range(1, largest + 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("backbones: {learning_rate: [1]}", "Unknown section in .*'backbones'. Did you mean"),
        ("backbone: [learning_rate]", "backbone must have"),
        ("backbone:", "backbone must have"),
        ("backbone: {learning_rate: 1}", "learning_rate must be a list"),
        ("backbone: {learning_rate: []}", "learning_rate must be a list"),
        ("backbone: {epochs: [1], epochs: [2]}", "'epochs' twice"),
        ("- backbone", "name: value"),
    ],
)
def test_a_bad_search_space_is_one_sentence(place, text, words):
    (place / "config" / "search.yaml").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        read_spaces(str(place / "config"))
    assert "search.yaml" in str(error.value)


def test_a_value_that_cannot_be_run_is_refused_before_any_trial(planner):
    with pytest.raises(InputError, match=r"DIN_small with .*: learning_rate must be a number"):
        trials(planner, MODELS, ["small"], 2, {"backbone": {"learning_rate": [-1.0]}})


def test_the_metric_that_chooses_must_be_measured(planner):
    space = {"backbone": {"learning_rate": [0.1]}}
    planner.winners = {("small", "DIN"): {"metrics": ["logloss"]}}
    with pytest.raises(InputError, match="chooses DIN on small by AUC: add it to metrics"):
        trials(planner, MODELS, ["small"], 2, space)
