"""Histories that end at the same behavior: the supervised positives of DuoRec and ICSRec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior, multipliers
from fuxictr_miss.methods.draws import uniform
from fuxictr_miss.methods.transformer import TransformerMethod

MAX_HISTORIES = 2**18  # evenly spaced ones of the training split; more cost memory


class SameTarget:
    """The behaviors of the training histories by their item; each is a target of the older ones.

    A target and what is older counts once, also where several rows of a user hold both.

    Args:
        columns: the J sequences of the training split, (rows, L) ids each. The first is the item.
        device: where it is kept, that of the batches.
    """

    def __init__(self, columns: Sequence[Tensor], device: torch.device) -> None:
        step = -(-len(columns[0]) // MAX_HISTORIES)
        rows = torch.cat([column[::step].cpu() for column in columns], dim=1).unique(dim=0)
        self.columns = rows.to(device).chunk(len(columns), dim=1)  # each history once
        histories = Behavior(self.columns, [])
        tokens = histories.tokens(histories.indices)  # (rows, L, J)
        item = tokens[..., 0].clone()
        item[:, 0] = 0  # the oldest behavior has none before it
        row, place = item.nonzero(as_tuple=True)
        factors = multipliers(tokens[0].numel(), device).view_as(tokens[0])
        up_to = (tokens * factors).sum(dim=2).cumsum(dim=1)  # (rows, L) hashes of target and input
        first = _first_of_each(up_to[row, place])
        row, place = row[first], place[first]
        self.item, order = item[row, place].sort(stable=True)  # (targets,)
        self.row, self.place = row[order], place[order]

    def __len__(self) -> int:
        """Targets."""
        return len(self.item)

    def older(self, targets: Tensor, tables: Sequence[nn.Module]) -> Behavior:
        """The histories before some targets.

        Args:
            targets: (B,) numbers from 0 to `len(self)` - 1.
            tables: J modules that embed ids.
        """
        row = self.row[targets]
        histories = Behavior([column[row] for column in self.columns], tables)
        return older(histories, self.place[targets])

    def another(self, own: Behavior, item: Tensor, generator: torch.Generator) -> Behavior:
        """A random other history with the same target; the own one where there is no other.

        Args:
            own: B histories.
            item: (B,) their targets.
            generator: source of all randomness.
        """
        if not len(self):
            return own
        first = torch.searchsorted(self.item, item)
        count = torch.searchsorted(self.item, item, right=True) - first
        draw = uniform(count, generator)
        known = count > 0  # not in histories that are left out, or of no training row
        chosen = self.older((first + draw).where(known, 0), own.tables)
        again = chosen.group == own.group  # drawn itself: the next one
        chosen = self.older((first + (draw + again) % count.clamp(min=1)).where(known, 0),
                            own.tables)  # fmt: skip
        return _choose(known, chosen, own)


class SameTargetMethod(TransformerMethod):
    """A method whose pairs are states of two histories before the same target.

    A random behavior of a history is the target, those before it are one input. The other is
    another training history before that target; where there is none, the same input again.
    """

    index: SameTarget | None = None

    def prepare(self, columns: dict[str, Tensor]) -> None:
        """Index the training histories by their targets.

        Args:
            columns: the J sequences by name, (rows, L) ids each.
        """
        self.index = SameTarget(list(columns.values()), self.generator.device)

    def pairs(self, behavior: Behavior) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw a target of each history and encode both inputs.

        Returns:
            (B, JK) states of each, (B,) the targets' items, (B,) whether there is a target.
        """
        place, item, exists = draw_target(behavior, self.generator)
        own = other = older(behavior, place)
        if self.index is not None:
            other = self.index.another(own, item, self.generator)
        first, second = self.encoder.each(*((x.tensor.flatten(2), x.length) for x in (own, other)))
        return first, second, item, exists

    def __getstate__(self) -> dict[str, Any]:
        """Without the training histories, which a copy or a file does not need."""
        return {**self.__dict__, "index": None}


def draw_target(behavior: Behavior, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A random behavior of each history, with an older one before it.

    Returns:
        (B,) its index, (B,) its item, which is 0 where there is none, (B,) whether there is one.
    """
    index = 1 + uniform(behavior.length - 1, generator)
    exists = behavior.length >= 2
    item = behavior.tokens(index.unsqueeze(1))[:, 0, 0] * exists
    return index, item, exists


def older(behavior: Behavior, index: Tensor) -> Behavior:
    """The histories before the behaviors with these indices (B,)."""
    places = behavior.indices
    order = places.where(places < index.unsqueeze(1), behavior.max_len)
    return Behavior(behavior.tokens(order).unbind(-1), behavior.tables)


def _first_of_each(keys: Tensor) -> Tensor:
    """The places, in their order, at which a key (N,) occurs for the first time."""
    ordered, place = keys.sort(stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return place[new].sort().values


def _choose(condition: Tensor, first: Behavior, second: Behavior) -> Behavior:
    """Each row of the first, where the condition (B,) holds, or of the second."""
    length = max(first.max_len, second.max_len)
    columns = [
        _padded(a, length).where(condition.unsqueeze(1), _padded(b, length))
        for a, b in zip(first.columns, second.columns, strict=True)
    ]
    return Behavior(columns, first.tables)


def _padded(column: Tensor, length: int) -> Tensor:
    return nn.functional.pad(column, (0, length - column.shape[1]))
