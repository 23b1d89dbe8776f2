"""The behavior tensor C (Eq. 18), its mask and its look-ups.

One axis order holds from here to the loss: batch first, features last, draws in between. The
letters are mostly the paper's:

    B  rows of a batch              J  sequences, the attributes of a behavior
    L  positions of a history       K  dimensions of an embedding
    M  kernel widths (branches)     N  kernel heights; N' of them leave two rows to compare
    P  interest pairs per branch    Q  feature pairs per branch and height
    S  chosen behaviors or windows  D  dimensions of an encoded view

So C is (B, L, J, K), drawn windows are (B, M, P, 2), their views are (B, M, P, 2, J, K) and, once
encoded, (B, M, P, 2, D). Only the loss has the pairs in front, (P, B, D): it contrasts the B rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from fuxictr_miss.distributed import processes

_ROWS_AT_ONCE = 65_536
_NEWEST = 8  # behaviors that `group` reads


class Behavior:
    """The behaviors of a batch, embedded only where a method asks for them.

    A position holds a behavior if no sequence is padding there. Behaviors have the indices 0 (the
    oldest) to `length` - 1, whether the padding stands before, behind or between them. A look-up
    reads only the chosen behaviors, so a long history costs as much as a short one.

    Args:
        columns: J sequences, (B, L) token ids each; 0 is padding.
        tables: J modules that embed ids to K dimensions.
        users: (B,) integers, or None.
        watched: whether a tracker shows the similarity of the negatives.

    Example:
        >>> import torch
        >>> from fuxictr_miss.behavior import Behavior
        >>> items = torch.tensor([[4, 2, 0], [3, 0, 0]])  # two histories, of 2 and 1 behaviors
        >>> behavior = Behavior([items], [torch.nn.Embedding(5, 8)])
        >>> behavior.length
        tensor([2, 1])
        >>> behavior.tensor.shape  # (B, L, J, K)
        torch.Size([2, 3, 1, 8])
        >>> behavior.tokens(torch.tensor([[1], [1]])).tolist()  # the second behavior, padding
        [[[2]], [[0]]]
    """

    def __init__(
        self,
        columns: Sequence[Tensor],
        tables: Sequence[nn.Module],
        users: Tensor | None = None,
        watched: bool = False,
    ) -> None:
        self.columns = tuple(columns)
        self.users = users
        self.tables = tuple(tables)
        self.watched = watched

    @property
    def batch_size(self) -> int:
        """B."""
        return self.columns[0].shape[0]

    @property
    def max_len(self) -> int:
        """L."""
        return self.columns[0].shape[1]

    @cached_property
    def mask(self) -> Tensor:
        """(B, L) booleans: whether a position holds a behavior."""
        mask = self.columns[0].bool()
        for column in self.columns[1:]:
            mask &= column.bool()
        return mask

    @cached_property
    def length(self) -> Tensor:
        """(B,) number of behaviors."""
        return self.mask.view(torch.int8).sum(dim=1, dtype=torch.int32).long()

    @cached_property
    def group(self) -> Tensor:
        """(B,) integers, equal for rows of one user, whose views are no negatives of each other.

        Without `users`, those with the same behaviors count as one: a 64-bit linear hash of the
        length and the 8 newest behaviors. Histories that differ only in older ones,
        which are very rare, get the same group.
        """
        if self.users is not None:
            return self.users
        newest = self.length[:, None] - torch.arange(1, _NEWEST + 1, device=self.length.device)
        tokens = self.tokens(newest.where(newest >= 0, self.max_len))  # (B, 8, J)
        factors = multipliers(_NEWEST * len(self.columns) + 1, tokens.device)
        hashed = (tokens.transpose(1, 2).flatten(1) * factors[1:]).sum(dim=1)
        return hashed + self.length * factors[0]

    @cached_property
    def tensor(self) -> Tensor:
        """C of Eq. 18, (B, L, J, K): the behaviors, oldest first, then zeros."""
        return self.embed(self.indices)

    def of_all_processes(self) -> Behavior:
        """The behaviors of the global batch, of which this process has a share."""
        columns = [processes.gather(each, gradient=False) for each in self.columns]
        users = None if self.users is None else processes.gather(self.users, gradient=False)
        return Behavior(columns, self.tables, users)

    @property
    def indices(self) -> Tensor:
        """(B, L) the indices 0 to L - 1 in each row; those from `length` on are padding."""
        return torch.arange(self.max_len, device=self.length.device).expand(self.batch_size, -1)

    def tokens(self, behaviors: Tensor) -> Tensor:
        """Ids of chosen behaviors.

        Args:
            behaviors: (B, ...) indices, 0 or more; `length` or more gives padding.

        Returns:
            (B, ..., J) ids; 0 is padding.
        """
        chosen = behaviors.flatten(1)  # (B, S)
        exists = chosen < self.length[:, None]
        position = self._position(chosen).where(exists, 0)
        tokens = [(column.gather(1, position) * exists).long() for column in self.columns]
        return torch.stack(tokens, dim=-1).unflatten(1, behaviors.shape[1:])

    def embed(self, behaviors: Tensor) -> Tensor:
        """Embeddings of chosen behaviors.

        Args:
            behaviors: as for `tokens`.

        Returns:
            (B, ..., J, K): e_{j,l} of Eq. 18; padding is zero and sends no gradient to the table.
        """
        return self.embed_tokens(self.tokens(behaviors))

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """The same for ids (..., J) of behaviors: (..., J, K)."""
        columns = zip(self.tables, tokens.unbind(-1), strict=True)
        e = torch.stack([_looked_up(table, ids) for table, ids in columns], dim=-2)
        return e.mul_((tokens[..., 0] != 0)[..., None, None])

    def _position(self, behaviors: Tensor) -> Tensor:
        """(B, S) positions of the behaviors (B, S); arbitrary for `length` or more."""
        if self._first is not None:
            return self._first[:, None] + behaviors
        return torch.searchsorted(self.mask.cumsum(dim=1), behaviors + 1)

    @cached_property
    def _first(self) -> Tensor | None:
        """(B,) position of the oldest behavior, or None if padding stands between behaviors.

        It is None on a GPU, too: computing it would synchronise the GPU.
        """
        mask = self.mask
        if mask.is_cuda:
            return None
        changes = (mask[:, 1:] != mask[:, :-1]).view(torch.int8).sum(dim=1, dtype=torch.int32)
        if (changes > 1).any():
            return None
        return (self.max_len - self.length).where(~mask[:, 0], 0)


def in_parts(columns: Sequence[Tensor]) -> Iterator[Behavior]:
    """The behaviors of many rows, some rows at a time and without tables.

    Args:
        columns: J sequences, (rows, L) ids each.
    """
    for part in zip(*(column.split(_ROWS_AT_ONCE) for column in columns), strict=True):
        yield Behavior(part, [])


def _looked_up(table: nn.Module, ids: Tensor) -> Tensor:
    """(..., K) rows of a table.

    On a CPU the gradient of indexing takes a third of the time of `nn.Embedding`'s.
    """
    return table.weight[ids] if type(table) is nn.Embedding else table(ids)


@lru_cache(maxsize=256)
def multipliers(count: int, device: torch.device) -> Tensor:
    """(count,) random integers of 63 bits, always the same, for a linear hash of as many ids."""
    generator = torch.Generator().manual_seed(2111_15068)
    return torch.randint(-(2**62), 2**62, (count,), generator=generator).to(device)
