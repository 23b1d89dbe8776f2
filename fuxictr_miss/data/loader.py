"""Batches from a split whose columns are tensors."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuxictr_miss.data.columns import open_columns
from fuxictr_miss.errors import InputError

_ROWS_AT_ONCE = 65_536
_STRETCH = 4 * _ROWS_AT_ONCE  # rows within which lengths are sorted: reading stays nearly in order
_DEVICE_SHARE = 0.5  # of a device's free memory, for the columns


class _Used(NamedTuple):
    """Of each row, the first and last position at which any of some sequences has an id."""

    names: list[str]
    first: Tensor  # (rows,) L where there is none
    last: Tensor  # (rows,) -1 where there is none


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
        memory_budget_gb: above it the columns stay on disk, mapped into memory; None: half of the
            memory that is available.
        device: where batches are wanted. The columns move there if they take up at most half of
            its free memory, else batches do, one at a time. The group id stays on the CPU, where
            FuxiCTR's `evaluate` reads it.
        arrange: changes sequences in place in a dict of columns, row by row, as `Settled.pad`.

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
        memory_budget_gb: float | None = None,
        device: torch.device | str = "cpu",
        arrange: Callable[[dict[str, Tensor]], None] | None = None,
        **_: Any,
    ) -> None:
        pattern = (
            data_path if data_path.endswith(".parquet") else os.path.join(data_path, "*.parquet")
        )
        files = sorted(glob.glob(pattern))
        if not files:
            raise InputError(f"No parquet file at {data_path}. Build the data set first.")
        labels = list(feature_map.labels)
        names = [*feature_map.features, *labels]
        self.columns, mapped = open_columns(files, names, memory_budget_gb)
        self.rows: Tensor | None = None  # of the columns, those in this split; None: all
        if split == "train":
            total = len(self.columns[names[0]])
            self.rows = _sample(total, train_sample_rate, seed)
            noisy = _noisy(total if self.rows is None else len(self.rows), label_noise_rate, seed)
            for label in labels if len(noisy) else []:
                self.columns[label] = swapped = self.columns[label].clone()
                changed = noisy if self.rows is None else self.rows[noisy]
                swapped[changed] = 1 - swapped[changed]
        self._arrange = arrange if mapped else None  # mapped columns are arranged batch by batch
        if arrange and not mapped:
            arrange(self.columns)
        self._sequences = [
            name for name, spec in feature_map.features.items() if spec["type"] == "sequence"
        ]
        self.batch_size = batch_size
        self.shuffle = shuffle and split == "train"
        self.trim_history = trim_history and bool(self._sequences)
        self.generator = torch.Generator().manual_seed(int(seed or 0))
        self.num_blocks = len(files)
        self.num_samples = len(self.columns[names[0]] if self.rows is None else self.rows)
        self.num_batches = math.ceil(self.num_samples / batch_size)
        self.device = torch.device(device)
        self._host_columns = {getattr(feature_map, "group_id", None)}
        if self.device.type == "cuda" and not mapped:
            self._move()

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.num_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield {column: (b,) or (b, L) tensor}, b = batch_size except in the last batch."""
        order = None
        if self.shuffle:
            order = torch.randperm(self.num_samples, generator=self.generator)
        return self.batches(order)

    def column(self, name: str) -> Tensor:
        """A column of this split's rows, in the order of the file."""
        return self.columns[name] if self.rows is None else self.columns[name][self.rows]

    def batches(
        self, order: Tensor | None = None, multiple: int = 1
    ) -> Iterator[dict[str, Tensor]]:
        """One pass over this split's rows.

        Args:
            order: a (num_samples,) permutation; None: as in the file.
            multiple: what is trimmed begins and ends at multiples of it.
        """
        if self.rows is not None:
            order = self.rows if order is None else self.rows[order]
        on_device = order if order is None else order.to(self.device)
        for start in range(0, self.num_samples, self.batch_size):
            part = slice(start, min(start + self.batch_size, self.num_samples))
            if order is None or on_device is None:
                yield self._batch(part, part, multiple)
            else:
                yield self._batch(order[part], on_device[part], multiple)

    def by_length(self) -> Tensor | None:
        """A permutation that brings histories of one length together; None: nothing is trimmed.

        A trimmed batch then costs what its rows are long, not what the longest of all is.
        """
        if not self.trim_history or not self.num_samples:
            return None
        lengths = torch.stack([used.last - used.first for used in self._used]).amax(dim=0).long()
        if self.rows is not None:
            lengths = lengths[self.rows]
        stretch = torch.arange(self.num_samples) // _STRETCH
        span = int(lengths.max() - lengths.min()) + 1
        return (stretch * span + lengths).argsort(stable=True)

    def _batch(
        self, rows: Tensor | slice, on_device: Tensor | slice, multiple: int
    ) -> dict[str, Tensor]:
        """The rows, given for columns in memory and for those on the device."""
        trimmed = self._windows(rows, multiple) if self.trim_history else {}
        batch = {}
        for name, column in self.columns.items():
            if name in trimmed and self._arrange is None:
                column = column[:, trimmed[name]]
            chosen = rows if column.device.type == "cpu" else on_device
            batch[name] = (
                column[chosen] if isinstance(chosen, slice) else column.index_select(0, chosen)
            )
        if self._arrange is not None:
            self._arrange(batch)
            for name, window in trimmed.items():
                batch[name] = batch[name][:, window]
        if self.device.type == "cuda":
            for name, value in batch.items():
                if value.device.type == "cpu" and name not in self._host_columns:
                    batch[name] = value.pin_memory().to(self.device, non_blocking=True)
        return batch

    def _windows(self, rows: Tensor | slice, multiple: int) -> dict[str, slice]:
        """Per sequence, the positions that are not padding in every row of a batch."""
        windows = {}
        for used in self._used:
            first, last = int(used.first[rows].min()), int(used.last[rows].max())
            # an empty batch keeps one padded position: attention over none has no shape
            first, stop = (first, last + 1) if last >= 0 else (0, 1)
            window = slice(first - first % multiple, stop + -stop % multiple)
            windows.update(dict.fromkeys(used.names, window))
        return windows

    @cached_property
    def _used(self) -> list[_Used]:
        """One entry for the sequences of each length; on the CPU, so no batch asks the device."""
        by_length: dict[int, list[str]] = {}
        for name in self._sequences:
            by_length.setdefault(self.columns[name].shape[1], []).append(name)
        total = len(self.columns[self._sequences[0]])
        parts: dict[int, list[tuple[Tensor, Tensor]]] = {length: [] for length in by_length}
        for start in range(0, total, _ROWS_AT_ONCE):
            stretch = {n: self.columns[n][start : start + _ROWS_AT_ONCE] for n in self._sequences}
            if self._arrange is not None:
                self._arrange(stretch)
            for length, names in by_length.items():
                parts[length].append(_ends([stretch[name] for name in names]))
        return [
            _Used(by_length[length], *(torch.cat(ends).cpu() for ends in zip(*each, strict=True)))
            for length, each in parts.items()
            if each
        ]

    def _move(self) -> None:
        """Put the columns on the device, if there is room."""
        moved = {n: c for n, c in self.columns.items() if n not in self._host_columns}
        size = sum(column.numel() * column.element_size() for column in moved.values())
        if size <= _DEVICE_SHARE * torch.cuda.mem_get_info(self.device)[0]:
            self.columns.update({name: c.to(self.device) for name, c in moved.items()})


def _ends(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    """First and last position used in (rows, L) sequences: (rows,) each."""
    used = torch.stack([ids != 0 for ids in sequences]).any(dim=0)
    length, empty = used.shape[1], ~used.any(dim=1)
    first = used.to(torch.uint8).argmax(dim=1)
    last = length - 1 - used.flip(1).to(torch.uint8).argmax(dim=1)
    return first.masked_fill(empty, length).int(), last.masked_fill(empty, -1).int()


def _sample(total: int, rate: float, seed: int | None) -> Tensor | None:
    """A random share of the rows, in their order; None: all of them."""
    if not 0 < rate <= 1:
        raise InputError(f"train_sample_rate must be above 0 and at most 1, got {rate}.")
    return None if rate == 1 else _some_rows(total, rate, seed, stream=1).sort().values


def _noisy(total: int, rate: float, seed: int | None) -> Tensor:
    """A random share of the rows, whose labels are to be swapped."""
    if not 0 <= rate < 1:
        raise InputError(f"label_noise_rate must be at least 0 and below 1, got {rate}.")
    return _some_rows(total, rate, seed, stream=2)


def _some_rows(total: int, rate: float, seed: int | None, stream: int) -> Tensor:
    """Random rows from a stream of their own: not those that the shuffling puts first."""
    generator = torch.Generator().manual_seed(int(seed or 0) + stream * 1_000_003)
    return torch.randperm(total, generator=generator)[: round(rate * total)]
