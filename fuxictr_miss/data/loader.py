"""Batches from the columns of a split."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fuxictr_miss.config import Config
from fuxictr_miss.data.column_files import column_files
from fuxictr_miss.data.tensors import open_columns
from fuxictr_miss.distributed.processes import Share
from fuxictr_miss.errors import InputError

_ROWS_AT_ONCE = 65_536
_SORTED_AT_ONCE = 4 * _ROWS_AT_ONCE  # rows sorted by length: a mapped file is read nearly in order
_DEVICE_SHARE = 0.5  # of a device's free memory, for the columns


class TensorDataLoader:
    """Cuts batches out of tensors; takes the place of FuxiCTR's `ParquetDataLoader`.

    Pass it as `data_loader` to FuxiCTR's `RankDataLoader`, or build it directly. It counts the
    same batches as FuxiCTR's loader and yields the same columns.

    Args:
        feature_map: FuxiCTR's FeatureMap; its features and labels are the columns read.
        data_path: a parquet, npz or h5 file, or a folder of them, as `build_dataset` or FuxiCTR
            wrote it.
        split: "train", "valid" or "test"; only "train" shuffles.
        batch_size: rows a batch; the last one may be smaller.
        shuffle: a new order each epoch, from `seed` alone.
        seed: of this loader's own generator.
        trim_history: cut each batch's sequences to the longest history in it. Only for models
            that do not read fixed positions.
        train_sample_rate: share of the training rows to keep (Table IX); other splits stay whole.
        label_noise_rate: share of the training rows whose labels are swapped (Table X).
        memory_budget_gb: a larger split stays on disk, mapped into memory; None: half of the
            memory that is available.
        device: where batches are wanted. The columns move there if they take up at most half of
            its free memory, else batches do, one at a time. The group id stays on the CPU, where
            FuxiCTR's `evaluate` reads it.
        mapped_file: where a larger split is kept on disk; None: beside its file.
        arrange: replaces sequences in a dict of columns, row by row, as `Adapted.pad`.

    Raises:
        InputError: no file there, a column of the feature map is missing in it, or an option is
            outside its range.

    Example:
        >>> from fuxictr.features import FeatureMap
        >>> from fuxictr_miss.config import load_config
        >>> from fuxictr_miss.data import TensorDataLoader, build_dataset
        >>> params = load_config("config", "DIN_demo").params
        >>> train, valid, test = build_dataset(params)
        >>> feature_map = FeatureMap("demo", "data/encoded/demo")
        >>> feature_map.load("data/encoded/demo/feature_map.json", params)
        >>> batch = next(iter(TensorDataLoader(feature_map, train, batch_size=128)))
        >>> batch["item_id"].shape, batch["item_history"].shape  # (B,), (B, L)
        (torch.Size([128]), torch.Size([128, 50]))
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
        memory_budget_gb: float | None = None,
        device: torch.device | str = "cpu",
        arrange: Callable[[dict[str, Tensor]], None] | None = None,
        mapped_file: str | None = None,
        **_: Any,
    ) -> None:
        seed = seed or 0
        Config.of({
            "batch_size": batch_size, "seed": seed, "memory_budget_gb": memory_budget_gb,
            "train_sample_rate": train_sample_rate, "label_noise_rate": label_noise_rate,
        })  # fmt: skip
        files = column_files(data_path)
        if not files:
            raise InputError(f"No file of encoded data at {data_path}. Build the data set first.")
        names = [*feature_map.features, *feature_map.labels]
        self.columns, mapped = open_columns(files, names, memory_budget_gb, mapped_file)
        self._sequences: dict[int, list[str]] = {}  # by their length, L
        for name, spec in feature_map.features.items():
            if spec["type"] == "sequence":
                self._sequences.setdefault(self.columns[name].shape[1], []).append(name)
        self._arrange = arrange if mapped else None  # mapped columns are arranged batch by batch
        if arrange and not mapped:
            arrange(self.columns)
        total = len(self.columns[names[0]])
        self.rows: Tensor | None = None  # of the columns, those in this split; None: all
        if split == "train" and train_sample_rate < 1:
            self.rows = _some_rows(total, train_sample_rate, seed, stream=1).sort().values
            if not len(self.rows):
                raise InputError(
                    f"train_sample_rate {train_sample_rate} leaves none of the {total} rows of "
                    f"{data_path}."
                )
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle and split == "train"
        self.trim_history = trim_history and bool(self._sequences)
        self.generator = torch.Generator().manual_seed(seed)
        self.num_blocks = len(files)
        self.num_samples = total if self.rows is None else len(self.rows)
        self.num_batches = math.ceil(self.num_samples / batch_size)
        if split == "train" and label_noise_rate:
            self._swap_labels(feature_map.labels, label_noise_rate, seed)
        self.device = torch.device(device)
        self._on_cpu = feature_map.group_id  # a column
        if self.device.type == "cuda" and not mapped:
            self._move_columns()

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.num_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield {column: (b,) or (b, L)}; b = batch_size but for the last batch."""
        return self.batches(self._order())

    def shares(
        self, share_of: Callable[[int], Share | None]
    ) -> Iterator[tuple[dict[str, Tensor], Share | None]]:
        """Yield this process's rows of each batch, and which they are; None: all.

        Args:
            share_of: its share of a batch of so many rows.
        """
        for rows in self._rows(self._order()):
            share = share_of(len(rows))
            batch = self._batch(rows if share is None else rows[share.own])
            if self.trim_history:
                self._trim(batch, rows, 1)
            yield batch, share

    def _order(self) -> Tensor | None:
        """The order of a pass: a new one each time, if this split is shuffled."""
        if not self.shuffle:
            return None
        return torch.randperm(self.num_samples, generator=self.generator)

    def batches(
        self,
        order: Tensor | None = None,
        multiple: int = 1,
        chosen: slice = slice(None),
    ) -> Iterator[dict[str, Tensor]]:
        """One pass over this split's rows.

        Args:
            order: a (num_samples,) permutation; None: as in the file.
            multiple: trimmed sequences begin and end at multiples of it.
            chosen: which of the batches; all others are left out.
        """
        for rows in self._rows(order)[chosen]:
            batch = self._batch(rows)
            if self.trim_history:
                self._trim(batch, rows, multiple)
            yield batch

    def _rows(self, order: Tensor | None) -> tuple[Tensor, ...]:
        """The rows of each batch."""
        order = torch.arange(self.num_samples) if order is None else order
        order = order if self.rows is None else self.rows[order]
        return order.split(self.batch_size)

    def column(self, name: str) -> Tensor:
        """A column of this split's rows, in the order of the file."""
        values = self.columns[name]
        if self._arrange:
            values = torch.cat([stretch[name] for stretch in self._stretches()])
        return values if self.rows is None else values[self.rows]

    def of_rows(self, rows: Tensor) -> TensorDataLoader:
        """A loader of some of this split's rows; both draw their orders from one generator.

        Args:
            rows: places among this split's rows, at least one.
        """
        part = copy.copy(self)
        part.rows = rows if self.rows is None else self.rows[rows]
        part.num_samples = len(rows)
        part.num_batches = math.ceil(len(rows) / self.batch_size)
        return part

    def by_length(self) -> Tensor | None:
        """A permutation that brings histories of one length together; None: nothing is trimmed.

        A trimmed batch then costs what its rows are long, not what the longest of all is.
        """
        if not self.trim_history:
            return None
        used = [length - padding.sum(dim=0) for length, padding in self._padding.items()]
        lengths = torch.stack(used).amax(dim=0)
        lengths = lengths if self.rows is None else lengths[self.rows]
        stretch = torch.arange(self.num_samples) // _SORTED_AT_ONCE
        return (stretch * (int(lengths.max()) + 1) + lengths).argsort(stable=True)

    def _batch(self, rows: Tensor) -> dict[str, Tensor]:
        """The columns of chosen rows, on the device."""
        batch = {
            name: column.index_select(0, rows.to(column.device, non_blocking=True))
            for name, column in self.columns.items()
        }
        if self._arrange:
            self._arrange(batch)
        return {n: c if n == self._on_cpu else on_device(c, self.device) for n, c in batch.items()}

    def _trim(self, batch: dict[str, Tensor], rows: Tensor, multiple: int) -> None:
        """Cut sequences of one length to the positions at which any of them has an id."""
        for length, padding in self._padding.items():
            before, behind = padding[:, rows].amin(dim=1).tolist()
            # rows without any history keep one position: attention over none has no shape
            start, stop = (before, length - behind) if before < length else (0, 1)
            window = slice(start - start % multiple, min(length, stop + -stop % multiple))
            for name in self._sequences[length]:
                batch[name] = batch[name][:, window]

    @cached_property
    def _padding(self) -> dict[int, Tensor]:
        """{L: (2, rows)}, how many positions before and behind each history are padding.

        They are on the CPU: to read them there does not synchronise the GPU.
        """
        parts: dict[int, list[Tensor]] = {length: [] for length in self._sequences}
        for stretch in self._stretches():
            for length, names in self._sequences.items():
                parts[length].append(_count_padding([stretch[name] for name in names]).cpu())
        return {length: torch.cat(each, dim=1) for length, each in parts.items()}

    def _stretches(self) -> Iterator[dict[str, Tensor]]:
        """The columns of all rows as batches have them, some rows at a time."""
        parts = [column.split(_ROWS_AT_ONCE) for column in self.columns.values()]
        for values in zip(*parts, strict=True):
            stretch = dict(zip(self.columns, values, strict=True))
            if self._arrange:
                self._arrange(stretch)
            yield stretch

    def _swap_labels(self, labels: list[str], rate: float, seed: int) -> None:
        """Swap the labels of a random share of this split's rows."""
        rows = _some_rows(self.num_samples, rate, seed, stream=2)
        rows = rows if self.rows is None else self.rows[rows]
        for label in labels:
            values = self.columns[label]
            self.columns[label] = values.index_copy(0, rows, 1 - values[rows])

    def _move_columns(self) -> None:
        """Move the columns to the device if there is room."""
        size = sum(column.nbytes for column in self.columns.values())
        if size <= _DEVICE_SHARE * torch.cuda.mem_get_info(self.device)[0]:
            for name in self.columns.keys() - {self._on_cpu}:
                self.columns[name] = self.columns[name].to(self.device)


def on_device(column: Tensor, device: torch.device) -> Tensor:
    """A column of a batch on the model's device, without waiting for a GPU."""
    if device.type != "cuda" or column.is_cuda:
        return column
    return column.pin_memory().to(device, non_blocking=True)


def _count_padding(sequences: list[Tensor]) -> Tensor:
    """Positions that are 0 in all (rows, L) sequences: (2, rows) before and behind the history.

    Of an empty history it is L, twice.
    """
    used = torch.stack([ids != 0 for ids in sequences]).any(dim=0)
    bits = used.to(torch.uint8)
    counts = torch.stack([bits.argmax(dim=1), bits.flip(1).argmax(dim=1)])
    return counts.masked_fill(~used.any(dim=1), used.shape[1]).int()


def _some_rows(total: int, rate: float, seed: int, stream: int) -> Tensor:
    """Random rows from a stream of their own: not those that the shuffling puts first."""
    generator = torch.Generator().manual_seed(seed + stream * 1_000_003)
    return torch.randperm(total, generator=generator)[: round(rate * total)]
