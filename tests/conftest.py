"""A small canonical data set, written once a session: 90 users, 40 items, 6 categories."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from fuxictr_miss.training import pretraining

torch.set_num_threads(1)

USERS, ITEMS, CATEGORIES = 90, 40, 6
LONGEST = {"test_pages.py", "test_examples.py"}  # minutes in one test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: of several processes that take whole files, none ends last alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of train, valid and test.parquet with item and category histories of 1 to 9."""
    rng = random.Random(7)
    folder = tmp_path_factory.mktemp("splits")
    category = {item: f"c{item % CATEGORIES}" for item in range(ITEMS)}
    logs = {u: rng.sample(range(ITEMS), rng.randint(4, 12)) for u in range(USERS)}
    for back, name in ((3, "train"), (2, "valid"), (1, "test")):
        rows = []
        for user, items in logs.items():
            negative = rng.choice([i for i in range(ITEMS) if i not in items])
            past = items[:-back]
            for label, target in ((1.0, items[-back]), (0.0, negative)):
                history = ("^".join(f"i{i}" for i in past), "^".join(category[i] for i in past))
                rows.append((label, f"u{user}", f"i{target}", category[target], *history))
        columns = ["label", "user_id", "item_id", "cate_id", "item_history", "cate_history"]
        pl.DataFrame(rows, columns, orient="row").write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(autouse=True)
def short_epochs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretraining draws 256 histories an epoch, unless the test looks at what a training gains."""
    if request.node.get_closest_marker("trained_number") is None:
        monkeypatch.setattr(pretraining, "MIN_DRAWS", 256)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, three levels below `tmp_path`."""
    folder = tmp_path / "some" / "where" / "else"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def params(splits: Path, tmp_path: Path) -> dict[str, Any]:
    """A config of DIN on the small data set; everything it writes goes below `tmp_path`."""
    return small_params(splits, tmp_path)


@pytest.fixture(scope="session")
def params_below(splits: Path) -> Callable[[Path], dict[str, Any]]:
    """(folder) -> the same, with everything below another folder."""
    return partial(small_params, splits)


def small_params(splits: Path, folder: Path) -> dict[str, Any]:
    categorical = {"active": True, "dtype": "str", "type": "categorical"}
    sequence = {"active": True, "dtype": "str", "type": "sequence", "splitter": "^", "max_len": 9}
    return {
        "model": "DIN",
        "model_id": "DIN_small",
        "dataset_id": "small",
        "data_root": str(folder / "encoded"),
        "model_root": str(folder / "checkpoints"),
        "data_format": "parquet",
        **{f"{name}_data": str(splits / f"{name}.parquet") for name in ("train", "valid", "test")},
        "feature_cols": [
            {"name": ["user_id", "item_id", "cate_id"], **categorical},
            {"name": "item_history", "share_embedding": "item_id", **sequence},
            {"name": "cate_history", "share_embedding": "cate_id", **sequence},
        ],
        "label_col": {"name": "label", "dtype": "float"},
        "task": "binary_classification",
        "loss": "binary_crossentropy",
        "metrics": ["AUC", "logloss"],
        "monitor": "AUC",
        "monitor_mode": "max",
        "optimizer": "adam",
        "learning_rate": 1.0e-2,
        "batch_size": 16,
        "embedding_dim": 4,
        "hidden_units": [8, 8],
        "dnn_hidden_units": [8, 8],
        "attention_hidden_units": [8],
        "din_target_field": [["item_id", "cate_id"]],
        "din_sequence_field": [["item_history", "cate_history"]],
        "embedding_regularizer": 0.0,
        "net_regularizer": 0.0,
        "early_stop_patience": 2,
        "epochs": 3,
        "shuffle": True,
        "seed": 3,
        "verbose": 0,
        "gpu": -1,
    }
