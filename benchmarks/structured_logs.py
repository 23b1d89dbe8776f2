"""Made-up logs of which the truth is known, to see under which structure a part of MISS pays.

interleaved  three interests a user, in short runs; the next item is of one of them. Which items
             belong together shows best among near behaviors.
unions       behaviors come in pairs whose codes add up to the user's theme, modulo 8. One item
             says nothing about the theme, a pair all: an interest is a union of items.
attribute    a user is loyal to three brands of 200; each item is met a few times only. The brand
             decides, and an item is worth what its brand is: an intra-item correlation.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuxictr_miss.config import load_config

USERS, BEHAVIORS = 6000, 14


def interleaved(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Items and categories, (USERS, BEHAVIORS) each."""
    interests = rng.integers(0, 60, (USERS, 3))
    turn = np.repeat(rng.integers(0, 3, (USERS, BEHAVIORS // 2)), 2, axis=1)
    interest = np.take_along_axis(interests, turn, axis=1)
    return interest * 40 + rng.integers(0, 40, turn.shape), interest % 6


def unions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Items and categories, (USERS, BEHAVIORS) each."""
    theme = rng.integers(0, 8, (USERS, 1))
    first = rng.integers(0, 8, (USERS, BEHAVIORS // 2))
    codes = np.stack([first, (theme - first) % 8], axis=2).reshape(USERS, BEHAVIORS)
    items = codes * 100 + rng.integers(0, 100, codes.shape)
    return items, items % 5


def attribute(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Items and brands, (USERS, BEHAVIORS) each."""
    brands = rng.integers(0, 200, (USERS, 3))
    brand = np.take_along_axis(brands, rng.integers(0, 3, (USERS, BEHAVIORS)), axis=1)
    return brand * 100 + rng.integers(0, 100, brand.shape), brand


LOGS: dict[str, Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
    "interleaved": interleaved,
    "unions": unions,
    "attribute": attribute,
}


def parameters(name: str, folder: Path) -> dict[str, Any]:
    """Write a log and its splits; return the parameters of PNN_MISS for it."""
    items, categories = LOGS[name](np.random.default_rng(15068))
    user, time = np.indices(items.shape)
    columns = {"user": user, "item": items, "cate_id": categories, "time": 1_700_000_000 + time}
    folder.mkdir(parents=True)
    log = pl.DataFrame({key: values.ravel() for key, values in columns.items()})
    log.write_csv(folder / "log.csv")
    command = (
        "-m fuxictr_miss preprocess interactions --user user --item item --time time --k-core 1"
    )
    places = ["--input", str(folder / "log.csv"), "--output", str(folder / "splits")]
    options = [*command.split(), "--attributes", "cate_id", *places]
    subprocess.run([sys.executable, *options], check=True, stdout=subprocess.DEVNULL)
    files = {f"{each}_data": str(folder / "splits" / f"{each}.parquet") for each in
             ("train", "valid", "test")}  # fmt: skip
    files["vocab_data"] = str(folder / "splits" / "items.parquet")
    own = {"dataset_id": name, "data_root": str(folder / "encoded"), **files}
    return {**load_config("config", "PNN_MISS_amazonbeauty").params, **own}
