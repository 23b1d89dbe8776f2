"""The items of some rows and their shares, against a count."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from fuxictr_miss.methods.catalogue import catalogue


def shares(rows: list[list[tuple[int, ...]]], power: float) -> dict[tuple[int, ...], float]:
    """The probability with which an item is drawn."""
    weight = {item: n**power for item, n in Counter(i for row in rows for i in row).items()}
    return {item: w / sum(weight.values()) for item, w in weight.items()}


def test_the_catalogue_has_each_item_once_with_its_share_however_the_rows_are_cut(monkeypatch):
    draw = torch.Generator().manual_seed(3)
    columns = [torch.randint(0, 3, (40, 5), generator=draw, dtype=torch.int32) for _ in range(3)]
    columns[0][7:10] = 0  # rows without any behavior
    rows = [
        [step for step in zip(*row, strict=True) if all(step)]
        for row in torch.stack(columns, 1).tolist()
    ]
    expected = shares(rows, 0.75)
    for at_once in (65_536, 7, 1):
        monkeypatch.setattr("fuxictr_miss.behavior._ROWS_AT_ONCE", at_once)
        items, up_to, log_q = catalogue(columns, 0.75)
        found = dict(zip(map(tuple, items.tolist()), log_q.exp().tolist(), strict=True))
        assert found == pytest.approx(expected)
        torch.testing.assert_close(up_to, log_q.exp().cumsum(0))
