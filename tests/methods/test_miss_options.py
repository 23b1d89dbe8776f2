"""MISS without M (Table VI) and what goes beyond the paper, each off unless asked for."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.methods.miss import MISS, MISSSettings
from fuxictr_miss.methods.miss.augmentation import draw_halves, draw_interest_pairs

TAU = 0.2
DIM = 4
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]
TWINS = (0, 6)
WITHOUT_M = {"variant": "/M/F/U/L"}


def build(sequences: int = 2, **keys: Any) -> MISS:
    generator = torch.Generator().manual_seed(6)
    settings = MISSSettings(**{"interest_encoder": [6, 5], "feature_encoder": [4]} | keys)
    return MISS(SSLSettings(temperature=TAU), settings, sequences, DIM, generator)


def replay(method: MISS) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(method.generator.get_state())
    return generator


@pytest.mark.parametrize("padding", ["post", "pre", "holes"])
@pytest.mark.parametrize(("sequences", "num_pairs"), [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("lengths", [LENGTHS, [6], [1, 0, 1], [0, 0]])
def test_without_m_the_views_are_the_means_of_two_halves_of_the_history(
    padding, sequences, num_pairs, lengths, make_batch, exact, histories, look_up, encode_mlp,
    contrast, gradients,
):  # fmt: skip
    twins = TWINS if len(lengths) > TWINS[1] else None
    behavior = make_batch(lengths, sequences, padding, twins)
    method = exact(build(sequences, num_pairs=num_pairs, **WITHOUT_M))
    generator = replay(method)
    losses = method(behavior)

    halves, _ = draw_halves(behavior.length, behavior.max_len, num_pairs, generator)
    (g_1,) = method.extractor.g
    found, alike = [], [torch.zeros((), dtype=torch.float64)]
    for p in range(num_pairs):
        pairs: list[Any] = []
        for b, history in enumerate(look_up(behavior)):
            if len(history) < 2:
                pairs.append(None)
                continue
            interests = [(g_1 * step).clamp(min=0) for step in history]  # Eq. 19 with m = 1
            means = []
            for view in range(2):
                half = [t for place, t in enumerate(interests) if halves[b, p, view, place]]
                means.append(sum(half) / len(half))
            alike.append(torch.cosine_similarity(*means, dim=0))
            pairs.append(tuple(encode_mlp(method.interest_encoder, mean) for mean in means))
        found.append(contrast(pairs, histories(behavior), TAU)[0])
    expected = sum(found) / num_pairs
    torch.testing.assert_close(losses.ssl, expected)
    torch.testing.assert_close(losses.similarity, sum(alike) / max(1, len(alike) - 1))
    assert losses.feature.item() == 0
    parameters = [*method.parameters(), *(table.weight for table in behavior.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


def test_halves_share_no_behavior_leave_none_out_and_are_equally_likely():
    length = torch.tensor([0, 1, 2, 5, 8]).repeat(1200)
    halves, exists = draw_halves(length, 8, 1, torch.Generator().manual_seed(1))
    present = torch.arange(8) < length[:, None]
    assert torch.equal(halves[:, 0, 0] ^ halves[:, 0, 1], present)
    assert torch.equal(halves[:, 0].sum(-1), torch.stack([(length + 1) // 2, length // 2], dim=1))
    assert torch.equal(exists, (length >= 2)[:, None])
    splits = Counter(tuple(row) for row in halves[3::5, 0, 0, :5].tolist())
    assert len(splits) == math.comb(5, 3)
    assert all(abs(count / 1200 - 1 / 10) < 0.03 for count in splits.values())


@pytest.mark.parametrize("extractor", ["cnn", "self_attention", "lstm"])
def test_without_m_works_on_what_every_extractor_finds(extractor, make_batch, exact):
    method = exact(build(extractor=extractor, **WITHOUT_M))
    losses = method(make_batch(LENGTHS))
    assert 0 < losses.ssl.item() < math.inf
    assert -1 <= losses.similarity.item() <= 1


@pytest.mark.parametrize(
    ("distribution", "weight"),
    [
        ("uniform", lambda h, length, top: 1.0),
        ("gaussian", lambda h, length, top: math.exp(-((h - 1) ** 2) / (2 * (top / 2) ** 2))),
        ("geometric", lambda h, length, top: 2.0**-h),
    ],
)
@pytest.mark.parametrize(("length", "top"), [(12, 4), (4, 4), (2, 4), (12, 1)])
def test_distances_are_distributed_as_asked_on_those_that_exist(distribution, weight, length, top):
    rows = 8000
    pairs = draw_interest_pairs(
        torch.full((rows,), length), 1, top, 1, torch.Generator().manual_seed(1), distribution
    )
    first, second = pairs.windows.unbind(-1)
    h = (second - first).flatten()
    possible = range(1, min(top, length - 1) + 1)
    weights = [weight(each, length, top) for each in possible]
    shares = torch.tensor([(h == each).double().mean() for each in possible])
    expected = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.02)
    assert (first >= 0).all()
    assert (second < length).all()


@pytest.mark.parametrize("distribution", ["gaussian", "geometric"])
def test_histories_too_short_for_a_pair_have_none_under_any_distribution(distribution):
    pairs = draw_interest_pairs(
        torch.tensor([0, 1, 3]), 2, 3, 2, torch.Generator().manual_seed(1), distribution
    )
    assert pairs.mask.any(dim=-1).tolist() == [[False, False], [False, False], [True, True]]
    assert (pairs.windows[:2, ..., 0] == 0).all()
    assert (pairs.windows >= 0).all()  # masked ones are looked up, too


@pytest.mark.parametrize("distance", ["gaussian", "geometric"])
def test_the_method_draws_by_the_distribution_asked_for(distance, make_batch, exact):
    first, second = exact(build(distance=distance)), exact(build(distance="uniform"))
    assert first(make_batch([8] * 6)).ssl.item() != second(make_batch([8] * 6)).ssl.item()


@pytest.mark.parametrize("sequences", [2, 3])
def test_both_directions_are_the_mean_of_one_and_of_the_other(sequences, make_batch, exact):
    """Swapping the views of every pair swaps the directions and leaves their mean."""
    behavior = make_batch(LENGTHS, sequences, twins=TWINS)
    asked = []

    class Swapped(MISS):
        def _contrast(self, z: Tensor, *others: Any) -> Tensor:
            asked.append(super()._contrast(z.flip(-2), *others))
            return super()._contrast(z, *others)

    one_way = exact(build(sequences))
    one_way.__class__ = Swapped
    forward = one_way(behavior)
    both = exact(build(sequences, symmetric=True))(behavior)
    torch.testing.assert_close(both.ssl, (forward.ssl + asked[0]) / 2)
    torch.testing.assert_close(both.feature, (forward.feature + asked[1]) / 2)
    assert both.ssl.item() != forward.ssl.item()


@pytest.mark.parametrize("sequences", [1, 2, 3])
def test_the_transformer_encoder_lets_the_features_of_an_interest_look_at_each_other(
    sequences, make_batch, exact, histories, look_up, encode_mlp, contrast
):
    behavior = make_batch(LENGTHS, sequences, twins=TWINS)
    method = exact(build(sequences, view_encoder="transformer", max_width=1))
    generator = replay(method)
    losses = method(behavior)
    pairs = draw_interest_pairs(behavior.length, 1, 3, 1, generator)
    (g_1,) = method.extractor.g

    def encode(interest: torch.Tensor) -> torch.Tensor:
        features = interest.view(1, sequences, DIM)
        return encode_mlp(method.interest_encoder, method.attention(features, features).flatten())

    views: list[Any] = []
    alike = []
    for b, history in enumerate(look_up(behavior)):
        drawn = pairs.windows[b, 0, 0].tolist()
        t = [(g_1 * history[i]).clamp(min=0).flatten() for i in drawn if len(history) > 1]
        alike += [torch.cosine_similarity(*t, dim=0)] if t else []
        views.append(tuple(encode(each) for each in t) if t else None)
    expected, _ = contrast(views, histories(behavior), TAU)
    torch.testing.assert_close(losses.ssl, expected)
    torch.testing.assert_close(losses.similarity, sum(alike) / len(alike))


def test_what_goes_beyond_the_paper_is_off_unless_asked_for():
    settings = MISSSettings()
    assert (settings.distance, settings.view_encoder, settings.symmetric, settings.variant) == (
        "uniform", "mlp", False, "",
    )  # fmt: skip
    assert not hasattr(build(), "attention")


@pytest.mark.parametrize("extractor", ["self_attention", "lstm"])
def test_recurrence_and_attention_draw_neighbors_together_and_convolution_does_not(
    extractor, make_batch, exact
):
    """What Section VI.C.4 says of Fig. 5: states of neighbors are alike before any training."""
    behavior = make_batch([8] * 40, 2)
    alike = {}
    for name in ("cnn", extractor):
        method = build(extractor=name, max_width=1, max_distance=1).double()
        windows = torch.arange(8).expand(40, 1, -1)
        t = method.extractor(behavior, windows)[:, 0].flatten(2)  # (B, L, JK)
        alike[name] = torch.cosine_similarity(t[:, :-1], t[:, 1:], dim=-1).mean().item()
    assert alike[extractor] > alike["cnn"] + 0.1
