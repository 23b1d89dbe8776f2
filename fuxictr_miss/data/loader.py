"""Batches from a split whose rows are one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuxictr_miss.data.files import files_at
from fuxictr_miss.data.rows import open_rows
from fuxictr_miss.errors import InputError

_ROWS_AT_ONCE = 65_536
_WORDS_TAKEN = 2**18  # 2 MB: of small batches, several are taken out of the rows at once
_STRETCH = 4 * _ROWS_AT_ONCE  # rows within which lengths are sorted: reading stays nearly in order
_DEVICE_SHARE = 0.5  # of a device's free memory, for the columns


class _Unused(NamedTuple):
    """How many positions before and behind the history hold no id in any of some sequences."""

    names: list[str]
    length: int  # L
    ends: Tensor  # (2, rows) int32; L on both sides of an empty history


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
        memory_budget_gb: above it the rows stay on disk, mapped into memory; None: half of the
            memory that is available.
        device: where batches are wanted. The rows move there if they take up at most half of
            its free memory, else batches do, one at a time. The group id stays on the CPU, where
            FuxiCTR's `evaluate` reads it.
        arrange: replaces sequences in a dict of columns, row by row, as `Settled.pad`.

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
        _check(batch_size, seed, memory_budget_gb)
        files = files_at(data_path, "parquet")
        if not files:
            raise InputError(f"No parquet file at {data_path}. Build the data set first.")
        labels = list(feature_map.labels)
        names = [*feature_map.features, *labels]
        self._words, self._layout, mapped = open_rows(files, names, memory_budget_gb)
        if not len(self._words):
            raise InputError(f"{data_path} holds no rows; the {split} split needs some.")
        self.columns = self._layout.columns(self._words)
        self.split = split
        self.rows: Tensor | None = None  # of the columns, those in this split; None: all
        self._apart: set[str] = set()  # columns that batches do not take out of the rows
        if split == "train":
            total = len(self._words)
            self.rows = _sample(total, train_sample_rate, seed)
            noisy = _noisy(total if self.rows is None else len(self.rows), label_noise_rate, seed)
            for label in labels if len(noisy) else []:
                self.columns[label] = swapped = self.columns[label].clone()
                changed = noisy if self.rows is None else self.rows[noisy]
                swapped[changed] = 1 - swapped[changed]
                self._apart.add(label)
        self._arrange = arrange if mapped else None  # mapped rows are arranged batch by batch
        if arrange and not mapped:
            _in_place(arrange, self.columns)
        self._sequences = [
            name for name, spec in feature_map.features.items() if spec["type"] == "sequence"
        ]
        self.batch_size = batch_size
        self.shuffle = shuffle and split == "train"
        self.trim_history = trim_history and bool(self._sequences)
        self.generator = torch.Generator().manual_seed(int(seed or 0))
        self.num_blocks = len(files)
        self.num_samples = len(self._words if self.rows is None else self.rows)
        self.num_batches = math.ceil(self.num_samples / batch_size)
        self.device = torch.device(device)
        if self.device.type == "cuda":
            self._host_columns = {feature_map.group_id} & set(names)
            self._apart |= self._host_columns
            if not mapped:
                self._move()

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.num_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield {column: (b,) or (b, L) view of rows}; b = batch_size but for the last batch."""
        order = None
        if self.shuffle:
            order = torch.randperm(self.num_samples, generator=self.generator)
        return self.batches(order)

    def column(self, name: str) -> Tensor:
        """A column of this split's rows, in the order of the file."""
        values = self.columns[name]
        if self._arrange is not None and name in self._sequences:
            values = self._arranged(name, self._arrange)
        return values if self.rows is None else values[self.rows]

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
        batches = _WORDS_TAKEN // (self._words.shape[1] * self.batch_size)
        at_once = max(1, batches) * self.batch_size
        windows = self._windows(order, multiple) if self.trim_history else repeat({})
        for start in range(0, self.num_samples, at_once):
            part = slice(start, min(start + at_once, self.num_samples))
            columns = self._take(part if order is None else order[part])
            every = zip(*(c.split(self.batch_size) for c in columns.values()), strict=True)
            for values, trimmed in zip(every, windows, strict=False):
                batch = dict(zip(columns, values, strict=True))
                for name, window in trimmed.items():
                    batch[name] = batch[name][:, window]
                yield batch

    def by_length(self) -> Tensor | None:
        """A permutation that brings histories of one length together; None: nothing is trimmed.

        A trimmed batch then costs what its rows are long, not what the longest of all is.
        """
        if not self.trim_history or not self.num_samples:
            return None
        parts = [each.length - each.ends.sum(dim=0) for each in self._unused]
        lengths = torch.stack(parts).amax(dim=0)
        if self.rows is not None:
            lengths = lengths[self.rows]
        stretch = torch.arange(self.num_samples) // _STRETCH
        span = int(lengths.max() - lengths.min()) + 1
        return (stretch * span + lengths).argsort(stable=True)

    def _arranged(self, name: str, arrange: Callable[[dict[str, Tensor]], None]) -> Tensor:
        """A sequence of mapped rows, as it is in batches."""
        parts = []
        for stretch in self._words.split(_ROWS_AT_ONCE):
            columns = self._layout.columns(stretch.clone())
            _in_place(arrange, columns)
            parts.append(columns[name].clone())
        return torch.cat(parts)

    def _take(self, chosen: Tensor | slice) -> dict[str, Tensor]:
        """The columns of chosen rows, where batches are wanted."""
        words = _chosen(self._words, chosen)
        if self._arrange is not None:
            words = words.clone() if isinstance(chosen, slice) else words
            _in_place(self._arrange, self._layout.columns(words))
        columns = self._layout.columns(self._sent(words))
        for name in self._apart:
            columns[name] = _chosen(self.columns[name], chosen)
            if self.device.type == "cuda" and name not in self._host_columns:
                columns[name] = self._sent(columns[name])
        return columns

    def _sent(self, values: Tensor) -> Tensor:
        """Values where batches are wanted."""
        if self.device.type == values.device.type:
            return values
        return values.pin_memory().to(self.device, non_blocking=True)

    def _windows(self, order: Tensor | None, multiple: int) -> Iterator[dict[str, slice]]:
        """Of each batch, the positions of each sequence that are not padding in all of its rows."""
        least = []
        for each in self._unused:
            ends = each.ends if order is None else each.ends.index_select(1, order)
            whole = len(ends[0]) // self.batch_size * self.batch_size
            parts = [ends[:, :whole].reshape(2, -1, self.batch_size).amin(dim=2)]
            if whole < len(ends[0]):
                parts.append(ends[:, whole:].amin(dim=1, keepdim=True))
            least.append(torch.cat(parts, dim=1).T.tolist())
        return map(partial(self._windows_of, multiple), zip(*least, strict=True))

    def _windows_of(self, multiple: int, ends: Iterable[list[int]]) -> dict[str, slice]:
        windows = {}
        for (names, length, _), (before, behind) in zip(self._unused, ends, strict=True):
            # an empty batch keeps one padded position: attention over none has no shape
            first, stop = (before, length - behind) if before < length else (0, 1)
            window = slice(first - first % multiple, min(length, stop + -stop % multiple))
            windows.update(dict.fromkeys(names, window))
        return windows

    @cached_property
    def _unused(self) -> list[_Unused]:
        """One entry for the sequences of each length; on the CPU, so no batch asks the device."""
        by_length: dict[int, list[str]] = {}
        for name in self._sequences:
            by_length.setdefault(self.columns[name].shape[1], []).append(name)
        parts: dict[int, list[Tensor]] = {length: [] for length in by_length}
        for words in self._words.split(_ROWS_AT_ONCE):
            if self._arrange is not None:
                words = words.clone()
                _in_place(self._arrange, self._layout.columns(words))
            stretch = self._layout.columns(words)
            for length, names in by_length.items():
                parts[length].append(_ends([stretch[name] for name in names]))
        return [
            _Unused(by_length[length], length, torch.cat(each, dim=1).cpu())
            for length, each in parts.items()
        ]

    def _move(self) -> None:
        """Put the rows on the device, if there is room."""
        size = self._words.numel() * self._words.element_size()
        if size <= _DEVICE_SHARE * torch.cuda.mem_get_info(self.device)[0]:
            apart = {name: self.columns[name] for name in self._apart}
            self._words = self._words.to(self.device)
            self.columns = {**self._layout.columns(self._words), **apart}


def _chosen(values: Tensor, chosen: Tensor | slice) -> Tensor:
    """Rows of a column or of all of them; as a view where they follow each other."""
    if isinstance(chosen, slice):
        return values[chosen]
    return values.index_select(0, chosen.to(values.device, non_blocking=True))


def _in_place(arrange: Callable[[dict[str, Tensor]], None], columns: Mapping[str, Tensor]) -> None:
    """Write what `arrange` puts in place of columns where these stand."""
    arranged = dict(columns)
    arrange(arranged)
    for name, values in arranged.items():
        if values is not columns[name]:
            columns[name].copy_(values)


def _ends(sequences: list[Tensor]) -> Tensor:
    """How many positions are unused before and behind (rows, L) sequences: (2, rows) int32."""
    used = torch.stack([ids != 0 for ids in sequences]).any(dim=0)
    length, empty = used.shape[1], ~used.any(dim=1)
    bits = used.to(torch.uint8)
    ends = torch.stack([bits.argmax(dim=1), bits.flip(1).argmax(dim=1)])
    return ends.masked_fill(empty, length).int()


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _check(batch_size: Any, seed: Any, memory_budget_gb: Any) -> None:
    if not _is_number(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of 1 or more, got {batch_size!r}.")
    if seed is not None and not (_is_number(seed, int) and 0 <= seed < 2**32):
        raise InputError(f"seed must be a whole number from 0 to 2^32 - 1, got {seed!r}.")
    budget = 0 if memory_budget_gb is None else memory_budget_gb
    if not (_is_number(budget, int, float) and budget >= 0):
        raise InputError(f"memory_budget_gb must be a number of 0 or more, got {budget!r}.")


def _sample(total: int, rate: float, seed: int | None) -> Tensor | None:
    """A random share of the rows, in their order; None: all of them."""
    if not (_is_number(rate, int, float) and 0 < rate <= 1):
        raise InputError(f"train_sample_rate must be above 0 and at most 1, got {rate!r}.")
    if rate == 1:
        return None
    rows = _some_rows(total, rate, seed, stream=1).sort().values
    if not len(rows):
        raise InputError(f"train_sample_rate {rate} leaves none of the {total} training rows.")
    return rows


def _noisy(total: int, rate: float, seed: int | None) -> Tensor:
    """A random share of the rows, whose labels are to be swapped."""
    if not (_is_number(rate, int, float) and 0 <= rate < 1):
        raise InputError(f"label_noise_rate must be at least 0 and below 1, got {rate!r}.")
    return _some_rows(total, rate, seed, stream=2)


def _some_rows(total: int, rate: float, seed: int | None, stream: int) -> Tensor:
    """Random rows from a stream of their own: not those that the shuffling puts first."""
    generator = torch.Generator().manual_seed(int(seed or 0) + stream * 1_000_003)
    return torch.randperm(total, generator=generator)[: round(rate * total)]
