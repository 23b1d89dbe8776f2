"""CL4CTR against loops over rows, fields and pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from methods.conftest import DIM, block_by_loops

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.fields import Fields
from fuxictr_miss.methods.cl4ctr import CL4CTR, CL4CTRSettings, alignment, uniformity
from fuxictr_miss.methods.draws import drop

CASES = [(6, "post"), (6, "pre"), (6, "holes"), (1, "post"), (2, "pre")]


def build(fields: int, **keys: Any) -> CL4CTR:
    generator = torch.Generator().manual_seed(6)
    return CL4CTR(SSLSettings(), CL4CTRSettings(**keys), fields, DIM, generator)


def alignment_by_loops(x: list[list[torch.Tensor | None]]) -> torch.Tensor:
    terms = [
        ((x[i][f] - x[j][f]) ** 2).sum()
        for f in range(len(x[0]))
        for i in range(len(x))
        for j in range(i)
        if x[i][f] is not None and x[j][f] is not None
    ]
    return sum(terms) / len(terms) if terms else torch.zeros((), dtype=torch.float64)


def uniformity_by_loops(x: list[list[torch.Tensor | None]]) -> torch.Tensor:
    terms = [
        row[f] @ row[g] / (row[f].norm() * row[g].norm() + 1e-4)
        for row in x
        for f in range(len(row))
        for g in range(f)
        if row[f] is not None and row[g] is not None
    ]
    return sum(terms) / len(terms) if terms else torch.zeros((), dtype=torch.float64)


def encode_by_loops(method: CL4CTR, view: list[torch.Tensor]) -> torch.Tensor:
    if method.settings.encoder == "transformer":
        for block in method.layers:
            view = [block_by_loops(block, each, view) for each in view]
        return torch.cat(view)
    start = h = torch.cat(view)
    for layer in method.layers:
        h = start * (layer.weight[0] @ h + layer.bias) + h
    return h


@pytest.mark.parametrize("mask", ["random", "feature", "dimension"])
@pytest.mark.parametrize("encoder", ["transformer", "cross"])
@pytest.mark.parametrize(("rows", "padding"), CASES)
def test_loss_and_gradients_equal_the_loops(
    rows, padding, encoder, mask, make_fields, by_field, exact, gradients
):
    fields: Fields = make_fields(rows, padding)
    method = exact(build(5, encoder=encoder, mask=mask, layers=2, field_weight=0.3))
    replay = torch.Generator()
    replay.set_state(method.generator.get_state())
    losses = method(fields)

    x = by_field(fields)
    shape = {"random": (rows, 5, DIM), "feature": (rows, 5, 1), "dimension": (rows, 1, DIM)}[mask]
    codes = []
    for projection in method.projections:
        kept = drop(torch.ones(shape, dtype=torch.float64), 0.5, replay).expand(rows, 5, DIM)
        nothing = torch.zeros(DIM, dtype=torch.float64)
        views = [
            [(nothing if e is None else e) * kept[i, f] for f, e in enumerate(row)]
            for i, row in enumerate(x)
        ]
        codes.append(
            [projection.weight @ encode_by_loops(method, view) + projection.bias for view in views]
        )
    exist = [i for i, row in enumerate(x) if any(e is not None for e in row)]
    distances = [((codes[0][i] - codes[1][i]) ** 2).sum() for i in exist]
    expected = sum(distances) / len(distances)
    expected = expected + 0.3 * (alignment_by_loops(x) + uniformity_by_loops(x))
    torch.testing.assert_close(losses.ssl, expected)
    assert losses.feature.item() == 0
    similarity = [torch.cosine_similarity(codes[0][i], codes[1][i], dim=0) for i in exist]
    torch.testing.assert_close(losses.similarity, sum(similarity) / len(similarity))
    parameters = [*method.parameters(), *(next(t.parameters()) for t in fields.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


def test_a_batch_without_any_field_adds_exactly_nothing(exact):
    table = torch.nn.Embedding(9, DIM, padding_idx=0)
    empty = torch.zeros(4, dtype=torch.long)
    fields = Fields([empty, empty], ["categorical"] * 2, [9, 9], [table, table])
    assert build(2)(fields).ssl.item() == 0


@pytest.mark.parametrize(
    ("loss", "by_loops"), [(alignment, alignment_by_loops), (uniformity, uniformity_by_loops)]
)
def test_an_absent_field_is_in_no_pair(loss: Callable, by_loops: Callable):
    x = torch.randn(5, 3, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    present = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]]).bool()
    rows = [[x[i, f] if present[i, f] else None for f in range(3)] for i in range(5)]
    torch.testing.assert_close(loss(x * present.unsqueeze(-1), present), by_loops(rows))


def test_the_published_forms_of_alignment_and_uniformity():
    """Of the authors' code: all pairs of rows, and 1e-4 beside the product of lengths."""
    x = torch.randn(4, 3, DIM, generator=torch.Generator().manual_seed(2))
    everything = torch.ones(4, 3, dtype=torch.bool)
    row, other = torch.triu_indices(4, 4, offset=1)
    assert alignment(x, everything).item() == pytest.approx(
        (x[row] - x[other]).square().sum(-1).mean().item(), rel=1e-5
    )
    one = torch.eye(4)[:3].expand(4, 3, 4)  # orthogonal fields
    assert uniformity(one, everything).item() == 0
    assert uniformity(one[:, :1].expand(4, 3, 4), everything).item() == pytest.approx(1 / 1.0001)


def test_views_begin_alike_but_for_the_masks():
    method = build(5, mask_ratio=0.0)
    first, second = method.projections
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
