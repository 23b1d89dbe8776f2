"""Draws: from the given generator alone, and as likely as they should be."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch

from fuxictr_miss.methods.draws import by_count, by_weight, drop, shuffle, uniform


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_uniform_reaches_every_number_below_the_count_equally_often(generator):
    drawn = uniform(torch.full((6000,), 3), generator)
    shares = drawn.bincount(minlength=4) / 6000
    torch.testing.assert_close(shares, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0]), rtol=0, atol=0.03)


def test_uniform_of_no_number_is_zero(generator):
    assert uniform(torch.tensor([0, -2]), generator).tolist() == [0, 0]


def test_every_order_of_the_eligible_places_is_equally_likely(generator):
    eligible = torch.tensor([True, False, True, True]).expand(6000, -1)
    rank = shuffle(eligible, generator)
    assert (rank[:, 1] == 3).all()
    counts = Counter(tuple(row) for row in rank[:, [0, 2, 3]].tolist())
    assert set(counts) == set(itertools.permutations(range(3)))
    assert all(abs(count / 6000 - 1 / 6) < 0.03 for count in counts.values())


def test_places_are_drawn_by_their_weight_and_those_of_weight_0_never(generator):
    weight = torch.tensor([0, 2, 0, 1, 3, 0], dtype=torch.float64)
    drawn = by_weight(weight.cumsum(0), (2000, 3), generator)
    shares = drawn.flatten().bincount(minlength=6) / 6000
    torch.testing.assert_close(shares.double(), weight / 6, rtol=0, atol=0.03)
    assert (shares[weight == 0] == 0).all()
    nothing = by_weight(torch.zeros(6, dtype=torch.float64), (4,), generator)
    assert (nothing < 6).all()


def test_places_are_drawn_as_often_as_they_count_and_those_of_count_0_never(generator):
    up_to = torch.tensor([0, 3, 3, 4, 10])  # counts 0, 3, 0, 1, 6
    drawn = by_count(up_to, (4000, 2), generator)
    shares = drawn.flatten().bincount(minlength=5) / 8000
    torch.testing.assert_close(shares, torch.tensor([0, 0.3, 0, 0.1, 0.6]), rtol=0, atol=0.02)
    assert (shares[[0, 2]] == 0).all()


def test_dropout_keeps_the_mean_and_the_given_share(generator):
    x = torch.ones(200, 100, dtype=torch.float64)
    dropped = drop(x, 0.2, generator)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert (dropped == 0).double().mean().item() == pytest.approx(0.2, abs=0.02)
    assert dropped.max().item() == pytest.approx(1 / 0.8)
    assert (x == 1).all()


def test_dropout_of_nothing_draws_nothing(generator):
    before = generator.get_state()
    x = torch.ones(3)
    assert drop(x, 0, generator) is x
    assert torch.equal(generator.get_state(), before)


def test_the_global_random_numbers_stay_as_they_are(generator):
    before = torch.get_rng_state()
    uniform(torch.tensor([3]), generator)
    by_weight(torch.ones(3, dtype=torch.float64), (2,), generator)
    by_count(torch.ones(3, dtype=torch.long), (2,), generator)
    shuffle(torch.ones(3, dtype=torch.bool), generator)
    drop(torch.ones(3), 0.5, generator)
    assert torch.equal(torch.get_rng_state(), before)
