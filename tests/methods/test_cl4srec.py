"""CL4SRec against loops over operators and views."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from methods.conftest import nt_xent_by_loops

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.methods.cl4srec import CL4SRec, CL4SRecSettings, crop, mask, reorder
from fuxictr_miss.methods.draws import shuffle

TAU = 0.3
DIM = 4
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]
TWINS = (0, 6)
MAX_LEN = 8

CASES = [
    *((LENGTHS, padding) for padding in ("post", "pre", "holes")),
    ([6], "pre"), ([1, 0, 1], "holes"), ([0, 0], "post"),
]  # fmt: skip


def build(sequences: int = 2, **keys: Any) -> CL4SRec:
    generator = torch.Generator().manual_seed(6)
    settings = CL4SRecSettings(**{"dropout": 0.0, "max_len": 5} | keys)
    return CL4SRec(SSLSettings(temperature=TAU), settings, sequences, DIM, generator)


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize(
    "keys", [{}, {"crop_ratio": 0.0, "mask_ratio": 1.0, "reorder_ratio": 1.0}, {"layers": 1}]
)
@pytest.mark.parametrize(("lengths", "padding"), CASES)
def test_loss_and_gradients_equal_the_loops(
    padding, sequences, keys, lengths, make_batch, exact, histories, look_up, encode_sequence,
    gradients,
):  # fmt: skip
    twins = TWINS if len(lengths) > TWINS[1] else None
    behavior = make_batch(lengths, sequences, padding, twins)
    method = exact(build(sequences, **keys))
    settings, replay = method.settings, torch.Generator()
    replay.set_state(method.generator.get_state())
    losses = method(behavior)

    operators = shuffle(torch.ones(len(lengths), 3, dtype=torch.bool), replay)[:, :2].tolist()
    n = behavior.length[:, None].expand(-1, 2)
    cropped = crop(n, MAX_LEN, settings.crop_ratio, replay)
    hidden = mask(n, MAX_LEN, settings.mask_ratio, replay)
    reordered = reorder(n, MAX_LEN, settings.reorder_ratio, replay)
    views = {}
    for b, x in enumerate(look_up(behavior)):
        assert operators[b][0] != operators[b][1]
        if not x:
            continue
        views[b] = []
        for side, operator in enumerate(operators[b]):
            if operator == 1:
                view = [method.mask_token if hidden[b, side, i] else x[i] for i in range(len(x))]
            else:
                order = (cropped if operator == 0 else reordered)[b, side].tolist()
                view = [x[i] for i in order if i < MAX_LEN]
            views[b].append(encode_sequence(method.encoder, view))
    expected, similarity = nt_xent_by_loops(views, histories(behavior), TAU)
    torch.testing.assert_close(losses.ssl, expected)
    torch.testing.assert_close(losses.similarity, similarity)
    assert losses.feature.item() == 0
    parameters = [*method.parameters(), *(table.weight for table in behavior.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


def many(n: int) -> torch.Tensor:
    return torch.full((4000,), n)


def floor(n: int, ratio: float) -> int:
    return math.floor(n * ratio)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 8])
def test_crop_keeps_a_run_from_anywhere(n, ratio):
    order = crop(many(n), MAX_LEN, ratio, torch.Generator().manual_seed(1))
    keep = min(n, max(1, floor(n, ratio)))
    starts = Counter(order[:, 0].tolist())
    assert set(starts) == (set(range(n - keep + 1)) if n else {MAX_LEN})
    assert all(abs(count / 4000 - 1 / len(starts)) < 0.05 for count in starts.values())
    for row in order[:50].tolist():
        assert row == [row[0] + i for i in range(keep)] + [MAX_LEN] * (MAX_LEN - keep)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("n", [0, 1, 3, 8])
def test_mask_hides_as_many_as_it_should_each_equally_often(n, ratio):
    masked = mask(many(n), MAX_LEN, ratio, torch.Generator().manual_seed(1))
    count = floor(n, ratio)
    assert (masked.sum(dim=1) == count).all()
    shares = masked.double().mean(dim=0)
    expected = torch.tensor([count / max(n, 1)] * n + [0.0] * (MAX_LEN - n)).double()
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 8])
def test_reorder_shuffles_within_a_run_and_loses_nothing(n, ratio):
    order = reorder(many(n), MAX_LEN, ratio, torch.Generator().manual_seed(1))
    size = floor(n, ratio)
    for row in order[:200].tolist():
        assert sorted(row) == [*range(n), *[MAX_LEN] * (MAX_LEN - n)]
        moved = [place for place in range(n) if row[place] != place]
        assert not moved or moved[-1] - moved[0] < size
        assert row[n:] == [MAX_LEN] * (MAX_LEN - n)


def test_reorder_gives_every_order_equally_often():
    order = reorder(torch.full((6000,), 3), 4, 1.0, torch.Generator().manual_seed(1))
    counts = Counter(tuple(row) for row in order.tolist())
    assert len(counts) == math.factorial(3)
    assert all(abs(count / 6000 - 1 / 6) < 0.03 for count in counts.values())


def test_every_two_operators_come_equally_often():
    method = build(crop_ratio=0.5, mask_ratio=0.5, reorder_ratio=1.0)
    order, masked = method._draw(torch.full((6000,), 8), 8)
    kinds = torch.where(masked.any(-1), 1, torch.where((order == 8).any(-1), 0, 2))
    shares = Counter(tuple(row) for row in kinds.tolist())
    assert len(shares) == 6  # of 3 × 2; a shuffle of 8 leaves all in place once in 40,320
    assert all(abs(count / 6000 - 1 / 6) < 0.03 for count in shares.values())


def test_ratios_count_like_real_numbers_do():
    """0.7 × 10 is 7, not 6.999 of a shorter number format."""
    for n in range(1, 60):
        for tenth in range(11):
            expected = math.floor(n * (tenth / 10))
            assert mask(torch.tensor([n]), 60, tenth / 10, torch.Generator()).sum() == expected


def test_the_mask_token_learns_and_is_neither_padding_nor_an_item(make_batch, exact):
    method = exact(build(mask_ratio=1.0))
    behavior = make_batch([5, 8, 4, 6])
    method(behavior).ssl.backward()
    assert method.mask_token.grad.any()
    for j, table in enumerate(behavior.tables):
        part = method.mask_token[j * DIM : (j + 1) * DIM]
        assert not any(torch.equal(part, row) for row in table.weight)
        assert not table.weight.grad[0].any()
