"""Aug_i (Eq. 11, 21) and Aug_if (Eq. 12, 24): what may be drawn, and how often."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare
from torch import Tensor

from fuxictr_miss.methods.miss.augmentation import (
    FeaturePairs,
    InterestPairs,
    draw_feature_pairs,
    draw_halves,
    draw_interest_pairs,
    usable_heights,
)

REJECT = 1e-3  # a correct draw fails a chi-square test this rarely, and the seeds are fixed
MANY = 20_000

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6)
SMALL = st.integers(1, 4)
SEEDS = st.integers(0, 2**31)
RULES = settings(deadline=None, derandomize=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(LENGTHS, SMALL, SMALL, SMALL, SEEDS)
@settings(RULES, max_examples=150)
def test_interest_windows_lie_inside_the_history_at_a_distance_up_to_h(
    lengths: list[int], max_width: int, max_distance: int, num_pairs: int, seed: int
) -> None:
    pairs = draw_interest_pairs(
        torch.tensor(lengths), max_width, max_distance, num_pairs, seeded(seed)
    )
    shape = (len(lengths), max_width, num_pairs)
    assert pairs.windows.shape == (*shape, 2)
    assert pairs.mask.shape == shape
    for b, n in enumerate(lengths):
        for m in range(1, max_width + 1):
            windows = [start for start in range(n) if start + m <= n]
            assert set(pairs.mask[b, m - 1].tolist()) == {len(windows) >= 2}
            if len(windows) < 2:
                continue
            for first, second in pairs.windows[b, m - 1].tolist():
                assert first in windows
                assert second in windows
                assert 1 <= second - first <= max_distance


@given(LENGTHS, SMALL, SEEDS)
@settings(RULES, max_examples=100)
def test_windows_of_a_far_pair_differ_and_lie_inside_the_history(
    lengths: list[int], max_width: int, seed: int
) -> None:
    pairs = draw_interest_pairs(torch.tensor(lengths), max_width, None, 5, seeded(seed))
    for b, n in enumerate(lengths):
        for m in range(1, max_width + 1):
            windows = n - m + 1
            assert set(pairs.mask[b, m - 1].tolist()) == {windows >= 2}
            for first, second in pairs.windows[b, m - 1].tolist() if windows >= 2 else ():
                assert first != second
                assert 0 <= min(first, second) < max(first, second) < windows


@pytest.mark.parametrize(("length", "width"), [(2, 1), (5, 1), (6, 3)])
def test_all_ordered_pairs_are_equally_likely_as_a_far_one(length: int, width: int) -> None:
    pairs = draw_interest_pairs(torch.tensor([length]), width, None, MANY, seeded(3))
    counts = count(*pairs.windows[0, width - 1].unbind(-1))
    assert set(counts) == set(permutations(range(length - width + 1), 2))
    assert chisquare(list(counts.values())).pvalue > REJECT


def test_a_share_of_the_pairs_is_far_and_the_others_are_near() -> None:
    pairs = draw_interest_pairs(torch.full((200,), 30), 1, 2, 6, seeded(1), num_far_pairs=2)
    apart = (pairs.windows[:, 0, :, 1] - pairs.windows[:, 0, :, 0]).abs()
    assert int(apart[:, :4].max()) == 2
    assert float(apart[:, 4:].float().mean()) > 5


@given(LENGTHS, SEEDS)
@settings(RULES, max_examples=100)
def test_without_a_largest_distance_all_pairs_are_far_whatever_their_share(
    lengths: list[int], seed: int
) -> None:
    length = torch.tensor(lengths)
    first, *others = (
        draw_interest_pairs(length, 1, distance, 4, seeded(seed), num_far_pairs=far).windows
        for distance, far in ((None, 0), (None, 2), (3, 4))
    )
    assert all(torch.equal(first, other) for other in others)


@given(LENGTHS, st.integers(2, 5), SMALL, SMALL, SMALL, SEEDS)
@settings(RULES, max_examples=150)
def test_feature_rows_differ_and_span_features_that_exist(
    lengths: list[int], j: int, max_width: int, max_height: int, num_pairs: int, seed: int
) -> None:
    pairs = draw_feature_pairs(
        torch.tensor(lengths), j, max_width, max_height, num_pairs, seeded(seed)
    )
    heights = min(max_height, j - 1)
    shape = (len(lengths), max_width, heights, num_pairs)
    assert pairs.window.shape == shape
    assert pairs.rows.shape == (*shape, 2)
    assert pairs.mask.shape == shape
    for n in range(1, heights + 1):
        spans = [row for row in range(j) if row + n <= j]  # rows of Ĝ_{m,n}, Eq. 22
        for first, second in pairs.rows[:, :, n - 1].reshape(-1, 2).tolist():
            assert first in spans
            assert second in spans
            assert first != second
    for b, n in enumerate(lengths):
        for m in range(1, max_width + 1):
            windows = [start for start in range(n) if start + m <= n]
            assert set(pairs.mask[b, m - 1].flatten().tolist()) == {bool(windows)}
            if windows:
                assert set(pairs.window[b, m - 1].flatten().tolist()) <= set(windows)


@given(LENGTHS, SMALL, SMALL, SMALL, SEEDS)
@settings(RULES, max_examples=30)
def test_what_is_drawn_for_no_pair_is_a_small_number_that_can_be_looked_up(
    lengths: list[int], max_width: int, max_distance: int, num_pairs: int, seed: int
) -> None:
    length = torch.tensor(lengths)
    pairs = draw_interest_pairs(length, max_width, max_distance, num_pairs, seeded(seed))
    first, second = pairs.windows[~pairs.mask].unbind(-1)
    assert set(first.tolist()) <= {0}
    assert set(second.tolist()) <= {1}
    features = draw_feature_pairs(length, 2, max_width, 1, num_pairs, seeded(seed))
    assert set(features.window[~features.mask].tolist()) <= {0}


@pytest.mark.parametrize("j", [1, 2, 3, 5])
@pytest.mark.parametrize("max_height", [1, 2, 3, 7])
def test_usable_heights_leave_two_rows(j: int, max_height: int) -> None:
    expected = [n for n in range(1, max_height + 1) if j - n + 1 >= 2]
    assert usable_heights(j, max_height) == len(expected)


def test_one_sequence_has_no_feature_pairs() -> None:
    pairs = draw_feature_pairs(torch.tensor([5, 0]), 1, 3, 2, 4, seeded())
    assert pairs.window.shape == (2, 3, 0, 4)
    assert pairs.rows.shape == (2, 3, 0, 4, 2)


@pytest.mark.parametrize("max_distance", [1, 2, 3, 9])
@pytest.mark.parametrize("length", [3, 4, 7])
def test_distance_is_uniform_and_the_start_uniform_given_the_distance(
    length: int, max_distance: int
) -> None:
    pairs = draw_interest_pairs(torch.full((MANY,), length), 2, max_distance, 1, seeded(3))
    for m in (1, 2):
        windows = length - m + 1
        distances = range(1, min(max_distance, windows - 1) + 1)
        expected = {
            (start, start + h): MANY / len(distances) / (windows - h)
            for h in distances
            for start in range(windows - h)
        }
        counts = count(*pairs.windows[:, m - 1, 0].unbind(-1))
        assert set(counts) == set(expected)
        if len(expected) > 1:
            keys = sorted(expected)
            test = chisquare([counts[key] for key in keys], [expected[key] for key in keys])
            assert test.pvalue > REJECT


@pytest.mark.parametrize(("j", "max_height"), [(2, 1), (3, 2), (4, 3)])
def test_ordered_pairs_of_rows_and_their_window_are_uniform(j: int, max_height: int) -> None:
    pairs = draw_feature_pairs(torch.full((MANY,), 4), j, 2, max_height, 1, seeded(4))
    for m in (1, 2):
        for n in range(1, max_height + 1):
            first, second = pairs.rows[:, m - 1, n - 1, 0].unbind(-1)
            counts = count(pairs.window[:, m - 1, n - 1, 0], first, second)
            expected = {
                (window, *rows)
                for window in range(4 - m + 1)
                for rows in permutations(range(j - n + 1), 2)
            }
            assert set(counts) == expected
            assert chisquare(list(counts.values())).pvalue > REJECT


def test_pairs_of_a_row_and_of_other_rows_are_drawn_independently() -> None:
    length = torch.full((MANY,), 5)
    interest = draw_interest_pairs(length, 2, 3, 2, seeded(5))
    start = interest.windows[..., 0]
    feature = draw_feature_pairs(length, 3, 2, 1, 2, seeded(6))
    for first, second in [
        (start[:, 0, 0], start[:, 0, 1]),  # two pairs of a branch
        (start[:, 0, 0], start[:, 1, 0]),  # two branches
        (start[:-1, 0, 0], start[1:, 0, 0]),  # two users
        (feature.window[:, 0, 0, 0], feature.window[:, 0, 0, 1]),
        (feature.rows[:, 0, 0, 0, 0], feature.rows[:, 0, 0, 1, 0]),
        (feature.window[:, 0, 0, 0], feature.window[:, 1, 0, 0]),
    ]:
        table = torch.zeros(int(first.max()) + 1, int(second.max()) + 1)
        table.index_put_((first, second), torch.ones(len(first)), accumulate=True)
        assert chi2_contingency(table.numpy()).pvalue > REJECT


def count(*columns: Tensor) -> dict[tuple[int, ...], int]:
    """How often each combination occurs."""
    rows, times = torch.stack(columns, dim=1).unique(dim=0, return_counts=True)
    return {tuple(row): n for row, n in zip(rows.tolist(), times.tolist(), strict=True)}


LENGTHS_UP_TO_TEN = torch.arange(50) % 11


def interest(generator: torch.Generator, length: Tensor = LENGTHS_UP_TO_TEN) -> InterestPairs:
    return draw_interest_pairs(length, 3, 3, 2, generator)


def gaussian(generator: torch.Generator, length: Tensor = LENGTHS_UP_TO_TEN) -> InterestPairs:
    return draw_interest_pairs(length, 3, 3, 2, generator, "gaussian")


def half_far(generator: torch.Generator, length: Tensor = LENGTHS_UP_TO_TEN) -> InterestPairs:
    return draw_interest_pairs(length, 3, 2, 2, generator, num_far_pairs=1)


def halves(generator: torch.Generator, length: Tensor = LENGTHS_UP_TO_TEN) -> tuple[Tensor, ...]:
    return draw_halves(length, 10, 2, generator)


def feature(generator: torch.Generator, length: Tensor = LENGTHS_UP_TO_TEN) -> FeaturePairs:
    return draw_feature_pairs(length, 4, 3, 3, 2, generator)


DRAWS = [interest, gaussian, half_far, halves, feature]


@pytest.mark.parametrize("draw", DRAWS)
def test_the_same_generator_state_draws_the_same_and_the_next_state_other_pairs(
    draw: Callable,
) -> None:
    generator = seeded(7)
    first, second = draw(generator), draw(generator)
    again = draw(seeded(7))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("draw", DRAWS)
def test_the_global_generator_is_neither_read_nor_moved(draw: Callable) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(seeded(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = draw(seeded(7))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("draw", [interest, feature])
def test_a_row_keeps_its_draws_when_another_row_changes(draw: Callable) -> None:
    changed = LENGTHS_UP_TO_TEN.clone()
    changed[20] = 0
    for a, b in zip(draw(seeded(8)), draw(seeded(8), changed), strict=True):
        assert torch.equal(a[:20], b[:20])
        assert torch.equal(a[21:], b[21:])
