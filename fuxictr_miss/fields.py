"""The fields of a batch, one vector each: what a method reads that needs no history."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior


class Fields:
    """The features of a batch as vectors, embedded only where a method asks for them.

    A field is a categorical feature, a numeric one, or a history, whose vector is the mean over its
    behaviors. B rows, F fields, K dimensions.

    Args:
        columns: F columns: (B,) ids or numbers, (B, L) ids of a history; id 0 is padding.
        kinds: F types of features: "categorical", "numeric" or "sequence".
        sizes: F vocabulary sizes; 0 for a number.
        tables: F modules that embed them to K dimensions.

    Example:
        >>> import torch
        >>> from fuxictr_miss.fields import Fields
        >>> site, price = torch.tensor([3, 0]), torch.tensor([0.5, 2.0])
        >>> tables = [torch.nn.Embedding(5, 8), torch.nn.Linear(1, 8, bias=False)]
        >>> fields = Fields([site, price], ["categorical", "numeric"], [5, 0], tables)
        >>> fields.vectors.shape  # (B, F, K)
        torch.Size([2, 2, 8])
        >>> fields.ids.tolist(), fields.present.tolist()
        ([[3, 0], [0, 0]], [[True, True], [False, True]])
    """

    def __init__(
        self,
        columns: Sequence[Tensor],
        kinds: Sequence[str],
        sizes: Sequence[int],
        tables: Sequence[nn.Module],
    ) -> None:
        self.columns = tuple(columns)
        self.kinds = tuple(kinds)
        self.sizes = tuple(sizes)
        self.tables = tuple(tables)

    @cached_property
    def ids(self) -> Tensor:
        """(B, F) ids of the categorical features; 0 where there is none, and for other kinds."""
        columns = zip(self.columns, self.kinds, strict=True)
        return torch.stack(
            [c.long() if kind == "categorical" else torch.zeros(len(c), dtype=torch.long,
             device=c.device) for c, kind in columns], dim=1,
        )  # fmt: skip

    @cached_property
    def present(self) -> Tensor:
        """(B, F) booleans: a number, an id that is no padding, a history that is not empty."""
        each = zip(self.columns, self.kinds, strict=True)
        return torch.stack(
            [c.new_ones(len(c), dtype=torch.bool) if kind == "numeric"
             else c.reshape(len(c), -1).bool().any(dim=1) for c, kind in each], dim=1,
        )  # fmt: skip

    @cached_property
    def vectors(self) -> Tensor:
        """(B, F, K); zeros where a field is absent, and no gradient to the table from there."""
        each = zip(self.columns, self.kinds, self.tables, strict=True)
        vectors = torch.stack([_vector(*field) for field in each], dim=1)
        return vectors * self.present.unsqueeze(-1)

    def embed(self, field: int, ids: Tensor) -> Tensor:
        """The vectors (..., K) of other ids (...) of a categorical field."""
        return self.tables[field](ids)


def _vector(column: Tensor, kind: str, table: nn.Module) -> Tensor:
    """(B, K)"""
    if kind == "numeric":
        weight = next(table.parameters())
        return table(column.reshape(-1, 1).to(weight.dtype))
    if kind == "categorical":
        return table(column.long())
    history = Behavior([column], [table])
    count = history.length.clamp(min=1).unsqueeze(1)
    return history.tensor.squeeze(2).sum(dim=1) / count
