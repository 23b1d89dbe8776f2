"""Skip-gram with negative sampling against loops over pairs and negatives."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.methods.draws import by_weight
from fuxictr_miss.methods.item2vec import Item2Vec, Item2VecSettings, draw_pairs

DIM = 4
VOCABULARY = 7
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]

CASES = [
    *((LENGTHS, padding) for padding in ("post", "pre", "holes")),
    ([6], "pre"), ([1, 0, 2], "holes"), ([1], "post"), ([0, 0], "post"),
]  # fmt: skip


def build(sequences: int = 2, **keys: Any) -> Item2Vec:
    generator = torch.Generator().manual_seed(6)
    settings = Item2VecSettings(**{"num_pairs": 3, "negatives": 4} | keys)
    method = Item2Vec(SSLSettings(), settings, sequences, DIM, generator)
    method.open_tables([VOCABULARY] * sequences)
    return method


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + torch.exp(-x))


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize("subsample", [None, 0.05])
@pytest.mark.parametrize(("lengths", "padding"), CASES)
def test_loss_and_gradients_equal_the_loops(
    lengths, padding, subsample, sequences, make_batch, exact, histories, gradients
):
    behavior = make_batch(lengths, sequences, padding, vocabulary=VOCABULARY)
    method = exact(build(sequences, subsample=subsample))
    if subsample:  # else the ids of the batch are counted
        method.prepare({str(j): column for j, column in enumerate(behavior.columns)})
    replay = torch.Generator()
    replay.set_state(method.generator.get_state())
    losses = method(behavior)

    pairs, exists = draw_pairs(behavior.length, behavior.max_len, None, 3, replay)
    rows = histories(behavior)
    assert exists.tolist() == [len(row) >= 2 for row in rows]
    means, similarities = [], []
    for j in range(sequences):
        count = Counter(step[j] for row in rows for step in row)
        weight = [count[i] ** 0.75 if count[i] else 0 for i in range(VOCABULARY)]
        up_to = torch.tensor(weight, dtype=torch.float64).cumsum(0)
        drawn = by_weight(up_to, (len(rows), 3, 4), replay).tolist()
        share = {i: n / sum(count.values()) for i, n in count.items()}
        kept = {i: min(1, math.sqrt((subsample or 1) / f)) for i, f in share.items()}
        u, v, tau = behavior.tables[j].weight, method.output[j], method.temperature
        total, weights, cosines = [], [], []
        for b, row in enumerate(rows):
            for p in range(3 if len(row) >= 2 else 0):
                one, other = (row[place][j] for place in pairs[b, p].tolist())
                term = -torch.log(sigmoid(u[one] @ v[other] / tau - math.log(4)))
                for k in drawn[b][p]:
                    if k != other:
                        term = term - torch.log(sigmoid(math.log(4) - u[one] @ v[k] / tau))
                total.append(term * kept[one] * kept[other])
                weights.append(kept[one] * kept[other])
                cosines.append(torch.cosine_similarity(u[one], v[other], dim=0))
        nothing = torch.zeros((), dtype=torch.float64)
        means.append(sum(total) / sum(weights) if total else nothing)
        similarities.append(sum(cosines) / len(cosines) if cosines else nothing)
    expected = sum(means) / sequences
    torch.testing.assert_close(losses.ssl, expected)
    torch.testing.assert_close(losses.similarity, sum(similarities) / sequences)
    assert losses.feature.item() == 0
    parameters = [*method.parameters(), *(table.weight for table in behavior.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


@pytest.mark.parametrize("window", [1, 2, 5, 40, None])
def test_every_pair_within_the_window_is_equally_likely_in_both_orders(window):
    lengths = [5, 2, 1, 0, 3]
    generator = torch.Generator().manual_seed(1)
    pairs, exists = draw_pairs(torch.tensor(lengths), 7, window, 6000, generator)
    assert exists.tolist() == [n >= 2 for n in lengths]
    for n, drawn in zip(lengths, pairs.tolist(), strict=True):
        if n < 2:
            continue
        count = Counter(map(tuple, drawn))
        near = {
            (i, j)
            for i in range(n)
            for j in range(n)
            if 1 <= abs(i - j) <= (n if window is None else window)
        }
        assert set(count) == near
        assert all(abs(c / 6000 - 1 / len(near)) < 0.03 for c in count.values())


def test_counts_are_those_of_behaviors_however_the_rows_are_cut(make_batch, histories, monkeypatch):
    behavior = make_batch(LENGTHS, 2, "holes", vocabulary=VOCABULARY)
    columns = dict(zip("ab", (c.int() for c in behavior.columns), strict=True))
    for at_once in (65_536, 3, 1):
        monkeypatch.setattr("fuxictr_miss.behavior._ROWS_AT_ONCE", at_once)
        method = build(power=1.0, subsample=0.01)
        method.prepare(columns)
        for j, (up_to, kept) in enumerate(method.unigrams):
            count = Counter(step[j] for row in histories(behavior) for step in row)
            assert up_to.tolist() == [sum(count[i] for i in range(k + 1)) for k in range(7)]
            total = sum(count.values())
            for i in count:
                assert kept[i].item() == pytest.approx(min(1, math.sqrt(0.01 * total / count[i])))


def test_each_output_table_is_as_large_as_the_backbones(params):
    model, _ = experiment.build({**params, "model": "DIN_Item2Vec"})
    ssl = model._self_supervision
    tables = ssl.sources[0].tables(model)
    assert [v.shape for v in ssl.methods[0].output] == [table.weight.shape for table in tables]
    assert {id(v) for v in ssl.methods[0].output} <= {id(p) for p in ssl.trained(model)}


def test_power_0_draws_every_id_that_occurs_alike_and_no_other():
    method = build(1, power=0.0)
    method.prepare({"items": torch.tensor([[1, 1, 1, 4], [5, 1, 0, 0]])})
    ((up_to, _),) = method.unigrams
    assert up_to.tolist() == [0, 1, 1, 1, 2, 3, 3]
