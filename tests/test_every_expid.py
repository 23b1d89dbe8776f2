"""Every experiment in config/ builds, on data with its columns, and takes a training step."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.config import list_datasets, list_expids, load_config

CONFIG = "config"
DATASETS = sorted(list_datasets(CONFIG), key=len, reverse=True)  # an expid ends with its data set
EXPIDS: dict[str, list[str]] = {}
for expid in list_expids(CONFIG):
    EXPIDS.setdefault(next(d for d in DATASETS if expid.endswith(f"_{d}")), []).append(expid)


MADE_UP = ("seller_id", "product_category", "department", "manufacturer_id", "brand")


@pytest.fixture(scope="session")
def splits_with_attributes(splits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits with the columns of every data set in config/, made of the category."""
    folder = tmp_path_factory.mktemp("with_attributes")
    for name in ("train", "valid", "test"):
        frame = pl.read_parquet(splits / f"{name}.parquet")
        frame.with_columns(
            column
            for name in MADE_UP
            for column in (
                pl.col("cate_id").str.replace("c", name[0]).alias(name),
                pl.col("cate_history")
                .str.replace_all("c", name[0])
                .alias(f"{name.removesuffix('_id')}_history"),
            )
        ).write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("dataset_id", sorted(EXPIDS))
def test_every_expid_of_a_data_set_builds_and_learns(dataset_id, splits_with_attributes, tmp_path):
    for expid in EXPIDS[dataset_id]:
        params = load_config(CONFIG, expid).params
        assert params["dataset_id"] == dataset_id
        params.update(
            {f"{s}_data": f"{splits_with_attributes}/{s}.parquet" for s in ("train", "valid")}
        )
        params.update(test_data=None, vocab_data=None, batch_size=32)
        params.update(data_root=str(tmp_path / "encoded"), model_root=str(tmp_path / "checkpoints"))
        model, loaders = experiment.build(params)
        assert type(model).__name__ == params["model"], expid
        model._max_gradient_norm = params["max_gradient_norm"]
        model.train()
        assert torch.isfinite(model.train_step(next(iter(loaders["train"])))), expid
