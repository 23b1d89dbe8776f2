"""Batches of behaviors in float64, and the Transformer written out as loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.fields import Fields
from fuxictr_miss.methods.transformer import SequenceEncoder, TransformerBlock

VOCABULARY = 12
DIM = 4  # K


@pytest.fixture
def make_batch() -> Callable[..., Behavior]:
    """(lengths, J, padding, twins) -> a batch whose row b has lengths[b] behaviors.

    `padding` is "post", "pre" or "holes" (behaviors anywhere, and parts of one elsewhere). `twins`
    are two rows that share the history of the first. The behaviors do not depend on the padding.
    """

    def make(
        lengths: list[int],
        sequences: int = 2,
        padding: str = "post",
        twins: tuple[int, int] | None = None,
        max_len: int = 8,
        vocabulary: int = VOCABULARY,
    ) -> Behavior:
        draw = torch.Generator().manual_seed(4)
        tokens = torch.randint(1, vocabulary, (len(lengths), sequences, max_len), generator=draw)
        ids = torch.zeros_like(tokens)
        for b, n in enumerate(lengths):
            places = {
                "post": torch.arange(n),
                "pre": torch.arange(max_len - n, max_len),
                "holes": torch.randperm(max_len, generator=draw)[:n].sort().values,
            }[padding]
            if padding == "holes" and sequences > 1:
                ids[b, 0] = 3
            ids[b, :, places] = tokens[b, :, :n]
        if twins:
            ids[twins[1]] = ids[twins[0]]
        tables = []
        for _ in range(sequences):
            table = nn.Embedding(vocabulary, DIM, padding_idx=0, dtype=torch.float64)
            table.weight.data = torch.randn(vocabulary, DIM, generator=draw, dtype=torch.float64)
            table.weight.data[0] = 0
            tables.append(table)
        return Behavior(ids.unbind(1), list(tables))

    return make


@pytest.fixture
def make_fields(make_batch: Callable[..., Behavior]) -> Callable[[int, str], Fields]:
    """(rows, padding) -> two ids, a number, a third id of the first's table, and a history.

    The second row lacks its first id, and its history is empty; the third row has one behavior.
    """

    def make(rows: int, padding: str) -> Fields:
        draw = torch.Generator().manual_seed(8)
        ids = torch.randint(1, VOCABULARY, (3, 6), generator=draw)
        ids[0, 1] = 0
        number = torch.rand(6, generator=draw, dtype=torch.float64)
        history = make_batch([5, 0, 1, 3, 8, 2], 1, padding)
        table = history.tables[0]
        site = nn.Embedding(VOCABULARY, DIM, padding_idx=0, dtype=torch.float64)
        price = nn.Linear(1, DIM, bias=False, dtype=torch.float64)
        columns = [ids[0], ids[1], number, ids[2], history.columns[0]]
        kinds = ["categorical", "categorical", "numeric", "categorical", "sequence"]
        sizes = [VOCABULARY, VOCABULARY, 0, VOCABULARY, VOCABULARY]
        tables = [table, site, price, table, table]
        return Fields([column[:rows] for column in columns], kinds, sizes, tables)

    return make


@pytest.fixture
def by_field() -> Callable[[Fields], list[list[Tensor | None]]]:
    """(fields) -> [b][f]: the vector of a field, by loops; None where it is absent."""

    def vector(column: Tensor, kind: str, table: nn.Module) -> Tensor | None:
        if kind == "numeric":
            return table.weight[:, 0] * column
        present = [ident for ident in column.reshape(-1).tolist() if ident]
        return sum(table.weight[ident] for ident in present) / len(present) if present else None

    def make(fields: Fields) -> list[list[Tensor | None]]:
        return [
            [vector(c[b], k, t)
             for c, k, t in zip(fields.columns, fields.kinds, fields.tables, strict=True)]
            for b in range(len(fields.columns[0]))
        ]  # fmt: skip

    return make


@pytest.fixture
def exact() -> Callable[[Any], Any]:
    """(method) -> the method in float64 with every weight drawn wide and of both signs."""

    def make(method: Any) -> Any:
        draw = torch.Generator().manual_seed(5)
        for parameter in method.double().parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64) / 2
        return method

    return make


@pytest.fixture
def histories() -> Callable[[Behavior], list[list[tuple[int, ...]]]]:
    """(behavior) -> [b][l]: the J ids of a behavior, by loops."""

    def make(behavior: Behavior) -> list[list[tuple[int, ...]]]:
        rows = torch.stack(behavior.columns, dim=1).tolist()
        return [[step for step in zip(*row, strict=True) if all(step)] for row in rows]

    return make


@pytest.fixture
def look_up(histories: Callable) -> Callable[[Behavior], list[list[Tensor]]]:
    """(behavior) -> [b][l]: the J embeddings of a behavior side by side, (JK,)."""

    def make(behavior: Behavior) -> list[list[Tensor]]:
        tables = behavior.tables
        return [
            [torch.cat([table.weight[i] for table, i in zip(tables, step, strict=True)])
             for step in history]
            for history in histories(behavior)
        ]  # fmt: skip

    return make


@pytest.fixture
def encode_mlp() -> Callable[[nn.Sequential, Tensor], Tensor]:
    """An MLP with ReLU between its layers, one vector at a time."""

    def encode(encoder: nn.Sequential, h: Tensor) -> Tensor:
        linear = [layer for layer in encoder if isinstance(layer, nn.Linear)]
        for number, layer in enumerate(linear):
            h = layer.weight @ h + layer.bias
            h = h.clamp(min=0) if number < len(linear) - 1 else h
        return h

    return encode


@pytest.fixture
def encode_sequence() -> Callable[..., Tensor]:
    """A Transformer over a list of vectors, oldest first: the state of the last of them.

    `newer` behaviors follow that it may not see.
    """

    def encode(encoder: SequenceEncoder, x: list[Tensor], newer: int = 0) -> Tensor:
        oldest = len(encoder.position) - 1
        h = [
            norm(encoder.norm, each + encoder.position[min(len(x) - 1 + newer - place, oldest)])
            for place, each in enumerate(x)
        ]
        for block in encoder.blocks:
            seen = [h[: place + 1] if encoder.causal else h for place in range(len(h))]
            h = [
                block_by_loops(block, each, context) for each, context in zip(h, seen, strict=True)
            ]
        return h[-1]

    return encode


def block_by_loops(block: TransformerBlock, h: Tensor, context: list[Tensor]) -> Tensor:
    """Attention of one state to `context`, then the feed-forward part."""
    size = len(h) // block.heads
    heads = []
    for head in range(block.heads):
        part = slice(head * size, (head + 1) * size)
        q = linear(block.query, h)[part]
        keys = [linear(block.key, each)[part] for each in context]
        values = [linear(block.value, each)[part] for each in context]
        weights = [torch.exp(q @ key / math.sqrt(size)) for key in keys]
        pairs = zip(weights, values, strict=True)
        heads.append(sum(weight * value for weight, value in pairs) / sum(weights))
    h = norm(block.attention_norm, h + linear(block.out, torch.cat(heads)))
    inner = linear(block.feed_forward[0], h)
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2  # GELU
    return norm(block.feed_forward_norm, h + linear(block.feed_forward[2], inner))


def linear(layer: nn.Linear, h: Tensor) -> Tensor:
    return layer.weight @ h + layer.bias


def norm(layer: nn.LayerNorm, h: Tensor) -> Tensor:
    deviation = ((h - h.mean()) ** 2).mean() + layer.eps
    return (h - h.mean()) / torch.sqrt(deviation) * layer.weight + layer.bias


@pytest.fixture
def contrast() -> Callable[..., tuple[Tensor, Tensor]]:
    """(pairs of each row or None, histories, τ) -> InfoNCE of Eq. 15 and the mean similarity."""

    def info_nce(
        pairs: list[tuple[Tensor, Tensor] | None], histories: list[Any], tau: float
    ) -> tuple[Tensor, Tensor]:
        present = [b for b, pair in enumerate(pairs) if pair is not None]
        losses, similarities = [], []
        for b in present:
            own = torch.cosine_similarity(*pairs[b], dim=0)
            total = torch.exp(own / tau)
            for other in present:
                if histories[other] != histories[b]:
                    s = torch.cosine_similarity(pairs[b][0], pairs[other][1], dim=0)
                    total = total + torch.exp(s / tau)
            losses.append(-torch.log(torch.exp(own / tau) / total))
            similarities.append(own)
        if not present:
            nothing = torch.zeros((), dtype=torch.float64)
            return nothing, nothing
        return sum(losses) / len(losses), sum(similarities) / len(similarities)

    return info_nce


@pytest.fixture
def gradients() -> Callable[[Tensor, list[Tensor]], list[Tensor]]:
    """(loss, parameters) -> gradients, zeros for what the loss does not depend on."""

    def make(loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
        if not loss.requires_grad:
            return [torch.zeros_like(each) for each in parameters]
        found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        pairs = zip(found, parameters, strict=True)
        return [torch.zeros_like(each) if grad is None else grad for grad, each in pairs]

    return make


def nt_xent_by_loops(
    views: dict[int, list[Tensor]], groups: list[Any], tau: float
) -> tuple[Tensor, Tensor]:
    """NT-Xent of the two views of each row, and their mean similarity."""
    terms = []
    for b, pair in views.items():
        for side in range(2):
            own = torch.exp(torch.cosine_similarity(*pair, dim=0) / tau)
            total = own
            for other, theirs in views.items():
                if groups[other] != groups[b]:
                    for view in theirs:
                        s = torch.cosine_similarity(pair[side], view, dim=0)
                        total = total + torch.exp(s / tau)
            terms.append(-torch.log(own / total))
    if not terms:
        return (torch.zeros((), dtype=torch.float64),) * 2
    similarities = [torch.cosine_similarity(*pair, dim=0) for pair in views.values()]
    return sum(terms) / len(terms), sum(similarities) / len(similarities)
