"""Histories with the same target against loops over all of them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.methods.same_target import SameTarget, draw_target, older

LENGTHS = [5, 8, 0, 1, 3, 2, 6, 4]


CPU = torch.device("cpu")


def targets_by_loops(histories: list) -> list[tuple[int, tuple]]:
    """(the item, the behaviors before it) of every behavior but the oldest, each of them once."""
    found = {(h[i], tuple(h[:i])) for h in histories for i in range(1, len(h))}
    return [(target[0], before) for target, before in found]


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize("padding", ["post", "pre", "holes"])
def test_every_behavior_but_the_oldest_is_a_target_of_those_before_it(
    padding, sequences, make_batch, histories
):
    behavior = make_batch(LENGTHS, sequences, padding, twins=(0, 7), vocabulary=5)
    older_rows = older(behavior, behavior.length - 1)  # what other rows of the users hold
    columns = [
        torch.cat([one, other]) for one, other in
        zip(older(behavior, behavior.length).columns, older_rows.columns, strict=True)
    ]  # fmt: skip
    index = SameTarget(columns, CPU)
    expected = targets_by_loops(histories(behavior))
    before = index.older(torch.arange(len(index)), behavior.tables)
    found = zip(index.item.tolist(), map(tuple, histories(before)), strict=True)
    assert Counter(found) == Counter(expected)
    assert index.item.tolist() == sorted(index.item.tolist())


@pytest.mark.parametrize("padding", ["post", "pre", "holes"])
def test_another_history_has_the_same_target(padding, make_batch, histories):
    behavior = make_batch(LENGTHS, 2, padding, vocabulary=5)
    index = SameTarget(behavior.columns, CPU)
    known = targets_by_loops(histories(behavior))
    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        place, item, exists = draw_target(behavior, generator)
        own = older(behavior, place)
        other = index.another(own, item, generator)
        for b, (mine, theirs) in enumerate(zip(histories(own), histories(other), strict=True)):
            assert (int(item[b]), tuple(theirs)) in known if exists[b] else theirs == mine


def test_another_history_is_another_wherever_there_is_one(make_batch, histories):
    ids = torch.tensor([[1, 9, 0], [2, 9, 0], [3, 4, 9], [5, 8, 0]])  # 9 is a target three times
    index = SameTarget([ids], CPU)
    own = Behavior([ids[:, :1]], make_batch([1], 1).tables)
    target, generator, seen = torch.tensor([9, 9, 9, 8]), torch.Generator().manual_seed(1), set()
    for _ in range(60):
        found = histories(index.another(own, target, generator))
        seen |= {(b, tuple(i for (i,) in history)) for b, history in enumerate(found)}
    assert seen == {(0, (2,)), (0, (3, 4)), (1, (1,)), (1, (3, 4)),
                    (2, (1,)), (2, (2,)), (2, (3, 4)), (3, (5,))}  # fmt: skip


def test_a_target_is_drawn_from_all_but_the_oldest_behavior(make_batch):
    behavior = make_batch([5] * 4000 + [1, 0], vocabulary=30)
    place, item, exists = draw_target(behavior, torch.Generator().manual_seed(2))
    assert exists.tolist() == [True] * 4000 + [False] * 2
    assert item[-2:].tolist() == [0, 0]
    shares = place[:4000].bincount(minlength=5) / 4000
    torch.testing.assert_close(shares, torch.tensor([0, 0.25, 0.25, 0.25, 0.25]),
                               rtol=0, atol=0.03)  # fmt: skip


def test_the_histories_before_a_behavior(make_batch, histories):
    for padding in ("post", "pre", "holes"):
        behavior = make_batch(LENGTHS, 2, padding)
        for place in range(9):
            before = older(behavior, torch.full((len(LENGTHS),), place))
            expected = [history[:place] for history in histories(behavior)]
            assert histories(before) == expected


def test_an_item_of_no_training_history_stays_alone(make_batch, histories):
    behavior = make_batch([3, 4], 1)
    index = SameTarget(behavior.columns, CPU)
    other = index.another(behavior, torch.tensor([11, 0]), torch.Generator())
    assert histories(other) == histories(behavior)
    nothing = SameTarget(make_batch([1, 0], 1).columns, CPU)
    assert len(nothing) == 0
    assert nothing.another(behavior, torch.tensor([3, 4]), torch.Generator()) is behavior


def test_of_many_histories_evenly_spaced_ones_are_indexed(make_batch, monkeypatch, histories):
    monkeypatch.setattr("fuxictr_miss.methods.same_target.MAX_HISTORIES", 3)
    behavior = make_batch(LENGTHS, 1, vocabulary=40)
    index = SameTarget(behavior.columns, CPU)
    kept = histories(behavior)[::3]  # three of eight
    assert len(index) == len(targets_by_loops(kept))
