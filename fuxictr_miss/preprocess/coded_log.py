"""An interaction log in codes, and its k-core: in memory, or spilled to disk in shards of users.

Ids become codes while the log is read, so that an interaction takes 16 bytes and not the text of
its ids. What is in memory beside that are the distinct ids, as it must be for an embedding table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from tqdm import tqdm

from fuxictr_miss.errors import InputError

UNKNOWN = "unknown"  # the value of an attribute that an item lacks
INTERACTS = "(interacts)"  # a column that no log has


class Core(NamedTuple):
    """Who is in the k-core, and how often."""

    users: np.ndarray  # codes, ascending: order of first appearance in the log
    items: np.ndarray  # likewise
    user_counts: np.ndarray  # interactions of each of `users`
    item_counts: np.ndarray  # likewise
    short_users: int  # left out as too short, though they had `k` interactions


class CodedLog:
    """Interactions, read block by block.

    Args:
        attributes: columns that say something about the item.
        shards: parts that the users are dealt out to, each with all of its users' interactions.
        folder: where the shards are kept as raw arrays; None keeps them in memory.
    """

    def __init__(
        self, attributes: Sequence[str] = (), shards: int = 1, folder: Path | None = None
    ) -> None:
        self.users = Codes()
        self.items = Codes()
        self._item_values = _ItemValues(attributes) if attributes else None
        self.rows = 0
        self.interactions = 0
        self._shards = [
            (
                _Columns(folder and folder / f"interactions-{number}"),
                _Columns(folder and folder / f"touched-{number}"),
            )
            for number in range(shards)
        ]

    def add(self, block: pl.DataFrame) -> None:
        """Append a block of the log.

        Args:
            block: `user_id`, `item_id` (any type, no nulls), `time` (a number, no nulls; integers
                may become decimals in a later block) and the attributes. An attribute belongs to
                the item: the value at its newest time in the log holds for all of its interactions
                (a later line wins a tie), so that no value tells a positive from a negative. A null
                is `UNKNOWN`. A column `INTERACTS` is False where the user touched the item without
                an interaction, such as a rating too low to count: never a negative, and nothing
                else.
        """
        user, item = self.users.encode(block["user_id"]), self.items.encode(block["item_id"])
        when = block["time"].to_numpy()
        if self._item_values:
            self._item_values.update(item, len(self.items), when, block)
        counts = np.ones(len(user), bool)
        if INTERACTS in block:
            counts = block[INTERACTS].to_numpy()
        self.rows += len(user)
        self.interactions += int(counts.sum())
        for number, (interactions, touched) in enumerate(self._shards):
            mine = user % len(self._shards) == number
            rows = mine & counts
            interactions.append(user=user[rows], item=item[rows], time=when[rows])
            if INTERACTS in block:
                rows = mine & ~counts
                touched.append(user=user[rows], item=item[rows])

    def refuse_values_in_two_forms(self) -> None:
        """Refuse a log that writes one number as 4 and as 4.0, which text would make two ids.

        Raises:
            InputError: says which.
        """
        values = self._item_values.texts if self._item_values else {}
        for name, codes in {"user": self.users, "item": self.items, **values}.items():
            names = codes.names(np.arange(len(codes)))
            decimals = names.filter(names.str.contains(r"^-?[0-9]+\.0+$"))
            twice = decimals.filter(decimals.str.replace(r"\.0+$", "").is_in(names.implode()))
            if len(twice):
                raise InputError(
                    f"The log has {len(twice):,} values of {name} in two forms, such as "
                    f"{twice[0]!r} and {twice[0].split('.')[0]!r}. Write them alike in all files."
                )

    def keep_core(self, k: int, shortest: int) -> Core:
        """Remove users and items with fewer than `k` interactions until none is left (VI.A).

        Users with fewer than `shortest` go as well; where `k` is less, they count as `short_users`.
        Interactions are rows of the log: a repeated one counts again.
        """
        with tqdm(desc=f"{k}-core", unit=" rounds", mininterval=0.5) as bar:
            self._keep(k, k, bar)
            of_user, _ = self._counts()
            short_users = int(np.count_nonzero((of_user > 0) & (of_user < shortest)))
            if short_users:
                self._keep(shortest, k, bar)
        of_user, of_item = self._counts()
        users, items = np.flatnonzero(of_user), np.flatnonzero(of_item)
        return Core(users, items, of_user[users], of_item[items], short_users)

    def item_table(self, items: np.ndarray) -> pl.DataFrame:
        """`item_id` and the attributes of items, given by their codes."""
        values = self._item_values.of(items) if self._item_values else []
        return pl.DataFrame([self.items.names(items).alias("item_id"), *values])

    def shards(self) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Yield each shard's interactions (`user`, `item`, `time`) and touched pairs, as codes."""
        for interactions, touched in self._shards:
            yield interactions.read(), touched.read()

    def _counts(self) -> tuple[np.ndarray, np.ndarray]:
        of_user = np.zeros(len(self.users), np.int64)
        of_item = np.zeros(len(self.items), np.int64)
        for interactions, _ in self._shards:
            rows = interactions.read()
            if rows:
                of_user += np.bincount(rows["user"], minlength=len(of_user))
                of_item += np.bincount(rows["item"], minlength=len(of_item))
        return of_user, of_item

    def _keep(self, of_user: int, of_item: int, bar: tqdm) -> None:
        changed = True
        while changed:
            user_counts, item_counts = self._counts()
            changed = False
            for interactions, _ in self._shards:
                rows = interactions.read()
                if not rows:
                    continue
                stays = (user_counts >= of_user)[rows["user"]]
                stays &= (item_counts >= of_item)[rows["item"]]
                if not stays.all():
                    interactions.keep(stays)
                    changed = True
            bar.update()
            bar.set_postfix_str(f"{int(user_counts.sum()):,} interactions")


class Codes:
    """Codes 0, 1, .. for ids, in order of first appearance: what polars numbers categories by."""

    def __init__(self) -> None:
        self._type = pl.Categorical(pl.Categories.random())
        self._alive = pl.Series(dtype=self._type)  # polars forgets categories that no series has
        self._names = [pl.Series(dtype=pl.String)]
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def encode(self, ids: pl.Series) -> np.ndarray:
        names = ids.cast(pl.String)
        codes = names.cast(self._type).to_physical().rechunk().to_numpy().astype(np.int32)
        upto = np.maximum.accumulate(codes)
        first = np.flatnonzero(np.diff(upto, prepend=self._length - 1) > 0)
        first = first[codes[first] >= self._length]
        if not np.array_equal(codes[first], np.arange(len(first)) + self._length):
            raise RuntimeError("this version of polars does not number categories as they appear")
        self._names.append(names.gather(first))
        self._length += len(first)
        return codes

    def names(self, codes: np.ndarray) -> pl.Series:
        self._names = [pl.concat(self._names, rechunk=True)]
        return self._names[0].gather(codes)


class _ItemValues:
    """What the newest line about each item says of its attributes."""

    def __init__(self, attributes: Sequence[str]) -> None:
        self.texts = {name: Codes() for name in attributes}
        self._value_of = {name: np.empty(0, np.int32) for name in attributes}  # of each item
        self._time_of = np.empty(0)

    def update(self, item: np.ndarray, n_items: int, when: np.ndarray, block: pl.DataFrame) -> None:
        oldest = np.iinfo(np.int64).min if when.dtype.kind == "i" else -np.inf
        self._time_of = _grown(self._time_of.astype(when.dtype, copy=False), n_items, oldest)
        np.maximum.at(self._time_of, item, when)
        newest = np.flatnonzero(when == self._time_of[item])
        line = np.full(n_items, -1)
        np.maximum.at(line, item[newest], newest)  # of equal times the later line
        items = np.flatnonzero(line >= 0)
        for name, codes in self.texts.items():
            text = block[name].gather(line[items]).cast(pl.String)
            self._value_of[name] = _grown(self._value_of[name], n_items, 0)
            self._value_of[name][items] = codes.encode(text.replace("", None).fill_null(UNKNOWN))

    def of(self, items: np.ndarray) -> list[pl.Series]:
        return [
            codes.names(self._value_of[name][items]).alias(name)
            for name, codes in self.texts.items()
        ]


def _grown(array: np.ndarray, length: int, value: float) -> np.ndarray:
    return np.append(array, np.full(length - len(array), value, array.dtype))


class _Columns:
    """Columns of one length that grow: arrays in memory, or raw arrays in the files of a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._pieces: dict[str, list[np.ndarray]] = {}
        self._types: dict[str, np.dtype] = {}

    def append(self, **columns: np.ndarray) -> None:
        for name, column in columns.items():
            before = self._types.setdefault(name, column.dtype)
            self._types[name] = column.dtype
            if self._folder is None:  # pieces of two types become one type when they are read
                self._pieces.setdefault(name, []).append(column)
            else:
                self._folder.mkdir(parents=True, exist_ok=True)
                if before != column.dtype:
                    path = self._folder / name
                    np.fromfile(path, before).astype(column.dtype).tofile(path)
                with (self._folder / name).open("ab") as file:
                    file.write(column.tobytes())

    def read(self) -> dict[str, np.ndarray]:
        """All columns; none at all if nothing was ever appended."""
        if self._folder is not None:
            return {
                name: np.fromfile(self._folder / name, dtype) for name, dtype in self._types.items()
            }
        for pieces in self._pieces.values():
            if len(pieces) > 1:
                pieces[:] = [np.concatenate(pieces)]
        return {name: pieces[0] for name, pieces in self._pieces.items()}

    def keep(self, rows: np.ndarray) -> None:
        for name, column in self.read().items():
            if self._folder is None:
                self._pieces[name] = [column[rows]]
            else:
                column[rows].tofile(self._folder / name)
