"""Batches of behaviors small enough to follow by hand, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior

VOCABULARY = 12


@pytest.fixture
def make_ids() -> Callable[..., Tensor]:
    """(lengths, sequences, padding, max_len) -> ids whose row b has lengths[b] behaviors.

    `padding` is "post", "pre", "holes" (behaviors anywhere, and single sequences also where there
    is no behavior) or "trimmed" (post, cut to the longest history).
    """

    def make(
        lengths: list[int], sequences: int, padding: str = "post", max_len: int = 8, seed: int = 0
    ) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        # the same ids whatever the padding
        tokens = torch.randint(1, VOCABULARY, (len(lengths), sequences, max_len), generator=draw)
        ids = torch.zeros_like(tokens)
        for b, n in enumerate(lengths):
            places = {
                "post": torch.arange(n),
                "trimmed": torch.arange(n),
                "pre": torch.arange(max_len - n, max_len),
                "holes": torch.randperm(max_len, generator=draw)[:n].sort().values,
            }[padding]
            if padding == "holes" and sequences > 1:
                ids[b, 0] = 3
            ids[b, :, places] = tokens[b, :, :n]
        return ids[:, :, : max(1, *lengths)] if padding == "trimmed" else ids

    return make


@pytest.fixture
def make_tables() -> Callable[..., list[nn.Embedding]]:
    """(sequences, dim) -> that many tables with a zero padding row."""

    def make(sequences: int, dim: int, seed: int = 1) -> list[nn.Embedding]:
        draw = torch.Generator().manual_seed(seed)
        tables = []
        for _ in range(sequences):
            table = nn.Embedding(VOCABULARY, dim, padding_idx=0, dtype=torch.float64)
            table.weight.data = torch.randn(VOCABULARY, dim, generator=draw, dtype=torch.float64)
            table.weight.data[0] = 0
            tables.append(table)
        return tables

    return make


@pytest.fixture
def look_up() -> Callable[[Behavior], list[list[list[Tensor]]]]:
    """(behavior) -> C of Eq. 18 without its padding, by loops: [b][j][l] is e_{j,l}."""

    def look(behavior: Behavior) -> list[list[list[Tensor]]]:
        batch = []
        for row in torch.stack(behavior.columns, dim=1).tolist():
            history = [step for step in zip(*row, strict=True) if all(step)]
            batch.append(
                [
                    [table.weight[step[j]] for step in history]
                    for j, table in enumerate(behavior.tables)
                ]
            )
        return batch

    return look
