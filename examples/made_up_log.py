"""A small synthetic log for the examples, and FuxiCTR's parameters for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

USERS, INTERESTS, ITEMS_PER_INTEREST, CATEGORIES = 1000, 16, 20, 8


def write_log(path: Path) -> None:
    """Write user, item, category and time, one line per interaction.

    A user follows three interests in turns, and moves through an interest item by item.
    """
    rng = np.random.default_rng(7)
    rows = []
    for user in range(USERS):
        interests = rng.choice(INTERESTS, 3, replace=False)
        places = rng.integers(0, ITEMS_PER_INTEREST, 3)
        turns = np.repeat(rng.permutation(np.tile([0, 1, 2], 2)), rng.integers(2, 5, 6))
        for time, turn in enumerate(turns):
            places[turn] = (places[turn] + rng.integers(1, 4)) % ITEMS_PER_INTEREST
            item = interests[turn] * ITEMS_PER_INTEREST + places[turn]
            rows.append(
                (
                    f"u{user}",
                    f"i{item}",
                    f"c{(interests[turn] + places[turn] % 2) % CATEGORIES}",
                    1_700_000_000 + time,
                )
            )
    pd.DataFrame(rows, columns=["user", "item", "cate_id", "time"]).to_csv(path, index=False)


def preprocess(log: Path, splits: Path) -> None:
    """Split the log into train, valid and test, by the paper's protocol."""
    command = "-m fuxictr_miss preprocess interactions --user user --item item --time time"
    files = ["--attributes", "cate_id", "--input", str(log), "--output", str(splits)]
    subprocess.run([sys.executable, *command.split(), *files], check=True)


def parameters(folder: Path) -> dict[str, Any]:
    """Write log and splits to `folder`; return what FuxiCTR's `load_config` would for them."""
    write_log(folder / "log.csv")
    preprocess(folder / "log.csv", folder / "splits")
    history = {"active": True, "dtype": "str", "type": "sequence", "splitter": "^", "max_len": 50}
    history["feature_encoder"] = None  # one vector per behavior; FuxiCTR's default is their mean
    names = ["user_id", "item_id", "cate_id"]
    return {
        "dataset_id": "mylog",
        "data_root": str(folder / "encoded"),
        "model_root": str(folder / "checkpoints"),
        "data_format": "parquet",
        **{f"{each}_data": str(folder / f"splits/{each}.parquet") for each in ("train", "valid")},
        "test_data": str(folder / "splits/test.parquet"),
        "feature_cols": [
            {"name": names, "active": True, "dtype": "str", "type": "categorical"},
            {**history, "name": "item_history", "share_embedding": "item_id"},
            {**history, "name": "cate_history", "share_embedding": "cate_id"},
        ],
        "label_col": {"name": "label", "dtype": "float"},
        "optimizer": "adam",
        "loss": "binary_crossentropy",
        "metrics": ["AUC", "logloss"],
        "learning_rate": 5e-3,
        "batch_size": 128,
        "embedding_dim": 10,
        "epochs": 40,
        "early_stop_patience": 8,
        "reduce_lr_on_plateau": False,
        "seed": 1,
        "verbose": 0,
        # DIN's own keys, which other classes ignore
        "dnn_hidden_units": [40, 40, 40],
        "attention_hidden_units": [40],
        "din_target_field": [["item_id", "cate_id"]],
        "din_sequence_field": [["item_history", "cate_history"]],
        "din_use_softmax": True,  # without it, training on so few rows is unstable
        # how `_MISS` is trained (config/recipes.yaml), for a small log
        "ssl_recipe": "recommended",
        "ssl_pretrain_epochs": 10,
    }
