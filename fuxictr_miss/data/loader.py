"""Batches from a split held in memory as tensors."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fuxictr_miss.errors import InputError


class TensorDataLoader:
    """Cuts batches out of tensors; takes the place of FuxiCTR's `ParquetDataLoader`.

    Pass it as `data_loader` to FuxiCTR's `RankDataLoader`, or build it directly. It counts the
    same batches as FuxiCTR's loader and yields the same columns.

    Args:
        feature_map: FuxiCTR's FeatureMap; its features and labels are the columns read.
        data_path: a parquet file, or a folder of them, as `build_dataset` or FuxiCTR wrote it.
        split: "train", "valid" or "test"; only "train" shuffles.
        batch_size: rows a batch; the last one may be smaller.
        shuffle: a new order each epoch, from `seed` alone.
        seed: of this loader's own generator.
        trim_history: cut each batch's sequences to the longest history in it. Only for models
            that do not read fixed positions.
        train_sample_rate: share of the training rows to keep (Table IX); other splits stay whole.
        label_noise_rate: share of the training rows whose labels are swapped (Table X).

    Raises:
        InputError: no file there, a column of the feature map is missing in it, or a rate is
            outside its range.
    """

    def __init__(
        self,
        feature_map: Any,
        data_path: str,
        split: str = "train",
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int | None = None,
        trim_history: bool = False,
        train_sample_rate: float = 1.0,
        label_noise_rate: float = 0.0,
        **_: Any,
    ) -> None:
        pattern = (
            data_path if data_path.endswith(".parquet") else os.path.join(data_path, "*.parquet")
        )
        files = sorted(glob.glob(pattern))
        if not files:
            raise InputError(f"No parquet file at {data_path}. Build the data set first.")
        labels = list(feature_map.labels)
        columns = [*feature_map.features, *labels]
        self.columns = {name: _read(files, name) for name in columns}
        if split == "train":
            self.columns = _sampled(self.columns, train_sample_rate, seed)
            _add_noise(self.columns, labels, label_noise_rate, seed)
        self._sequences = [
            name for name, spec in feature_map.features.items() if spec["type"] == "sequence"
        ]
        self.batch_size = batch_size
        self.shuffle = shuffle and split == "train"
        self.trim_history = trim_history and bool(self._sequences)
        self.generator = torch.Generator().manual_seed(int(seed or 0))
        self.num_blocks = len(files)
        self.num_samples = len(self.columns[columns[0]])
        self.num_batches = math.ceil(self.num_samples / batch_size)

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.num_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield {column: (b,) or (b, L) tensor}, b = batch_size except in the last batch."""
        if self.shuffle:
            order = torch.randperm(self.num_samples, generator=self.generator)
        for start in range(0, self.num_samples, self.batch_size):
            if self.shuffle:
                rows = order[start : start + self.batch_size]
                batch = {name: column[rows] for name, column in self.columns.items()}
            else:
                stop = start + self.batch_size
                batch = {name: column[start:stop] for name, column in self.columns.items()}
            yield self._trimmed(batch) if self.trim_history else batch

    def _trimmed(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch without the columns of positions that are padding in every row."""
        used = {name: (batch[name] != 0).any(dim=0).nonzero() for name in self._sequences}
        for length in {batch[name].shape[1] for name in self._sequences}:
            same = [name for name in self._sequences if batch[name].shape[1] == length]
            filled = torch.cat([used[name] for name in same])
            # an empty batch keeps one padded position: attention over none has no shape
            first, last = (int(filled.min()), int(filled.max())) if len(filled) else (0, 0)
            for name in same:
                batch[name] = batch[name][:, first : last + 1]
        return batch


def _sampled(columns: dict[str, Tensor], rate: float, seed: int | None) -> dict[str, Tensor]:
    """A random share of the rows, in their order."""
    if not 0 < rate <= 1:
        raise InputError(f"train_sample_rate must be above 0 and at most 1, got {rate}.")
    if rate == 1:
        return columns
    rows = _some_rows(columns, rate, seed, stream=1).sort().values
    return {name: column[rows] for name, column in columns.items()}


def _add_noise(
    columns: dict[str, Tensor], labels: list[str], rate: float, seed: int | None
) -> None:
    """Swap 0 and 1 in the labels of a random share of the rows."""
    if not 0 <= rate < 1:
        raise InputError(f"label_noise_rate must be at least 0 and below 1, got {rate}.")
    rows = _some_rows(columns, rate, seed, stream=2)
    for label in labels:
        columns[label][rows] = 1 - columns[label][rows]


def _some_rows(columns: dict[str, Tensor], rate: float, seed: int | None, stream: int) -> Tensor:
    """Random rows from a stream of their own: not those that the shuffling puts first."""
    generator = torch.Generator().manual_seed(int(seed or 0) + stream * 1_000_003)
    total = len(next(iter(columns.values())))
    return torch.randperm(total, generator=generator)[: round(rate * total)]


def _read(files: list[str], name: str) -> Tensor:
    """One column of all files: (rows,) or (rows, length)."""
    try:
        parts = [pq.read_table(file, columns=[name]).column(name) for file in files]
    except (KeyError, pa.ArrowInvalid) as error:
        raise InputError(f"{files[0]} has no column {name!r}; rebuild the data set.") from error
    column = pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)
    rows = len(column)
    if not pa.types.is_nested(column.type):
        return torch.from_numpy(np.array(column.to_numpy()))
    values = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    if rows and len(values) % rows:
        raise InputError(f"{files[0]}: the rows of column {name!r} differ in length.")
    return torch.from_numpy(values.reshape(rows, -1).copy())
