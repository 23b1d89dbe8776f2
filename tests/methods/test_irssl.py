"""IRSSL against loops over items and features."""

from __future__ import annotations

import logging
import math
import pickle
from collections import Counter
from typing import Any

import pytest
import torch

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.methods.draws import drop, uniform
from fuxictr_miss.methods.irssl import IRSSL, IRSSLSettings, draw_mask, mutual_information

TAU = 0.2
DIM = 4
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]

CASES = [
    *((LENGTHS, padding) for padding in ("post", "pre", "holes")),
    ([6], "pre"), ([1, 0, 1], "holes"), ([0, 0], "post"),
]  # fmt: skip


def build(sequences: int = 3, **keys: Any) -> IRSSL:
    generator = torch.Generator().manual_seed(6)
    settings = IRSSLSettings(**{"encoder": [5, 3]} | keys)
    return IRSSL(SSLSettings(temperature=TAU), settings, sequences, DIM, generator)


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize("num_pairs", [1, 3])
@pytest.mark.parametrize(("lengths", "padding"), CASES)
def test_loss_and_gradients_equal_the_loops(
    padding, sequences, num_pairs, lengths, make_batch, exact, histories, encode_mlp, contrast,
    gradients,
):  # fmt: skip
    # of four ids a feature, some items come twice: they are no negatives of each other
    behavior = make_batch(lengths, sequences, padding, vocabulary=5)
    method = exact(build(sequences, num_pairs=num_pairs))
    replay = torch.Generator()
    replay.set_state(method.generator.get_state())
    losses = method(behavior)

    steps = histories(behavior)
    chosen = uniform(torch.tensor(lengths)[:, None].expand(-1, num_pairs), replay)
    if sequences == 1:
        blank = torch.ones(len(lengths) * num_pairs, 1, DIM, dtype=torch.float64)
        factors = [drop(blank, method.settings.dropout, replay) for _ in range(2)]
    else:
        masked = draw_mask(method.correlation, replay).tolist()
    pairs: list[Any] = []
    items: list[Any] = []
    for b, history in enumerate(steps):
        for p in range(num_pairs):
            if not history:
                pairs.append(None)
                items.append(None)
                continue
            item = history[int(chosen[b, p])]
            e = [table.weight[i] for table, i in zip(behavior.tables, item, strict=True)]
            if sequences == 1:
                views = [e[0] * factor[len(pairs), 0] for factor in factors]
            else:
                default = method.default
                shown = [(default[j], e[j]) if masked[j] else (e[j], default[j])
                         for j in range(sequences)]  # fmt: skip
                views = [torch.cat(side) for side in zip(*shown, strict=True)]
            pairs.append(tuple(encode_mlp(method.tower, view) for view in views))
            items.append(item)
    expected, similarity = contrast(pairs, items, TAU)
    torch.testing.assert_close(losses.ssl, expected)
    torch.testing.assert_close(losses.similarity, similarity)
    assert losses.feature.item() == 0
    parameters = [*method.parameters(), *(table.weight for table in behavior.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


def by_counting(first: list[int], second: list[int]) -> float:
    n = len(first)
    both, x, y = Counter(zip(first, second, strict=True)), Counter(first), Counter(second)
    return sum(c / n * math.log(c / n / (x[a] / n * y[b] / n)) for (a, b), c in both.items())


def test_mutual_information_is_the_sum_over_pairs_of_values():
    draw = torch.Generator().manual_seed(1)
    first = torch.randint(1, 6, (200,), generator=draw)
    second = (first + torch.randint(0, 3, (200,), generator=draw)) % 4
    expected = by_counting(first.tolist(), second.tolist())
    assert mutual_information(first, second) == pytest.approx(expected)
    assert mutual_information(second, first) == pytest.approx(expected)


def test_mutual_information_in_closed_form():
    x = torch.arange(8)
    assert mutual_information(x, x) == pytest.approx(math.log(8))  # H(x)
    assert mutual_information(x, x // 4) == pytest.approx(math.log(2))  # H(x // 4)
    assert mutual_information(x // 4, x % 4) == pytest.approx(0, abs=1e-12)  # independent
    assert mutual_information(x[:0], x[:0]) == 0


def test_correlations_are_counted_over_the_behaviors_of_the_training_split(make_batch, histories):
    behavior = make_batch([5, 8, 0, 1, 3], 3, "holes", vocabulary=4)
    method = build(3)
    method.prepare(dict(zip("abc", behavior.columns, strict=True)))
    features = list(zip(*(step for row in histories(behavior) for step in row), strict=True))
    for i in range(3):
        for j in range(3):
            expected = 0 if i == j else by_counting(features[i], features[j])
            assert method.correlation[i, j].item() == pytest.approx(expected, abs=1e-6)


def test_no_behavior_at_all_leaves_the_correlations_at_zero():
    method = build(3)
    method.prepare({name: torch.zeros(4, 5) for name in "abc"})
    assert not method.correlation.any()


@pytest.mark.parametrize(
    ("features", "masked"),
    [(2, 1), (3, 2), (4, 3), (5, 3), (6, 4)],  # seed and ⌊k/2⌋ more, but never all
)
def test_as_many_features_are_masked_as_the_paper_says_but_never_all(features, masked):
    for seed in range(20):
        mask = draw_mask(torch.zeros(features, features), torch.Generator().manual_seed(seed))
        assert mask.sum() == masked


def test_the_most_correlated_features_are_masked_with_the_seed():
    correlation = torch.tensor([[0.0, 5, 1, 2], [5, 0, 4, 3], [1, 4, 0, 6], [2, 3, 6, 0]])
    kept = {0: 2, 1: 3, 2: 0, 3: 0}  # for each seed, the one of the four least correlated with it
    seen = set()
    for seed in range(60):
        mask = draw_mask(correlation, torch.Generator().manual_seed(seed))
        seen.add(int((~mask).nonzero()))
    assert seen == set(kept.values())


def test_every_feature_is_the_seed_equally_often():
    generator = torch.Generator().manual_seed(0)
    counts = sum(draw_mask(torch.zeros(2, 2), generator).int() for _ in range(2000))
    torch.testing.assert_close(counts / 2000, torch.tensor([0.5, 0.5]), rtol=0, atol=0.04)


def test_equally_correlated_features_take_turns():
    generator = torch.Generator().manual_seed(0)
    counts = sum(draw_mask(torch.zeros(3, 3), generator).int() for _ in range(3000))
    torch.testing.assert_close(counts / 3000, torch.full((3,), 2 / 3), rtol=0, atol=0.04)


def test_items_are_drawn_uniformly_from_the_training_histories(make_batch, exact):
    """Not by how often they occur: 1 does in every history."""
    items = torch.tensor([[1, 2, 0], [1, 3, 0], [1, 4, 0], [1, 0, 0]])
    method = exact(build(2, num_pairs=50))
    method.prepare({"item": items, "category": items % 2 + 5 * (items > 0)})
    seen = method._draw(make_batch([3, 0] * 20, 2))
    assert seen.shape == (40, 50, 2)
    share = seen[..., 0].flatten().bincount(minlength=5) / 2000
    torch.testing.assert_close(share, torch.tensor([0, 0.25, 0.25, 0.25, 0.25]), rtol=0, atol=0.04)
    assert torch.equal(seen[..., 1], seen[..., 0] % 2 + 5)
    assert pickle.loads(pickle.dumps(method)).items is None


@pytest.mark.parametrize(("sequences", "notices"), [(1, 1), (2, 0)])
def test_one_item_feature_is_noticed_once(sequences, notices, make_batch, exact, caplog):
    with caplog.at_level(logging.INFO):
        method = exact(build(sequences))
        for _ in range(3):
            method(make_batch(LENGTHS, sequences))
    assert len([r for r in caplog.records if "J = 1" in r.getMessage()]) == notices


def test_correlations_travel_with_the_weights():
    first, second = build(3), build(3)
    first.prepare({name: torch.randint(1, 5, (9, 4)) for name in "abc"})
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.correlation, first.correlation)
    assert first.correlation.any()
