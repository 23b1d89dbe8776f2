"""Best, strongest baseline, significance."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuxictr_miss.paper.compare import compare, holm, improvement, p_value
from fuxictr_miss.paper.tables import BASELINE, CONTROL, OURS


def seeds(*values: float) -> pd.Series:
    return pd.Series(dict(enumerate(values, start=1)), dtype=float)


LOW, HIGH, NONE = seeds(0.60, 0.61, 0.62), seeds(0.80, 0.81, 0.83), seeds()


def test_a_test_needs_three_common_seeds():
    assert p_value(HIGH, LOW) < 0.05
    assert math.isnan(p_value(seeds(0.80, 0.81), seeds(0.60, 0.61)))
    assert math.isnan(p_value(HIGH, pd.Series({3: 0.6, 4: 0.6, 5: 0.6})))


def test_only_the_right_direction_is_significant():
    def p(ours: pd.Series, sign: int) -> float:
        return compare([HIGH, ours], [BASELINE, OURS], sign).p_values[1]

    assert p(LOW, 1) == 1
    assert p(LOW, -1) == p_value(LOW, HIGH) < 0.05  # a lower logloss
    assert p(HIGH, 1) == p_value(HIGH, HIGH) == 1


def test_p_is_of_the_two_sided_paired_t_test():
    # t is 4.303 at p = 5 % with 2 degrees of freedom
    # differences 0.1, 0.2, 0.3: t = 0.2 / (0.1 / sqrt 3) = 3.46
    assert 0.05 < p_value(seeds(0.6, 0.7, 0.8), seeds(0.5, 0.5, 0.5)) < 0.1
    # differences 0.2, 0.2, 0.3: t = 7.0
    assert 0.01 < p_value(seeds(0.7, 0.7, 0.8), seeds(0.5, 0.5, 0.5)) < 0.05


def test_best_is_over_all_and_strongest_over_the_baselines():
    roles = [BASELINE, BASELINE, OURS, OURS]
    found = compare([LOW, seeds(0.7), HIGH, NONE], roles, 1)
    assert (found.best, found.rivals) == (2, {BASELINE: 1})
    assert math.isnan(found.p_values[2])  # one common seed with the strongest
    assert compare([LOW, HIGH], [BASELINE, OURS], -1).best == 0
    neither = compare([LOW, HIGH], [BASELINE, OURS], 0)
    assert (neither.best, neither.rivals, neither.p_values) == (None, {}, {})


def test_with_a_control_both_rivals_must_be_beaten():
    between = seeds(0.79, 0.81, 0.81)
    found = compare([LOW, between, HIGH], [BASELINE, CONTROL, OURS], 1)
    assert found.rivals == {BASELINE: 0, CONTROL: 1}
    assert found.p_values[2] == p_value(HIGH, between) > p_value(HIGH, LOW)
    assert found.gains[BASELINE] > found.gains[CONTROL] > 0


def test_holms_p_values_are_those_of_the_textbook():
    # sorted .005 .01 .03 .04 times 4 3 2 1, never falling
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": math.nan}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )


@given(st.dictionaries(st.integers(), st.floats(0, 1), max_size=8))
def test_holms_p_values_lie_between_the_plain_ones_and_bonferronis(p):
    for key, adjusted in holm(p).items():
        assert p[key] <= adjusted <= min(1, len(p) * p[key])


def test_improvement_is_the_papers():
    # Section VI.B: 9.27 % in AUC and 17.62 % in logloss on Amazon-Cds, over DMR
    assert round(improvement(0.8867, 0.8115, 1), 2) == 9.27
    assert round(improvement(0.4357, 0.5289, -1), 2) == 17.62
