"""S3-Rec's segment task against loops over histories, segments and negatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.methods.s3rec import S3Rec, S3RecSettings, draw_segments

DIM = 4
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]
TWINS = (0, 6)

CASES = [
    *((LENGTHS, padding) for padding in ("post", "pre", "holes")),
    ([6], "pre"), ([6, 2], "pre"), ([1, 0, 1], "holes"), ([0, 0], "post"),
]  # fmt: skip


def build(sequences: int = 2, **keys: Any) -> S3Rec:
    generator = torch.Generator().manual_seed(6)
    settings = S3RecSettings(**{"dropout": 0.0, "max_len": 5} | keys)
    return S3Rec(SSLSettings(), settings, sequences, DIM, generator)


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize(("lengths", "padding"), CASES)
def test_loss_and_gradients_equal_the_loops(
    padding, sequences, lengths, make_batch, exact, histories, look_up, encode_sequence, gradients
):
    twins = TWINS if len(lengths) > TWINS[1] else None
    behavior = make_batch(lengths, sequences, padding, twins)
    method = exact(build(sequences))
    replay = torch.Generator()
    replay.set_state(method.generator.get_state())
    losses = method(behavior)

    drawn = draw_segments(behavior.length, behavior.group, behavior.max_len, replay)
    x, mask = look_up(behavior), method.mask_token
    terms, similarities = [], []
    for b, history in enumerate(x):
        inside = [place for place in range(len(history)) if drawn.inside[b, place]]
        others = sum(len(x[o]) for o, steps in enumerate(histories(behavior))
                     if steps != histories(behavior)[b])  # fmt: skip
        if len(history) < 2 or others < len(inside):
            continue
        negative = [x[drawn.row[b, place]][drawn.place[b, place]] for place in inside]
        places = range(len(history))
        masked = [mask if place in inside else history[place] for place in places]
        segment = [history[place] if place in inside else mask for place in places]
        other = [negative[place - inside[0]] if place in inside else mask for place in places]
        c, positive, against = (
            encode_sequence(method.encoder, each) for each in (masked, segment, other)
        )
        f = [torch.sigmoid((method.w.weight @ c) @ s) for s in (positive, against)]
        terms.append(-torch.log(torch.sigmoid(f[0] - f[1])))
        similarities.append(torch.cosine_similarity(method.w.weight @ c, positive, dim=0))
    nothing = torch.zeros((), dtype=torch.float64)
    expected = sum(terms) / len(terms) if terms else nothing
    torch.testing.assert_close(losses.ssl, expected)
    similarity = sum(similarities) / len(similarities) if terms else nothing
    torch.testing.assert_close(losses.similarity, similarity)
    assert losses.feature.item() == 0
    parameters = [*method.parameters(), *(table.weight for table in behavior.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


@pytest.mark.parametrize("seed", range(20))
def test_segments_and_negatives_are_those_of_the_paper(seed):
    """Runs of 1 to ⌊n/2⌋; a negative runs on along the other histories, end to end in a ring."""
    length = torch.tensor(LENGTHS)
    group = torch.tensor([5, 2, 9, 4, 1, 3, 5, 8])  # rows 0 and 6 share a history
    drawn = draw_segments(length, group, 8, torch.Generator().manual_seed(seed))
    order = group.argsort(stable=True).tolist()
    ring = [(row, place) for row in order for place in range(LENGTHS[row])]
    for b, n in enumerate(LENGTHS):
        assert bool(drawn.mask[b]) == (n >= 2)
        if n < 2:
            continue
        inside = drawn.inside[b].nonzero().flatten().tolist()
        assert 1 <= len(inside) <= n // 2
        assert inside == list(range(inside[0], inside[0] + len(inside)))
        assert inside[-1] < n
        negative = [(int(drawn.row[b, i]), int(drawn.place[b, i])) for i in inside]
        assert all(group[row] != group[b] for row, _ in negative)
        start = ring.index(negative[0])
        assert negative == [ring[(start + i) % len(ring)] for i in range(len(inside))]


def test_every_length_start_and_negative_is_equally_likely():
    rows = 6000
    length = torch.tensor([5, 3] + [0] * 2)
    group = torch.tensor([1, 2, 3, 4])
    generator = torch.Generator().manual_seed(1)
    sizes, starts, negatives = [], [], []
    for _ in range(rows // 4):
        drawn = draw_segments(length, group, 5, generator)
        inside = drawn.inside[0].nonzero().flatten().tolist()
        sizes.append(len(inside))
        if len(inside) == 2:
            starts.append(inside[0])
            negatives.append(int(drawn.place[0, inside[0]]))
    for values, count in ((sizes, 2), (starts, 4), (negatives, 2)):
        shares = torch.tensor(values).unique(return_counts=True)[1] / len(values)
        torch.testing.assert_close(shares, torch.full((count,), 1 / count), rtol=0, atol=0.05)


def test_no_negative_where_the_others_have_too_few_behaviors():
    """Two users, of 8 and of 1: only segments of one behavior have a counterpart."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        drawn = draw_segments(torch.tensor([8, 1]), torch.tensor([1, 2]), 8, generator)
        assert bool(drawn.mask[0]) == (drawn.inside[0].sum() == 1)
        assert not drawn.mask[1]


def test_one_history_alone_or_its_twins_cost_exactly_nothing(make_batch, exact):
    method = exact(build())
    assert method(make_batch([6])).ssl.item() == 0
    assert method(make_batch([6, 6], twins=(0, 1))).ssl.item() == 0


def test_the_loss_lies_between_its_bounds_and_is_log_2_where_nothing_differs(make_batch, exact):
    """f lies between 0 and 1, so the loss between log(1 + 1/e) and log(1 + e)."""
    method = exact(build())
    loss = method(make_batch(LENGTHS)).ssl.item()
    assert math.log(1 + math.exp(-1)) < loss < math.log(1 + math.e)
    method.w.weight.data.zero_()
    assert method(make_batch(LENGTHS)).ssl.item() == pytest.approx(math.log(2))


def test_it_starts_undecided(make_batch):
    """Where f = 1/2 for all, the gradient through σ is largest; further out it may never return."""
    loss = build().double()(make_batch(LENGTHS)).ssl.item()
    assert loss == pytest.approx(math.log(2), abs=0.05)
