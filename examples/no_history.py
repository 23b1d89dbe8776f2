"""Self-supervision on a table without any history: numbers and ids, as in Criteo and Avazu.

    python examples/no_history.py

MISS needs a behavior sequence. `_CL4CTR` and `_MAP` read all features of a row instead, and work on
every model that has embeddings. Do not expect much: here neither moves test AUC by a point.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuxictr_miss.experiment import run

ROWS, GROUPS, IDS, FIELDS = 6000, 30, 60, 10
# CL4CTR regularizes joint training; MAP is a pretraining, after which everything is trained.
MODELS: dict[str, dict[str, Any]] = {
    "DNN": {},
    "DNN_CL4CTR": {"ssl_training": "joint", "ssl_weight": 1.0},
    "DNN_MAP": {"ssl_training": "pretrain", "ssl_pretrain_epochs": 20},
}


def write_table(folder: Path) -> None:
    """A row has a hidden group, which its ids are typical of, and which decides its label."""
    draw = np.random.default_rng(7)
    typical = draw.integers(0, IDS, (GROUPS, FIELDS, 6))  # ids of a group
    rate = draw.choice([0.15, 0.85], GROUPS)
    group = draw.integers(0, GROUPS, ROWS)
    columns: dict[str, Any] = {"label": (draw.random(ROWS) < rate[group]).astype(float)}
    columns["price"] = draw.lognormal(size=ROWS).round(2)
    for field in range(FIELDS):
        own = typical[group, field, draw.integers(0, 6, ROWS)]
        ids = np.where(draw.random(ROWS) < 0.5, own, draw.integers(0, IDS, ROWS))
        columns[f"C{field + 1}"] = [f"v{each}" for each in ids]
    table = pl.DataFrame(columns)
    for name, start, rows in (("train", 0, 2000), ("valid", 2000, 2000), ("test", 4000, 2000)):
        table[start : start + rows].write_parquet(folder / f"{name}.parquet")


def main(folder: Path) -> None:
    write_table(folder)
    ids = [f"C{field + 1}" for field in range(FIELDS)]
    params = {
        "dataset_id": "table",
        "data_root": str(folder / "encoded"),
        "model_root": str(folder / "checkpoints"),
        "data_format": "parquet",
        **{
            f"{split}_data": str(folder / f"{split}.parquet")
            for split in ("train", "valid", "test")
        },
        "feature_cols": [
            {"name": "price", "active": True, "dtype": "float", "type": "numeric"},
            {"name": ids, "active": True, "dtype": "str", "type": "categorical"},
        ],
        "label_col": {"name": "label", "dtype": "float"},
        "optimizer": "adam",
        "loss": "binary_crossentropy",
        "metrics": ["AUC", "logloss"],
        "learning_rate": 2e-3,
        "batch_size": 128,
        "embedding_dim": 10,
        "hidden_units": [40, 40, 40],
        "epochs": 40,
        "early_stop_patience": 4,
        "seed": 1,
        "verbose": 0,
    }
    for model, keys in MODELS.items():
        result = run({**params, **keys, "model": model, "model_id": model})
        print(f"{model}: test AUC {result['test_AUC']:.4f}", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
