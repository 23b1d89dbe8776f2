"""What a pretraining learns from: the histories of each user, or the training rows as they are."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from fuxictr_miss.methods.draws import uniform


class Histories:
    """The longest histories of each training user, all behaviors side by side.

    The rows of a user hold prefixes of one sequence, of which the longest contains all others. Of a
    sequence beyond `max_len` there are several, each with the newest behaviors of its time. Without
    a column of the user, and for users out of the vocabulary, a distinct history counts as a user.

    Args:
        train: the training loader, a `TensorDataLoader`.
        behaviors: the sequences of each behavior.
        user: the column of the user, or None.
        unknown: the id of users out of the vocabulary.
        of_a_pair: how many behaviors a history needs to have a pair.
    """

    def __init__(
        self,
        train: Any,
        behaviors: list[list[str]],
        user: str | None,
        unknown: int = -1,
        of_a_pair: int = 2,
    ) -> None:
        self.behaviors, self.user = behaviors, user
        names = [name for group in behaviors for name in group]
        columns = [train.column(name).cpu() for name in names]
        ends = list(itertools.accumulate(column.shape[1] for column in columns))
        slices = (slice(e - c.shape[1], e) for c, e in zip(columns, ends, strict=True))
        self.slices = dict(zip(names, slices, strict=True))
        length = _ids(columns)
        users = torch.full((len(length),), unknown)
        if user is not None:
            users = train.column(user).cpu().long()
        different, place = users.unique(return_inverse=True)  # ids of a meta column may be large
        kept = (length > 0) & (_is_longest(length, place) | (users == unknown))
        owned = [place[kept, None].int(), *(c[kept] for c in columns)]  # int64: twice the memory
        distinct = torch.cat(owned, dim=1).unique(dim=0)  # (rows, 1 + ΣL), sorted by user
        self.ids, self.rows = different[distinct[:, 0].long()], distinct[:, 1:]
        new = self.ids.diff(prepend=self.ids[:1] - 1) != 0
        self.first = (new | (self.ids == unknown)).nonzero().squeeze(1)  # (users,) row of each user
        self.count = self.first.diff(append=torch.tensor([len(self.ids)]))  # (users,) their rows
        self.pairs = self._pairs(of_a_pair)  # (users,)

    unit, needs = "users", "users with a history"  # in messages

    def __len__(self) -> int:
        """Users."""
        return len(self.first)

    def _pairs(self, enough: int) -> Tensor:
        """(users,) behaviors with which a pair ends: all but the first, if it takes two.

        In proportion to the pairs, if a pair counts 1 / length. A behavior counts if it has a value
        in all of its sequences.
        """
        rows, pairs = self.rows[self.first], torch.zeros_like(self.count)
        for group in self.behaviors:
            whole = torch.stack([rows[:, self.slices[name]] != 0 for name in group]).all(dim=0)
            behaviors = whole.sum(dim=1) + self.count - 1  # a row more is a behavior more
            pairs += (behaviors + 1 - enough).clamp(min=0)
        return pairs

    def column(self, name: str) -> Tensor:
        """(rows, L) ids of a sequence."""
        return self.rows[:, self.slices[name]]

    def batch(self, users: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The columns of one row of each user, each trimmed to where its behavior has ids."""
        row = self.first[users] + uniform(self.count[users], generator)
        rows, batch = self.rows[row], {}
        for group in self.behaviors:
            columns = [rows[:, self.slices[name]] for name in group]
            used = torch.stack([(ids != 0).any(dim=0) for ids in columns]).any(dim=0).nonzero()
            first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
            batch.update({n: ids[:, first:last] for n, ids in zip(group, columns, strict=True)})
        if self.user is not None:
            batch[self.user] = self.ids[row]
        return batch


def newest_rows(train: Any, behaviors: list[list[str]], user: str, unknown: int = -1) -> Tensor:
    """The rows with the longest history of their user: what they ask for is in no history yet.

    A pretraining has seen the targets of all older rows, in the histories of newer ones. Of
    histories beyond `max_len`, all that are cut count as the longest, and of users out of the
    vocabulary all rows.

    Args:
        train: the training loader, a `TensorDataLoader`.
        behaviors: the sequences of each behavior.
        user: the column of the user.
        unknown: the id of users out of the vocabulary.

    Returns:
        (rows,) places among the loader's rows, in their order.
    """
    length = _ids([train.column(name).cpu() for group in behaviors for name in group])
    users = train.column(user).cpu()
    _, place = users.unique(return_inverse=True)
    newest = _is_longest(length, place) | (users == unknown)
    return (newest & (length > 0)).nonzero().squeeze(1)


def _ids(columns: list[Tensor]) -> Tensor:
    """(rows,) the ids in all sequences of a row."""
    return torch.stack([(column != 0).sum(dim=1) for column in columns]).sum(dim=0)


def _is_longest(length: Tensor, place: Tensor) -> Tensor:
    """(rows,) whether no row of the same user, who is number `place`, is longer."""
    longest = length.new_zeros(int(place.max()) + 1).scatter_reduce(0, place, length, "amax")
    return length == longest[place]


class Rows:
    """The training rows, each a "user" of its own: for a method that needs no history.

    Args:
        train: the training loader, a `TensorDataLoader`.
        features: their names.
    """

    unit, needs = "rows", "rows"  # in messages

    def __init__(self, train: Any, features: list[str]) -> None:
        self.columns = {name: train.column(name) for name in features}

    def __len__(self) -> int:
        """Rows."""
        return len(next(iter(self.columns.values())))

    @property
    def pairs(self) -> Tensor:
        """(rows,) ones: all rows are equally likely."""
        return torch.ones(len(self), dtype=torch.long)

    def column(self, name: str) -> Tensor:
        """(rows,) or (rows, L) ids of a feature."""
        return self.columns[name]

    def batch(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The columns of some rows."""
        return {
            name: column[rows.to(column.device, non_blocking=True)]
            for name, column in self.columns.items()
        }
