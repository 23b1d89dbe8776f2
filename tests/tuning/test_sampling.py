"""Optuna's samplers over a space of ours."""

from __future__ import annotations

import itertools
import statistics

import pytest

from fuxictr_miss.tuning.sampling import SEARCHES, Known, next_trial

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
UNITS = [[4], [8], [8, 8], [16], [16, 16]]


def search(space, kind, number, value, known=None):
    """The settings that a search of `number` trials tries, one after the other."""
    known = {} if known is None else known
    for place in range(len(known) + 1, number + 1):
        trial = next_trial(space, kind, place, known)
        if trial is None:
            break
        result = value(trial.overrides)
        known[trial.key] = Known(trial.overrides, result, failed=result is None)
    return [each.settings for each in known.values()]


@pytest.mark.parametrize("kind", SEARCHES)
def test_no_trial_comes_twice_and_a_small_space_is_tried_whole(space_of, kind):
    space = space_of({"learning_rate": RATES, "dnn_hidden_units": UNITS})
    tried = search(space, kind, 100, lambda settings: settings["learning_rate"])
    assert len(tried) == 35
    for settings in itertools.product(RATES, UNITS):
        assert dict(zip(("learning_rate", "dnn_hidden_units"), settings, strict=True)) in tried


@pytest.mark.parametrize("kind", SEARCHES)
def test_an_interrupted_search_goes_on_as_it_would_have(space_of, kind):
    space = space_of({"learning_rate": {"low": 1e-4, "high": 0.1, "log": True}, "epochs": [1, 2]})

    def value(settings):
        return settings["learning_rate"] * settings["epochs"]

    whole = search(space, kind, 16, value)
    known = {}
    assert search(space, kind, 7, value, known) == whole[:7]
    assert search(space, kind, 16, value, known) == whole


@pytest.mark.parametrize("kind", SEARCHES)
def test_ranges_keep_their_ends_types_and_scale(space_of, kind):
    space = space_of(
        {
            "learning_rate": {"low": 1.0e-4, "high": 0.1, "log": True},
            "label_noise_rate": {"low": 0.1, "high": 0.100001},
            "epochs": {"low": 1, "high": 3},
        }
    )
    tried = search(space, kind, 40, lambda settings: 0.5)
    rates = [settings["learning_rate"] for settings in tried]
    assert all(settings in space for settings in tried)
    assert {settings["epochs"] for settings in tried} == {1, 2, 3}
    if kind == "random":
        assert 1e-3 < statistics.median(rates) < 1e-2  # the middle of the scale is 3e-3
    assert all(rate == float(f"{rate:.4g}") for rate in rates)


def test_tpe_goes_where_it_is_good_and_keeps_away_from_what_failed(space_of):
    space = space_of({"learning_rate": {"low": 0.001, "high": 10.0, "log": True}})

    def value(settings):
        rate = settings["learning_rate"]
        return None if rate > 1 else 1 - abs(rate - 0.01)

    late = {kind: search(space, kind, 60, value)[20:] for kind in SEARCHES}
    failed = {kind: sum(value(each) is None for each in late[kind]) for kind in SEARCHES}
    assert failed["tpe"] < failed["random"] / 2
    near = {k: sum(abs(each["learning_rate"] - 0.01) < 0.01 for each in late[k]) for k in SEARCHES}
    assert near["tpe"] > 1.5 * near["random"]


def test_a_metric_to_be_minimised_is(space_of):
    space = space_of({"learning_rate": {"low": 0.001, "high": 1.0}, "monitor": "logloss",
                      "monitor_mode": "min"})  # fmt: skip
    late = search(space, "tpe", 40, lambda settings: settings["learning_rate"])[15:]
    assert statistics.median(each["learning_rate"] for each in late) < 0.2


def test_trials_that_are_running_are_not_drawn_again(space_of):
    space = space_of({"epochs": [1, 2, 3], "batch_size": [8, 16]})
    known: dict[str, Known] = {}
    for number in range(1, 7):
        trial = next_trial(space, "tpe", number, known)
        assert trial.key not in known
        known[trial.key] = Known(trial.overrides)
    assert next_trial(space, "tpe", 7, known) is None
