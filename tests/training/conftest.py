"""Data in which a user has many rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest


@pytest.fixture
def prefixes(splits: Path, tmp_path: Path, params: dict[str, Any]) -> dict[str, Any]:
    """The same data with each prefix of a history as two training rows."""
    positives = pl.read_parquet(splits / "train.parquet").filter(pl.col("label") == 1)
    train = []
    for row in positives.rows(named=True):
        items = [*row["item_history"].split("^"), row["item_id"]]
        categories = [*row["cate_history"].split("^"), row["cate_id"]]
        for end in range(1, len(items)):
            past = {
                "item_history": "^".join(items[:end]),
                "cate_history": "^".join(categories[:end]),
            }
            own = {"item_id": items[end], "cate_id": categories[end]}
            train += [{**row, **past, **own}, {**row, **past, "label": 0.0, "item_id": "i0"}]
    pl.DataFrame(train).write_parquet(tmp_path / "prefixes.parquet")
    return {**params, "train_data": str(tmp_path / "prefixes.parquet")}
