"""S3-Rec: self-supervised learning for sequential recommendation (arXiv 2008.07873)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.values import Rate
from fuxictr_miss.distributed import processes
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.draws import uniform
from fuxictr_miss.methods.encoders import mean_similarity
from fuxictr_miss.methods.transformer import TransformerMethod, TransformerSettings


@dataclasses.dataclass(frozen=True)
class S3RecSettings(TransformerSettings):
    """The keys of S3Rec: `s3rec_` and the field's name; layers and heads as published."""

    dropout: Rate = 0.1  # published: 0.5 at a width of 64; a narrower one does not learn with it


@register_method("S3Rec")
class S3Rec(TransformerMethod):
    """Sequence-segment mutual information, which MISS's authors call the best of its four tasks.

    A segment of the history is masked. The masked history has to match its own segment better than
    a segment of equal length from other users. With s and c the states of one bidirectional
    Transformer for the segment and for the masked history,

        f(s, c) = σ(cᵀ W s),    L = -log σ( f(s⁺, c) - f(s⁻, c) )

    which is the paper's contrast with one negative, as its authors' code computes it. Segment
    lengths are uniform on [1, ⌊n/2⌋], and in a segment's own sequence all other places are masked.
    The negative is cut from the concatenated histories of the other users in the batch. The code
    trains on all prefixes of all histories, and its W has a bias; here a step draws one segment of
    each history. This loss does not use `ssl_temperature`.

    The method is meant for pretraining and fine-tuning: `ssl_training: pretrain` with
    `ssl_label_gradient: 1`.
    """

    Settings = S3RecSettings
    causal = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.mask_token = nn.Parameter(0.1 * torch.randn(self.width))
        self.w = nn.Linear(self.width, self.width, bias=False)
        nn.init.normal_(self.w.weight, std=0.02)  # as published: f starts where σ is steep

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw segments and negatives, encode them, and compare their scores."""
        x = behavior.tensor.flatten(2)  # (B, L, JK)
        drawn, negative = self._draw(behavior, x)
        inside = drawn.inside.unsqueeze(-1)
        context = self.mask_token.where(inside, x)
        segment = x.where(inside, self.mask_token)
        negative = negative.where(inside, self.mask_token)
        c, positive, other = self.encoder.each(
            *((sequence, behavior.length) for sequence in (context, segment, negative))
        )
        c = self.w(c)
        advantage = (c * positive).sum(-1).sigmoid() - (c * other).sum(-1).sigmoid()
        mask = drawn.mask
        loss = (-F.logsigmoid(advantage) * mask).sum() / processes.number_of_pairs(mask)
        similarity = mean_similarity(c, positive, mask)
        of_negatives = mean_similarity(c, other, mask) if behavior.watched else None
        return SSLLosses(loss, loss.new_zeros(()), similarity, of_negatives)

    def _draw(self, behavior: Behavior, x: Tensor) -> tuple[Segments, Tensor]:
        """The segments, and the behaviors (B, L, JK) at their negatives' places."""
        share = processes.share()
        if share is None or not share.gather:
            drawn = draw_segments(behavior.length, behavior.group, x.shape[1], self.generator)
            return drawn, x[drawn.row, drawn.place]
        everyone = behavior.of_all_processes()
        with processes.sharing(None):
            drawn = draw_segments(everyone.length, everyone.group, x.shape[1], self.generator)
        drawn = Segments(*(each[share.own] for each in drawn))
        tokens = everyone.tokens(everyone.indices)[drawn.row, drawn.place]
        return drawn, everyone.embed_tokens(tokens).flatten(2)


class Segments(NamedTuple):
    """A segment of each history and where its negative comes from."""

    inside: Tensor  # (B, L) whether a behavior belongs to the segment
    row: Tensor  # (B, L) for each place of the segment, the row of the negative behavior
    place: Tensor  # (B, L) and its index in that row
    mask: Tensor  # (B,) whether there is a segment, and enough behaviors of others


def draw_segments(
    length: Tensor, group: Tensor, max_len: int, generator: torch.Generator
) -> Segments:
    """Random segments, and negatives of equal length from the histories of other groups.

    The histories of a batch are concatenated into a ring, those of a group next to each other. A
    negative starts at a random place of the ring from which it does not reach its own group.

    Args:
        length: (B,) behaviors per row, n.
        group: (B,) equal for rows of one user.
        max_len: L.
        generator: source of all randomness.
    """
    places = torch.arange(max_len, device=length.device)
    size = 1 + uniform(length // 2, generator)  # [1, n//2]
    start = uniform(length - size + 1, generator)
    step = places - start[:, None]  # (B, L) place within the segment
    inside = (step >= 0) & (step < size[:, None])

    order = group.argsort(stable=True)
    begin = F.pad(length[order].cumsum(0), (1, 0))  # (B + 1,) start of each history on the ring
    own_begin = begin[torch.searchsorted(group[order], group)]
    own_end = begin[torch.searchsorted(group[order], group, right=True)]
    around = begin[-1]
    others = around - (own_end - own_begin)
    offset = uniform(others - size + 1, generator)
    on_ring = (own_end + offset).unsqueeze(1) + step * inside
    on_ring = on_ring % around.clamp(min=1)
    number = torch.searchsorted(begin, on_ring, right=True).clamp(max=len(length)) - 1
    mask = (length >= 2) & (others >= size)
    return Segments(inside, order[number], on_ring - begin[number], mask)
