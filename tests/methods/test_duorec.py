"""DuoRec against loops over histories, targets and views."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from methods.conftest import DIM, nt_xent_by_loops

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.methods.duorec import DuoRec, DuoRecSettings
from fuxictr_miss.methods.same_target import draw_target, older

TAU = 0.3
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]
TWINS = (0, 6)
CASES = [
    *((LENGTHS, padding) for padding in ("post", "pre", "holes")),
    ([6], "pre"), ([1, 0, 1], "holes"), ([0, 0], "post"),
]  # fmt: skip


def build(sequences: int = 2, **keys: Any) -> DuoRec:
    generator = torch.Generator().manual_seed(6)
    settings = DuoRecSettings(**{"dropout": 0.0, "max_len": 5} | keys)
    return DuoRec(SSLSettings(temperature=TAU), settings, sequences, DIM, generator)


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize("supervised", [True, False])
@pytest.mark.parametrize(("lengths", "padding"), CASES)
def test_loss_and_gradients_equal_the_loops(
    padding, sequences, supervised, lengths, make_batch, exact, histories, look_up,
    encode_sequence, gradients,
):  # fmt: skip
    twins = TWINS if len(lengths) > TWINS[1] else None
    behavior = make_batch(lengths, sequences, padding, twins, vocabulary=6)
    method = exact(build(sequences, supervised=supervised))
    if method.prepares:
        method.prepare({f"s{j}": column for j, column in enumerate(behavior.columns)})
    assert (method.index is not None) == supervised
    replay = torch.Generator()
    replay.set_state(method.generator.get_state())
    losses = method(behavior)

    place, item, _ = draw_target(behavior, replay)
    own = older(behavior, place)
    other = method.index.another(own, item, replay) if supervised else own
    views = {
        b: [encode_sequence(method.encoder, view) for view in (first, second)]
        for b, (first, second) in enumerate(zip(look_up(own), look_up(other), strict=True))
        if lengths[b] >= 2
    }
    expected, similarity = nt_xent_by_loops(views, histories(behavior), TAU)
    torch.testing.assert_close(losses.ssl, expected)
    torch.testing.assert_close(losses.similarity, similarity)
    assert losses.feature.item() == 0
    parameters = [*method.parameters(), *(table.weight for table in behavior.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


def test_two_views_of_one_history_differ_by_dropout(make_batch):
    method = build(supervised=False, dropout=0.5).double()
    behavior = make_batch([5, 8, 4])
    assert method(behavior).similarity < 0.999
    assert method.eval()(behavior).similarity == pytest.approx(1)


def test_copies_and_files_do_not_hold_the_training_histories(make_batch):
    method = build()
    method.prepare({"item": make_batch([5, 8]).columns[0]})
    for other in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert other.index is None
        assert method.index is not None
        assert all(
            torch.equal(a, b) for a, b in zip(other.parameters(), method.parameters(), strict=True)
        )
