"""The Transformer over a history that S3Rec, CL4SRec, NextItem, DuoRec and ICSRec share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.config.values import Count, Rate
from fuxictr_miss.distributed import processes
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.draws import drop

_PARTS = 4  # of a batch that a Transformer reads one by one


class TransformerBlock(nn.Module):
    """Multi-head attention and a feed-forward part of 4 × width, each as h ← LN(h + f(h)).

    Args:
        width: of a state; `heads` divides it.
        heads: of the attention.
        dropout: rate for attention weights and for the output of both parts, in training only.
        generator: source of the dropout's random draws.
    """

    def __init__(self, width: int, heads: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.heads, self.dropout, self.generator = heads, dropout, generator
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.feed_forward_norm = nn.LayerNorm(width)

    def forward(self, h: Tensor, context: Tensor, allowed: Tensor | None = None) -> Tensor:
        """One block.

        Args:
            h: (B, R, width) states to update.
            context: (B, S, width) states that they attend to; `h` itself for self-attention.
            allowed: booleans that broadcast to (B, R, S): whether a state may attend to one of
                `context`. Each state needs at least one. None allows all.

        Returns:
            (B, R, width).
        """
        q = self._split(self.query(h))
        k, v = self._split(self.key(context)), self._split(self.value(context))
        scores = q @ k.mT / math.sqrt(q.shape[-1])  # (B, heads, R, S)
        if allowed is not None:
            scores = scores.masked_fill(~allowed.unsqueeze(1), -torch.inf)
        attended = self._drop(scores.softmax(dim=-1)) @ v
        attended = self.out(attended.transpose(1, 2).flatten(2))
        h = self.attention_norm(h + self._drop(attended))
        return self.feed_forward_norm(h + self._drop(self.feed_forward(h)))

    def _split(self, x: Tensor) -> Tensor:
        """(B, S, width) -> (B, heads, S, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self.dropout, self.generator) if self.training else x


@dataclasses.dataclass(frozen=True)
class TransformerSettings:
    """The keys of a method with a Transformer over the history."""

    layers: Count = 2  # of the Transformer, which is J × K wide
    heads: Count = 2
    dropout: Rate = 0.1
    max_len: Count = 50  # learned positions; older behaviors share the last one


class SequenceEncoder(nn.Module):
    """A Transformer over a history; the state of the newest behavior represents it.

    Positions are learned and counted back from the newest behavior, so that a state does not depend
    on how long a batch is padded. The published code of S3Rec and CL4SRec gets the same from
    padding on the left.

    Most places of a batch are padding, so on a CPU short histories are read by themselves: a step
    takes half the time, for histories of 6 behaviors on average and 50 at most.

    Args:
        width: of a behavior, J × K.
        settings: of the method; `heads` is a divisor of `width`, and dropout is in training only.
        causal: whether a behavior attends only to itself and older ones.
        generator: source of the dropout's random draws.

    Raises:
        InputError: `heads` does not divide `width`.
    """

    def __init__(
        self,
        width: int,
        settings: TransformerSettings,
        causal: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if width % settings.heads:
            divisors = ", ".join(str(n) for n in range(1, width + 1) if width % n == 0)
            raise InputError(
                f"{settings.heads} heads cannot share a behavior's embeddings of {width} numbers: "
                f"set the method's key ..._heads to one of {divisors}."
            )
        self.dropout, self.causal, self.generator = settings.dropout, causal, generator
        self.position = nn.Parameter(0.1 * torch.randn(settings.max_len, width))
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, settings.heads, settings.dropout, generator)
            for _ in range(settings.layers)
        )

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        """The (B, width) states of the newest behaviors.

        Args:
            x: (B, S, width) behaviors, oldest first; positions from `length` on are ignored.
            length: (B,) behaviors per row; an empty row gets an arbitrary finite state.
        """
        return self._in_parts(self._newest, x, length)

    def each(self, *batches: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """The states of several batches of B histories, in one pass.

        Args:
            batches: the arguments of `forward`.
        """
        longest = max(x.shape[1] for x, _ in batches)
        x = torch.cat([_padded(x, longest) for x, _ in batches])
        length = torch.cat([length for _, length in batches])
        return self(x, length).chunk(len(batches))

    def states(self, x: Tensor, length: Tensor) -> Tensor:
        """The (B, S, width) states of all behaviors; arbitrary and finite from `length` on.

        Args:
            x: as for `forward`.
            length: as for `forward`.
        """
        return self._in_parts(self._all, x, length)

    def _newest(self, x: Tensor, length: Tensor) -> Tensor:
        h, present, allowed = self._read(x, length)
        for block in self.blocks[:-1]:
            h = block(h, h, allowed)
        newest = (length - 1).clamp(min=0)
        last = h.take_along_dim(newest[:, None, None], dim=1)  # (B, 1, width)
        return self.blocks[-1](last, h, present).squeeze(1)

    def _all(self, x: Tensor, length: Tensor) -> Tensor:
        h, _, allowed = self._read(x, length)
        for block in self.blocks:
            h = block(h, h, allowed)
        return h

    def _in_parts(
        self, encode: Callable[[Tensor, Tensor], Tensor], x: Tensor, length: Tensor
    ) -> Tensor:
        """`encode` rows of similar length together; states beyond the longest of them are 0.

        A GPU would have to be waited for to know the lengths, and processes that share a batch must
        draw as many numbers for the dropout as each other.
        """
        if x.is_cuda or processes.share() is not None:
            return encode(x, length)
        order = length.argsort(stable=True)
        parts = []
        for rows in order.chunk(_PARTS):
            longest = max(1, int(length[rows[-1]]))
            h = encode(x[rows, :longest], length[rows])
            parts.append(h if h.dim() == 2 else _padded(h, x.shape[1]))
        return torch.cat(parts)[order.argsort()]

    def _read(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first states, and whether they may attend to a place: the newest, and each."""
        place = torch.arange(x.shape[1], device=x.device)
        newest = (length - 1).clamp(min=0)
        age = (newest[:, None] - place).clamp(0, len(self.position) - 1)
        h = self.norm(x + self.position[age])
        if self.training:
            h = drop(h, self.dropout, self.generator)
        present = (place <= newest[:, None]).unsqueeze(1)  # (B, 1, S), at least one place
        allowed = present & (place <= place[:, None]) if self.causal else present
        return h, present, allowed


def _padded(x: Tensor, length: int) -> Tensor:
    """(B, length, width) from (B, S, width)."""
    return F.pad(x, (0, 0, 0, length - x.shape[1]))


class TransformerMethod(nn.Module):
    """A method that contrasts or scores the states of a `SequenceEncoder`.

    Args:
        ssl: keys that all methods share.
        settings: keys of the method.
        num_sequences: J.
        dim: K.
        generator: source of all random draws.

    Raises:
        InputError: the heads do not divide J × K.
    """

    settings: TransformerSettings
    causal = True  # whether a behavior attends only to itself and older ones

    def __init__(
        self,
        ssl: SSLSettings,
        settings: TransformerSettings,
        num_sequences: int,
        dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.settings, self.temperature, self.generator = settings, ssl.temperature, generator
        self.width = num_sequences * dim
        self.encoder = SequenceEncoder(self.width, settings, self.causal, generator)
