"""ICSRec against loops over histories, targets, clusters and views."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from methods.conftest import DIM, nt_xent_by_loops

from fuxictr_miss import experiment
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.methods.icsrec import ICSRec, ICSRecSettings, k_means, nearest
from fuxictr_miss.methods.same_target import draw_target, older
from fuxictr_miss.training import fit

TAU = 0.3
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]
TWINS = (0, 6)
CASES = [
    *((LENGTHS, padding) for padding in ("post", "pre", "holes")),
    ([6], "pre"), ([1, 0, 1], "holes"), ([0, 0], "post"),
]  # fmt: skip


def build(sequences: int = 2, **keys: Any) -> ICSRec:
    generator = torch.Generator().manual_seed(6)
    settings = ICSRecSettings(
        **{"dropout": 0.0, "max_len": 5, "intents": 3, "clustered": 20, "iterations": 4} | keys
    )
    return ICSRec(SSLSettings(temperature=TAU), settings, sequences, DIM, generator)


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize(("lengths", "padding"), CASES)
def test_losses_and_gradients_equal_the_loops(
    padding, sequences, lengths, make_batch, exact, look_up, encode_sequence, gradients
):
    twins = TWINS if len(lengths) > TWINS[1] else None
    behavior = make_batch(lengths, sequences, padding, twins, vocabulary=6)
    method = exact(build(sequences))
    method.prepare({f"s{j}": column for j, column in enumerate(behavior.columns)})
    replay = torch.Generator()
    replay.set_state(method.generator.get_state())
    losses = method(behavior)

    place, item, _ = draw_target(behavior, replay)
    own = older(behavior, place)
    other = method.index.another(own, item, replay)
    views = {
        b: [encode_sequence(method.encoder, view) for view in (first, second)]
        for b, (first, second) in enumerate(zip(look_up(own), look_up(other), strict=True))
        if lengths[b] >= 2
    }
    coarse, similarity = nt_xent_by_loops(views, item.tolist(), TAU)
    fine = torch.zeros((), dtype=torch.float64)
    for side in range(2):
        intents = [0] * len(lengths)
        pairs = {}
        for b, pair in views.items():
            distances = [((pair[side] - centre) ** 2).sum().item() for centre in method.centres]
            intents[b] = distances.index(min(distances))
            pairs[b] = [pair[side], method.centres[intents[b]]]
        fine = fine + nt_xent_by_loops(pairs, intents, TAU)[0]
    torch.testing.assert_close(losses.ssl, coarse)
    torch.testing.assert_close(losses.feature, fine)
    torch.testing.assert_close(losses.similarity, similarity)
    parameters = [*method.parameters(), *(table.weight for table in behavior.tables)]
    for loss, expected in ((losses.ssl, coarse), (losses.feature, fine)):
        found, by_loops = gradients(loss, parameters), gradients(expected, parameters)
        torch.testing.assert_close(found, by_loops)


def test_k_means_equals_the_loops():
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = k_means(x, 4, 6, torch.Generator().manual_seed(2))
    first = torch.randperm(30, generator=torch.Generator().manual_seed(2))[:4]
    centres = [x[i] for i in first]
    for _ in range(6):
        members: list[list[torch.Tensor]] = [[] for _ in centres]
        for point in x:
            distances = [((point - centre) ** 2).sum().item() for centre in centres]
            members[distances.index(min(distances))].append(point)
        centres = [
            sum(own) / len(own) if own else centre
            for own, centre in zip(members, centres, strict=True)
        ]
    torch.testing.assert_close(found, torch.stack(centres))


def test_k_means_finds_clusters_that_are_there_and_no_more_than_points():
    middle = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(1)) / 10
    x = middle.repeat(20, 1) + noise
    best = min(
        (k_means(x, 3, 10, torch.Generator().manual_seed(seed)) for seed in range(5)),
        key=lambda c: (x - c[nearest(x, c)]).square().sum(),
    )
    torch.testing.assert_close(best[nearest(middle, best)], middle, rtol=0, atol=0.1)
    assert k_means(x[:2], 8, 3, torch.Generator()).shape == (2, 2)


def test_clusters_are_found_anew_before_each_epoch_and_stay_in_it(params, monkeypatch):
    changes = {"model": "DIN_ICSRec", "ssl_training": "pretrain_joint", "ssl_pretrain_epochs": 2}
    model, loaders = experiment.build({**params, **changes, "icsrec_intents": 4})
    calls = []
    original = ICSRec._cluster
    monkeypatch.setattr(
        ICSRec, "_cluster", lambda self, tables: (calls.append(1), original(self, tables))[1]
    )
    rows = fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert [row["phase"] for row in rows] == ["pretrain", "pretrain", "joint"]
    assert len(calls) == len(rows)
    assert all(row["ssl_feature_loss"] > 0 for row in rows)


def test_clustering_leaves_the_mode_and_sends_no_gradient(make_batch):
    behavior = make_batch([5, 8, 4, 3])
    for training in (True, False):
        method = build(dropout=0.5).double().train(training)
        method.prepare({f"s{j}": column for j, column in enumerate(behavior.columns)})
        method(behavior)
        assert method.training == method.encoder.training == training
        assert not method.centres.requires_grad


def test_a_copy_does_not_hold_the_training_histories(make_batch):
    behavior = make_batch([5, 8, 4, 3])
    method = build().double()
    method.prepare({f"s{j}": column for j, column in enumerate(behavior.columns)})
    method(behavior)
    other = copy.deepcopy(method)
    assert other.index is other.centres is None
    assert method.index is not None
