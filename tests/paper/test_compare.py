"""Best, strongest baseline, significance."""

from __future__ import annotations

import pytest

from fuxictr_miss.paper.compare import Measured, improvement, marks, significantly_better


def seeds(*values: float) -> Measured:
    return Measured(dict(enumerate(values, start=1)))


LOW, HIGH = seeds(0.60, 0.61, 0.62), seeds(0.80, 0.81, 0.83)


def test_std_is_the_sample_standard_deviation():
    assert seeds(1.0, 3.0).std == pytest.approx(2**0.5)  # ((1-2)^2 + (3-2)^2) / (2 - 1)
    assert seeds(1.0).std is None


def test_a_star_needs_three_common_seeds():
    assert significantly_better(HIGH, LOW, 1)
    assert not significantly_better(seeds(0.80, 0.81), seeds(0.60, 0.61), 1)
    assert not significantly_better(HIGH, Measured({3: 0.6, 4: 0.6, 5: 0.6}), 1)


def test_a_star_needs_the_right_direction():
    assert not significantly_better(LOW, HIGH, 1)
    assert significantly_better(LOW, HIGH, -1)  # a lower logloss


def test_a_star_needs_p_below_5_percent():
    # differences 0.1, 0.2, 0.3: t = 0.2 / (0.1 / sqrt 3) = 3.46, and 4.30 is needed with 2 degrees
    assert not significantly_better(seeds(0.6, 0.7, 0.8), seeds(0.5, 0.5, 0.5), 1)
    # differences 0.2, 0.2, 0.3: t = 7.0
    assert significantly_better(seeds(0.7, 0.7, 0.8), seeds(0.5, 0.5, 0.5), 1)


def test_equal_values_have_no_star():
    assert not significantly_better(LOW, LOW, 1)


def test_best_is_over_all_and_strongest_over_the_baselines():
    found = marks([LOW, seeds(0.7), HIGH, None], [False, False, True, True], True)
    assert [mark.best for mark in found] == [False, False, True, False]
    assert [mark.strongest_baseline for mark in found] == [False, True, False, False]
    assert not any(mark.significant for mark in found)  # one common seed with the strongest
    found = marks([LOW, HIGH], [False, True], False)
    assert [mark.best for mark in found] == [True, False]


def test_improvement_is_the_papers():
    # Section VI.B: 9.27 % in AUC and 17.62 % in logloss on Amazon-Cds, over DMR
    assert round(improvement(0.8867, 0.8115, True), 2) == 9.27
    assert round(improvement(0.4357, 0.5289, False), 2) == 17.62
