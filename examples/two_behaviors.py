"""Two behaviors of a user, of which only one says what he likes: what MISS makes of both.

    python examples/two_behaviors.py [SEEDS]

`clicks` are items of the user's two interests, `seen` are a few of any items. DIN reads each as a
behavior of its own, and so does `_MISS`: pairs are drawn inside a behavior, and the losses are
averaged. The test AUC of each arm is the mean over SEEDS runs (default 1).
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from fuxictr_miss import experiment

INTERESTS, ITEMS_PER_INTEREST = 16, 20
USERS = {"train": 800, "valid": 400, "test": 800}
HISTORY = {"active": True, "dtype": "str", "type": "sequence", "splitter": "^", "max_len": 12,
           "share_embedding": "item_id"}  # fmt: skip


def write_splits(folder: Path) -> None:
    """Each user with an item of his interests (label 1) and with any item (label 0)."""
    rng = np.random.default_rng(7)
    items = INTERESTS * ITEMS_PER_INTEREST
    for split, users in USERS.items():
        rows = []
        for user in range(users):
            mine = rng.choice(INTERESTS, 2, replace=False)
            length = rng.integers(6, 13)
            liked = rng.choice(mine, length + 1) * ITEMS_PER_INTEREST
            *clicks, target = liked + rng.integers(0, ITEMS_PER_INTEREST, length + 1)
            seen = rng.integers(0, items, rng.integers(0, 4))
            for label, item in ((1, target), (0, rng.integers(0, items))):
                histories = ["^".join(map(str, each)) for each in (clicks, seen)]
                rows.append((label, f"{split}{user}", str(item), *histories))
        names = ["label", "user_id", "item_id", "clicks", "seen"]
        pl.DataFrame(rows, names, orient="row").write_parquet(folder / f"{split}.parquet")


def parameters(folder: Path) -> dict:
    """FuxiCTR's parameters of DIN, which reads two groups of one sequence each."""
    return {
        "model": "DIN", "dataset_id": "two", "data_format": "parquet", "verbose": 0,
        "data_root": str(folder / "encoded"), "model_root": str(folder / "checkpoints"),
        **{f"{split}_data": str(folder / f"{split}.parquet") for split in USERS},
        "feature_cols": [
            {"name": "item_id", "active": True, "dtype": "str", "type": "categorical"},
            {"name": "clicks", **HISTORY}, {"name": "seen", **HISTORY},
        ],
        "label_col": {"name": "label", "dtype": "float"},
        "metrics": ["AUC", "logloss"], "optimizer": "adam", "loss": "binary_crossentropy",
        "learning_rate": 5e-3, "batch_size": 64, "embedding_dim": 10, "epochs": 20,
        "early_stop_patience": 4, "reduce_lr_on_plateau": False, "dnn_hidden_units": [40, 40],
        "attention_hidden_units": [40], "din_use_softmax": True,
        "din_target_field": ["item_id", "item_id"], "din_sequence_field": ["clicks", "seen"],
    }  # fmt: skip


ARMS = {
    "DIN": {"model": "DIN"},
    "DIN_MISS, both behaviors": {},
    "DIN_MISS, clicks alone": {"ssl_sequences": ["clicks"]},
    "DIN_MISS, seen alone": {"ssl_sequences": ["seen"]},
    "DIN_MISS, zipped into one": {"ssl_sequences": [["clicks", "seen"]]},
}


def main(folder: Path, seeds: int) -> None:
    write_splits(folder)
    plain = parameters(folder)
    miss = {**plain, "model": "DIN_MISS", "ssl_pretrain_epochs": 5}
    for number, (name, keys) in enumerate(ARMS.items()):
        params = {**(plain if name == "DIN" else miss), **keys, "model_id": f"arm_{number}"}
        aucs = [experiment.run({**params, "seed": 1 + k})["test_AUC"] for k in range(seeds)]
        print(f"{name}: test AUC {np.mean(aucs):.3f}, from {min(aucs):.3f} to {max(aucs):.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 1)
