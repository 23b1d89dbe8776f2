"""Networks that turn a view into the vector that is contrasted, and how alike a pair of them is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.draws import drop


def mlp(width: int, sizes: list[int]) -> ThinMLP:
    """ReLU between the layers, the last one linear so that its output has all signs."""
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return ThinMLP(*layers[:-1])


class ThinMLP(nn.Sequential):
    """Layers of some ten units, computed with a view a column instead of a row.

    On a CPU that takes from a fifth to all of the time: BLAS likes the longer dimension last.
    """

    def forward(self, views: Tensor) -> Tensor:
        """(..., D) to (..., D'), the last dimension being the outermost in memory."""
        x = views.flatten(0, -2).mT  # (D, N)
        for layer in self:
            if isinstance(layer, nn.Linear):
                x = torch.addmm(layer.bias.unsqueeze(1), layer.weight, x)
            else:
                x = layer(x)
        return x.unflatten(1, views.shape[:-1]).movedim(0, -1)


class TransformerBlock(nn.Module):
    """Multi-head self-attention and a feed-forward part of 4 × width, each h ← LN(h + f(h)).

    Args:
        heads: a divisor of `width`.
        dropout: of attention weights and of both parts' outputs, in training only.
        generator: where the dropout is drawn from.
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
            h: (B, R, width) states to compute.
            context: (B, S, width) states they look at; `h` itself for self-attention.
            allowed: booleans that broadcast to (B, R, S), whether one of `h` may look at one of
                `context`, at least one each; None: all at all.

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


class SequenceEncoder(nn.Module):
    """A Transformer over a history; the newest behavior's last state stands for all of it.

    Positions are learned and counted back from the newest behavior, which is what left padding
    comes to in the published implementations of S3Rec and CL4SRec; so the width of a batch does not
    matter.

    Args:
        width: of a behavior, J × K.
        max_len: behaviors told apart by their position; older ones share the last position.
        causal: whether a behavior sees only itself and older ones.
        name: of the method, for the error.

    Raises:
        InputError: `heads` does not divide `width`.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        max_len: int,
        causal: bool,
        generator: torch.Generator,
        name: str,
    ) -> None:
        super().__init__()
        if width % heads:
            raise InputError(
                f"{name}_heads must divide the width of a behavior, the {width} numbers of its "
                f"embedding, got {heads}."
            )
        self.dropout, self.causal, self.generator = dropout, causal, generator
        self.position = nn.Parameter(0.1 * torch.randn(max_len, width))
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, dropout, generator) for _ in range(layers)
        )

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        """The (B, width) states of the newest behaviors.

        Args:
            x: (B, S, width) behaviors, oldest first; what lies past `length` is not looked at.
            length: (B,) behaviors a row; a row without any gets some finite state.
        """
        place = torch.arange(x.shape[1], device=x.device)
        newest = (length - 1).clamp(min=0)
        age = (newest[:, None] - place).clamp(0, len(self.position) - 1)
        h = self.norm(x + self.position[age])
        if self.training:
            h = drop(h, self.dropout, self.generator)
        present = (place <= newest[:, None]).unsqueeze(1)  # (B, 1, S); one place even if empty
        allowed = present & (place <= place[:, None]) if self.causal else present
        for block in self.blocks[:-1]:
            h = block(h, h, allowed)
        last = h[torch.arange(len(h), device=h.device), newest].unsqueeze(1)  # the one asked for
        return self.blocks[-1](last, h, present).squeeze(1)


def mean_similarity(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """Mean cosine similarity of the pairs (..., D) that are valid (...): the number of Fig. 5."""
    with torch.no_grad():
        dot = torch.linalg.vecdot
        lengths = (dot(first, first) * dot(second, second)).sqrt().clamp(min=1e-8)
        return (dot(first, second) / lengths * valid).sum() / valid.sum().clamp(min=1)
