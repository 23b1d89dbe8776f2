"""MISS with any distance, each feature by itself, no encoder, and the rows of a user together."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from fuxictr_miss import experiment
from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.methods.miss import MISS, MISSSettings
from fuxictr_miss.methods.miss.augmentation import draw_interest_pairs
from fuxictr_miss.training.histories import Histories

REJECT = 1e-3  # the seeds are fixed
TAU, DIM = 0.2, 4
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]


def build(sequences: int, **keys: Any) -> MISS:
    keys = {"variant": "/F", "interest_encoder": [], "activation": "identity", **keys}
    generator = torch.Generator().manual_seed(6)
    return MISS(SSLSettings(temperature=TAU), MISSSettings(**keys), sequences, DIM, generator)


def pairs_of(method: MISS, behavior: Behavior) -> Any:
    """What the method will draw for this batch."""
    generator = torch.Generator()
    generator.set_state(method.generator.get_state())
    keys = method.settings
    far = round(keys.far_share * keys.num_pairs)
    return draw_interest_pairs(
        behavior.length, keys.max_width, keys.max_distance, keys.num_pairs, generator,
        num_far_pairs=far,
    )  # fmt: skip


# ----------------------------------------------------------------- far pairs


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_windows_of_a_far_pair_differ_and_lie_inside_the_history(lengths, width, seed):
    generator = torch.Generator().manual_seed(seed)
    pairs = draw_interest_pairs(torch.tensor(lengths), width, None, 5, generator)
    for b, n in enumerate(lengths):
        for m in range(1, width + 1):
            count = n - m + 1
            assert set(pairs.mask[b, m - 1].tolist()) == {count >= 2}
            for first, second in pairs.windows[b, m - 1].tolist() if count >= 2 else ():
                assert first != second
                assert 0 <= min(first, second) < max(first, second) < count


@pytest.mark.parametrize(("length", "width"), [(2, 1), (5, 1), (6, 3)])
def test_all_ordered_pairs_are_equally_likely_as_a_far_one(length, width):
    generator, n = torch.Generator().manual_seed(3), 20_000
    pairs = draw_interest_pairs(torch.tensor([length]), width, None, n, generator)
    counts = Counter(map(tuple, pairs.windows[0, width - 1].tolist()))
    windows = length - width + 1
    assert set(counts) == {(a, b) for a in range(windows) for b in range(windows) if a != b}
    assert chisquare(list(counts.values())).pvalue > REJECT


def test_a_share_of_the_pairs_is_far_and_the_others_are_near():
    length = torch.tensor([30] * 200)
    pairs = draw_interest_pairs(length, 1, 2, 6, torch.Generator().manual_seed(1), num_far_pairs=2)
    apart = (pairs.windows[:, 0, :, 1] - pairs.windows[:, 0, :, 0]).abs()
    assert int(apart[:, :4].max()) == 2
    assert float(apart[:, 4:].float().mean()) > 5


@pytest.mark.parametrize(("share", "pairs", "far"), [(0.5, 12, 6), (0.0, 3, 0), (1.0, 1, 1)])
def test_the_far_share_is_one_of_the_number_of_pairs(share, pairs, far):
    assert build(1, far_share=share, num_pairs=pairs).far_pairs == far


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 99))
def test_without_a_largest_distance_all_pairs_are_far_whatever_their_share(lengths, seed):
    length = torch.tensor(lengths)
    found = [
        draw_interest_pairs(length, 1, distance, 4, torch.Generator().manual_seed(seed),
                            num_far_pairs=far).windows
        for distance, far in ((None, 0), (None, 2), (3, 4))
    ]  # fmt: skip
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_without_l_no_pair_is_far():
    method = build(1, variant="/F/L", far_share=0.5, num_pairs=4)
    assert (method.max_distance, method.far_pairs) == (1, 0)


# ----------------------------------------------------------------- features and encoder


def info_nce(
    anchors: list[Tensor | None], others: list[Tensor | None], group: list[int], tau: float = TAU
) -> Tensor:
    """Eq. 15 by loops, over the rows that have a pair."""
    present = [b for b, each in enumerate(anchors) if each is not None]
    losses = []
    for b in present:
        terms = [
            torch.cosine_similarity(anchors[b], others[c], dim=0) / tau  # type: ignore[arg-type]
            for c in present
            if c == b or group[c] != group[b]
        ]
        own = torch.cosine_similarity(anchors[b], others[b], dim=0) / tau  # type: ignore[arg-type]
        losses.append(torch.logsumexp(torch.stack(terms), dim=0) - own)
    return torch.stack(losses).mean() if losses else torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("taus", [None, [0.05, 0.5, 1.0]], ids=["one τ", "τ of each"])
@pytest.mark.parametrize("encoder", [[], [6, 5]])
@pytest.mark.parametrize(("max_distance", "far_share"), [(2, 0.0), (2, 0.4), (2, 1.0), (None, 0.0)])
@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize("lengths", [LENGTHS, [1, 0, 1]])
def test_features_apart_are_the_mean_of_their_own_infonces(
    lengths,
    sequences,
    max_distance,
    far_share,
    encoder,
    taus,
    make_batch,
    exact,
    look_up,
    encode_mlp,
):
    behavior = make_batch(lengths, sequences)
    method = exact(
        build(sequences, separate_features=True, max_width=1, num_pairs=3,
              max_distance=max_distance, far_share=far_share, interest_encoder=encoder)
    )  # fmt: skip
    assert bool(list(method.interest_encoder.parameters())) == bool(encoder)
    if taus is not None:
        method.own_temperatures = taus[:sequences]
    pairs = pairs_of(method, behavior)
    found = method(behavior).ssl
    (g,) = method.extractor.g  # Eq. 19 with m = 1 is one factor
    history, group = look_up(behavior), behavior.group.tolist()
    expected = []
    for j in range(sequences):
        part = slice(j * DIM, (j + 1) * DIM)
        for p in range(3):
            views: list[list[Tensor | None]] = [[], []]
            for b, steps in enumerate(history):
                for v in range(2):
                    if len(steps) < 2:
                        views[v].append(None)
                        continue
                    h = g * steps[pairs.windows[b, 0, p, v]][part]
                    views[v].append(encode_mlp(method.interest_encoder, h) if encoder else h)
            expected.append(info_nce(*views, group, TAU if taus is None else taus[j]))
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-12)


TOLD = {"items": 3.0, "categories": 0.4, "brands": 0.0}  # nats


@pytest.mark.parametrize(
    ("changes", "tau", "own"),
    [
        ({}, 0.1, [0.1, 0.25, 1.0]),
        ({}, 0.5, [0.5, 1.0, 1.0]),
        ({}, 2.0, [2.0, 2.0, 2.0]),  # never below τ
        ({"separate_features": False}, 0.1, [0.1]),
        ({"scale_temperature": False}, 0.1, [0.1]),
    ],
)
def test_ids_that_say_little_about_each_other_have_a_higher_temperature(
    monkeypatch, changes, tau, own
):
    """max(τ, min(1, τ / I)), from every row of a small split; a loss for all attributes has one."""
    columns = {name: torch.full((6, 4), number) for number, name in enumerate(TOLD)}

    def told(history: Tensor) -> float:
        assert history.shape == (6, 4)
        return list(TOLD.values())[int(history[0, 0])]

    monkeypatch.setattr("fuxictr_miss.methods.miss.method.information", told)
    keys = {"separate_features": True, "scale_temperature": True, **changes}
    generator = torch.Generator().manual_seed(6)
    method = MISS(SSLSettings(temperature=tau), MISSSettings(**keys), 3, DIM, generator)
    if method.prepares:
        method.prepare(columns)
    assert method.own_temperatures == pytest.approx(own)


def test_concatenated_attributes_tell_what_the_most_telling_one_does(monkeypatch):
    monkeypatch.setattr("fuxictr_miss.methods.miss.method.information", lambda h: h.sum().item())
    method = build(3, scale_temperature=True)
    method.prepare({str(x): torch.tensor([[x]]) for x in (0.1, 0.4, 0.2)})
    assert method.own_temperatures == pytest.approx([TAU / 0.4])


def test_no_encoder_is_the_identity(make_batch, exact):
    h = torch.randn(3, 5, 2, 2, DIM, dtype=torch.float64)
    together = exact(build(2))
    assert torch.equal(together._encode_interests(h), h.flatten(-2))
    apart = exact(build(2, separate_features=True))
    assert torch.equal(apart._encode_interests(h), h)
    feature = exact(build(2, variant="", feature_encoder=[]))
    assert torch.equal(feature.feature_encoder(h), h)
    assert feature(make_batch(LENGTHS, 2)).feature > 0


# ----------------------------------------------------------------- users


def test_rows_of_one_user_are_never_each_others_negatives(make_batch, exact):
    behavior = make_batch(LENGTHS, 1)
    users = torch.tensor([3, 3, 4, 4, 3, 9, 9, 9])
    behavior = Behavior(behavior.columns, behavior.tables, users)
    assert torch.equal(behavior.group, users)
    method = exact(build(1, max_width=1, num_pairs=1, far_share=1.0))
    pairs = pairs_of(method, behavior)
    views: list[list[Tensor | None]] = [[], []]
    for b, n in enumerate(LENGTHS):
        for v in range(2):
            step = behavior.columns[0][b, pairs.windows[b, 0, 0, v]]
            views[v].append(behavior.tables[0].weight[step] if n >= 2 else None)
    assert method.extractor.g[0].item() != 0  # a cosine does not see the factor's size
    expected = info_nce(*views, users.tolist())
    assert method(behavior).ssl.item() == pytest.approx(expected.item(), abs=1e-12)


def test_users_out_of_the_vocabulary_are_each_alone(params, monkeypatch):
    model, loaders = experiment.build({**params, "model": "DIN_MISS"})
    ssl = model._self_supervision
    assert ssl.user == "user_id"
    batch = dict(next(iter(loaders["train"])))
    unknown = model.feature_map.features["user_id"]["vocab_size"] - 1
    assert ssl.unknown_user == unknown
    batch["user_id"] = batch["user_id"].clone()
    batch["user_id"][:4] = unknown
    batch["user_id"][4:6] = 2
    groups: list[Tensor] = []
    forward = MISS.forward
    monkeypatch.setattr(
        MISS, "forward", lambda self, each: groups.append(each.group) or forward(self, each)
    )
    ssl.losses(model, batch)
    (group,) = groups
    assert len(set(group[:4].tolist())) == 4
    assert not set(group[:4].tolist()) & set(group[4:].tolist())
    assert group[4:6].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("changes", "user"),
    [({}, "user_id"), ({"ssl_user": "item_id"}, "item_id"), ({"group_id": "cate_id"}, "cate_id")],
)
def test_the_user_is_the_given_column_or_the_group_or_one_of_its_usual_names(params, changes, user):
    model, _ = experiment.build({**params, "model": "DIN_MISS", **changes})
    assert model._self_supervision.user == user


@pytest.mark.parametrize("remap", [True, False])
def test_the_user_may_be_a_meta_column_as_in_fuxictrs_benchmark(params, monkeypatch, remap):
    """It has no table; its ids tell rows apart, jointly and in pretraining."""
    for split in ("train", "valid", "test"):
        frame = pl.read_parquet(params[f"{split}_data"])
        params[f"{split}_data"] = f"{params['data_root']}_{split}.parquet"
        numbers = pl.col("user_id").str.slice(1).cast(pl.Int64)
        frame.with_columns(user_id=numbers).write_parquet(params[f"{split}_data"])
    user = {"name": "user_id", "active": True, "dtype": "int", "type": "meta", "remap": remap}
    items, *sequences = params["feature_cols"]
    columns = [user, {**items, "name": ["item_id", "cate_id"]}, *sequences]
    changes = {"feature_cols": columns, "ssl_training": "pretrain", "ssl_pretrain_epochs": 1}
    params.update(changes, metrics=["AUC", "gAUC"], group_id="user_id", epochs=1)
    model, loaders = experiment.build({**params, "model": "DIN_MISS"})
    ssl, groups = model._self_supervision, []
    forward = ssl.methods[0].forward
    monkeypatch.setattr(
        ssl.methods[0], "forward", lambda each: groups.append(each.group) or forward(each)
    )
    batch = next(iter(loaders["train"]))
    ssl.losses(model, batch)
    assert torch.equal(groups[0], batch["user_id"].long())
    histories = Histories(loaders["train"], [["item_history"]], ssl.user, ssl.unknown_user)
    assert len(histories) == len(loaders["train"].column("user_id").unique())
    assert 0 < experiment.run({**params, "model": "DIN_MISS"})["test_gAUC"] <= 1


def test_a_user_that_is_no_feature_is_refused_with_the_closest(params):
    with pytest.raises(ValueError, match=r"Unknown ssl_user 'user_ids'.*'user_id'"):
        experiment.build({**params, "model": "DIN_MISS", "ssl_user": "user_ids"})
