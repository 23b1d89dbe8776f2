"""MAP's two tasks against loops over rows and fields."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from methods.conftest import DIM, VOCABULARY

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.errors import InputError
from fuxictr_miss.fields import Fields
from fuxictr_miss.methods.draws import by_count, shuffle
from fuxictr_miss.methods.map import MAP, MAPSettings

CASES = [(6, "post"), (6, "pre"), (6, "holes"), (1, "post"), (2, "pre")]


def build(fields: int = 5, **keys: Any) -> MAP:
    generator = torch.Generator().manual_seed(6)
    settings = MAPSettings(**{"hidden_units": [7, 6], "negatives": 3, "ratio": 0.5} | keys)
    return MAP(SSLSettings(), settings, fields, DIM, generator)


def columns_of(fields: Fields) -> dict[str, torch.Tensor]:
    return {f"f{i}": column for i, column in enumerate(fields.columns)}


def spoiled_by_loops(fields: Fields, ratio: float, replay: torch.Generator) -> list[list[int]]:
    """The fields of each row that are masked or replaced."""
    rank = shuffle(fields.ids > 0, replay).tolist()
    chosen = []
    for i, row in enumerate(fields.ids.tolist()):
        eligible = [f for f, ident in enumerate(row) if ident]
        count = max(1, math.floor(len(eligible) * ratio))
        chosen.append([f for f in eligible if rank[i][f] < count])
    return chosen


def encode(method: MAP, vectors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The F vectors that recover a row."""
    h = torch.cat(vectors)
    for layer in method.encoder:
        if isinstance(layer, torch.nn.Linear):
            h = (layer.weight @ h + layer.bias).clamp(min=0)
    return list((method.recover.weight @ h + method.recover.bias).split(DIM))


def setup(rows: int, padding: str, make_fields, exact, **keys: Any):
    fields = make_fields(rows, padding)
    method = exact(build(**keys))
    method.prepare(columns_of(make_fields(6, "post")))
    replay = torch.Generator()
    replay.set_state(method.generator.get_state())
    return fields, method, method(fields), replay


def zeros(x: list[list[torch.Tensor | None]]) -> list[list[torch.Tensor]]:
    nothing = torch.zeros(DIM, dtype=torch.float64)
    return [[nothing if e is None else e for e in row] for row in x]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.99])
@pytest.mark.parametrize(("rows", "padding"), CASES)
def test_masked_feature_prediction_and_its_gradients_equal_the_loops(
    rows, padding, ratio, make_fields, by_field, exact, gradients
):
    fields, method, losses, replay = setup(rows, padding, make_fields, exact, ratio=ratio)
    chosen = spoiled_by_loops(fields, ratio, replay)
    noise = {}
    for f in range(5):
        of_field = [i for i in range(rows) if f in chosen[i]]
        if fields.kinds[f] == "categorical":
            drawn = by_count(method.up_to[f], (rows, 3), replay).tolist()
            noise.update({(i, f): drawn[i] for i in of_field})
    x, terms, similarities = zeros(by_field(fields)), [], []
    for i in range(rows):
        g = encode(method, [method.mask_token if f in chosen[i] else x[i][f] for f in range(5)])
        for f in chosen[i]:
            table = fields.tables[f].weight
            target = int(fields.ids[i, f])
            counts = method.up_to[f].diff(prepend=torch.zeros(1, dtype=torch.long))
            term = 0
            for number, ident in enumerate([target, *noise[i, f]]):
                q = counts[ident].item() / counts.sum().item()
                bias = math.log(VOCABULARY * q)
                score = table[ident] @ g[f] + bias
                d = score - math.log(VOCABULARY) - math.log(3 * q)
                p = torch.sigmoid(d)
                term = term - torch.log(p if number == 0 else 1 - p)
            terms.append(term)
            similarities.append(torch.cosine_similarity(g[f], x[i][f], dim=0))
    expected = sum(terms) / len(terms)
    torch.testing.assert_close(losses.ssl, expected)
    torch.testing.assert_close(losses.similarity, sum(similarities) / len(similarities))
    assert losses.feature.item() == 0
    parameters = [*method.parameters(), *(next(t.parameters()) for t in fields.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


@pytest.mark.parametrize(("rows", "padding"), CASES)
def test_replaced_feature_detection_and_its_gradients_equal_the_loops(
    rows, padding, make_fields, by_field, exact, gradients
):
    fields, method, losses, replay = setup(rows, padding, make_fields, exact, task="RFD")
    chosen = spoiled_by_loops(fields, 0.5, replay)
    other = {}
    for f in range(5):
        of_field = [i for i in range(rows) if f in chosen[i]]
        if fields.kinds[f] == "categorical":
            drawn = by_count(method.up_to[f], (rows,), replay).tolist()
            other.update({(i, f): drawn[i] for i in of_field})
    x, terms = zeros(by_field(fields)), []
    for i in range(rows):
        spoiled = [
            fields.tables[f].weight[other[i, f]] if (i, f) in other else x[i][f] for f in range(5)
        ]
        hidden = torch.cat(encode(method, spoiled)).clamp(min=0)
        logits = method.detect.weight @ hidden + method.detect.bias
        for f, ident in enumerate(fields.ids[i].tolist()):
            if ident:
                p = torch.sigmoid(logits[f])
                was_replaced = other.get((i, f), ident) != ident
                terms.append(-torch.log(p if was_replaced else 1 - p))
    expected = sum(terms) / len(terms)
    torch.testing.assert_close(losses.ssl, expected)
    parameters = [*method.parameters(), *(next(t.parameters()) for t in fields.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


@pytest.mark.parametrize("task", ["MFP", "RFD"])
def test_a_batch_without_any_id_adds_exactly_nothing(task, make_fields):
    table = torch.nn.Embedding(9, DIM, padding_idx=0)
    empty = torch.zeros(4, dtype=torch.long)
    fields = Fields([empty, empty], ["categorical"] * 2, [9, 9], [table, table])
    assert build(2, task=task)(fields).ssl.item() == 0


def test_before_the_training_split_is_known_all_ids_are_equally_likely(make_fields):
    fields = make_fields(6, "post")
    up_to = build()._counts(fields, 0)
    ids = by_count(up_to, (6000,), torch.Generator().manual_seed(1))
    assert ids.min() == 1
    assert (ids.bincount()[1:] - 6000 / (VOCABULARY - 1)).abs().max() < 120


def test_a_model_of_one_feature_is_refused():
    with pytest.raises(InputError, match="two or more"):
        build(1)


def test_data_without_any_categorical_feature_are_refused_in_one_sentence():
    columns = {"price": torch.rand(4), "history": torch.ones(4, 3, dtype=torch.long)}
    with pytest.raises(InputError, match="price, history are numbers or histories") as error:
        build(2).prepare(columns)
    assert "\n" not in str(error.value)
