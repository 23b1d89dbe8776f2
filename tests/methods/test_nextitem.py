"""The next-item softmax against loops over histories, next behaviors and negatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.test_catalogue import shares

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.methods import nextitem
from fuxictr_miss.methods.catalogue import catalogue
from fuxictr_miss.methods.draws import by_weight
from fuxictr_miss.methods.nextitem import NextItem, NextItemSettings

DIM = 4
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]
TWINS = (0, 6)

CASES = [
    *((LENGTHS, padding) for padding in ("post", "pre", "holes")),
    ([6], "pre"), ([2], "post"), ([1, 0, 2], "holes"),
]  # fmt: skip


def build(sequences: int = 2, **keys: Any) -> NextItem:
    generator = torch.Generator().manual_seed(6)
    settings = NextItemSettings(**{"dropout": 0.0, "max_len": 5, "negatives": 6} | keys)
    return NextItem(SSLSettings(), settings, sequences, DIM, generator)


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize(("power", "log_q"), [(0.0, True), (0.75, True), (1.0, False)])
@pytest.mark.parametrize(("lengths", "padding"), CASES)
def test_loss_and_gradients_equal_the_loops(
    lengths, padding, power, log_q, sequences, make_batch, exact, histories, look_up,
    encode_sequence, gradients,
):  # fmt: skip
    twins = TWINS if len(lengths) > TWINS[1] else None
    behavior = make_batch(lengths, sequences, padding, twins, vocabulary=5)
    method = exact(build(sequences, power=power, log_q=log_q))
    if power:  # else the batch is the catalogue
        method.prepare({str(j): column for j, column in enumerate(behavior.columns)})
    replay = torch.Generator()
    replay.set_state(method.generator.get_state())
    losses = method(behavior)

    items, up_to, _ = catalogue(behavior.columns, power)
    drawn = [tuple(items[k].tolist()) for k in by_weight(up_to, (6,), replay)]
    q, tables = shares(histories(behavior), power), behavior.tables
    vector = {
        item: torch.cat([table.weight[i] for table, i in zip(tables, item, strict=True)])
        for item in q
    }
    means, similarities = [], []
    for ids, x in zip(histories(behavior), look_up(behavior), strict=True):
        terms = []
        for place in range(1, len(x)):
            h = encode_sequence(method.encoder, x[:place], newer=len(x) - 1 - place)
            total = torch.exp(h @ x[place])
            for item in drawn:
                if item != ids[place]:
                    expected_draws = 6 * q[item] if log_q else 1
                    total = total + torch.exp(h @ vector[item]) / expected_draws
            terms.append(-torch.log(torch.exp(h @ x[place]) / total))
            similarities.append(torch.cosine_similarity(h, x[place], dim=0))
        if terms:
            means.append(sum(terms) / len(terms))
    expected = sum(means) / len(means)
    torch.testing.assert_close(losses.ssl, expected)
    torch.testing.assert_close(losses.similarity, sum(similarities) / len(similarities))
    assert losses.feature.item() == 0
    parameters = [*method.parameters(), *(table.weight for table in behavior.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


@pytest.mark.parametrize("sequences", [1, 2, 3])
def test_the_score_of_an_item_is_that_of_the_state_after_the_whole_history(
    sequences, make_batch, exact, look_up, encode_sequence
):
    behavior = make_batch(LENGTHS, sequences, "holes")
    method = exact(build(sequences)).eval()
    items = torch.arange(8 * sequences).view(8, sequences) % 11 + 1
    found = method.scores(behavior, items)
    for b, x in enumerate(look_up(behavior)):
        pairs = zip(behavior.tables, items[b], strict=True)
        e = torch.cat([table.weight[i] for table, i in pairs])
        h = encode_sequence(method.encoder, x) if x else torch.zeros_like(e)
        torch.testing.assert_close(found[b], h @ e)


@pytest.mark.parametrize("lengths", [[0, 0], [1], [1, 0, 1]])
@pytest.mark.parametrize("sequences", [1, 2, 3])
def test_without_a_next_behavior_the_loss_is_exactly_nothing(lengths, sequences, make_batch):
    method = build(sequences).double()
    behavior = make_batch(lengths, sequences)
    losses = method(behavior)
    assert [each.item() for each in losses[:3]] == [0, 0, 0]
    losses.ssl.backward()
    assert not any(table.weight.grad.any() for table in behavior.tables)


def test_a_state_knows_nothing_of_what_follows(make_batch, exact):
    """Another fourth behavior changes no prediction up to its own."""
    method = exact(build())
    behavior = make_batch([6, 6, 6])
    h, _, ids, _ = method._predictions(behavior)
    for column in behavior.columns:
        column[:, 3] = column[:, 3] % 11 + 1
    again = Behavior(behavior.columns, behavior.tables)
    other, _, changed, _ = method._predictions(again)
    same = [True, True, True, False, False] * 3
    assert (h == other).all(dim=1).tolist() == same
    assert (ids == changed).all(dim=1).tolist() == [True, True, False, True, True] * 3


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_denominator_is_an_unbiased_estimate_of_the_sum_over_all_items(
    power, make_batch, exact, monkeypatch
):
    """exp(L) of one prediction is linear in its negatives, so its mean over all draws of one
    negative is that of the whole softmax."""
    method = exact(build(1, power=power, negatives=1))
    behavior = make_batch([2], 1, vocabulary=5)
    rows = torch.tensor([[1, 2, 2, 3], [4, 1, 1, 1]])
    method.prepare({"items": rows})
    h, target, *_ = method._predictions(behavior)
    scores = behavior.tables[0].weight[1:] @ h[0]
    mean = 0.0
    for item, q in shares([[(i,) for i in row] for row in rows.tolist()], power).items():
        monkeypatch.setattr(nextitem, "by_weight", lambda *_, k=item[0] - 1: torch.tensor([k]))
        mean += q * method(behavior).ssl.exp().item()
    assert mean == pytest.approx((scores.exp().sum() / (h[0] @ target[0]).exp()).item())
