"""Rule, the baseline of Table V that treats item categories as interests."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.config.values import Count, LayerSizes, Natural, PositiveRate
from fuxictr_miss.errors import InputError
from fuxictr_miss.losses import info_nce
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.draws import numbers
from fuxictr_miss.methods.encoders import mlp, similarities


@dataclasses.dataclass(frozen=True)
class RuleSettings:
    """The keys of Rule: `rule_` and the field's name."""

    category: Natural = 1  # which of the sequences is the category, counted from 0
    dropout: PositiveRate = 0.5  # probability that a view drops a behavior
    num_pairs: Count = 1  # segments drawn from a history
    encoder: LayerSizes = dataclasses.field(default_factory=lambda: [20, 20])


@register_method("Rule")
class Rule(nn.Module):
    """Segments of one category, two dropout views of a segment (arXiv 2111.15068, Section VI.C.2).

    The paper "segments the behavior sequence into several sub-sequences based on item categories
    and then conducts dropout on each". A segment is all behaviors of one category, adjacent or not.
    A view of it keeps each behavior with probability 1 - `rule_dropout`, but at least one, and is
    the encoded mean of those kept. A segment of one behavior has no two views and is not drawn. The
    loss is InfoNCE (Eq. 15) with the segments of other users as negatives.

    Args:
        ssl: keys that all methods share.
        settings: keys of Rule.
        num_sequences: J.
        dim: K.
        generator: source of all random draws.

    Raises:
        InputError: there is no category sequence.
    """

    Settings = RuleSettings

    def __init__(
        self,
        ssl: SSLSettings,
        settings: RuleSettings,
        num_sequences: int,
        dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if settings.category >= num_sequences:
            raise InputError(
                "Rule splits histories by item category and needs a category sequence, but there "
                f"is no sequence {settings.category} (rule_category, counted from 0) among "
                f"{num_sequences}."
            )
        self.temperature, self.block_size = ssl.temperature, ssl.block_size
        self.settings = settings
        self.generator = generator
        self.encoder = mlp(num_sequences * dim, settings.encoder)

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw segments, drop behaviors twice, and contrast the means of the rest."""
        category = behavior.tokens(behavior.indices)[..., self.settings.category]  # (B, L)
        segment, exists = draw_segments(category, self.settings.num_pairs, self.generator)
        kept = leave_out(segment, self.settings.dropout, self.generator)  # (B, P, 2, L)
        share = kept / kept.sum(dim=-1, keepdim=True).clamp(min=1)
        x = behavior.tensor.flatten(2)  # (B, L, JK)
        z = self.encoder(share.to(x.dtype) @ x.unsqueeze(1))  # (B, P, 2, D)
        first, second = z.permute(2, 1, 0, 3)  # (P, B, D) each
        mask = exists.expand(len(first), -1)  # (P, B)
        loss = info_nce(
            first, second, self.temperature, behavior.group, mask=mask, block_size=self.block_size
        )
        views = first.transpose(0, 1), second.transpose(0, 1), mask.T
        similar = similarities(*views, behavior.group, behavior.watched)
        return SSLLosses(loss, loss.new_zeros(()), *similar)


def draw_segments(
    category: Tensor, num_pairs: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random segments of two behaviors or more, uniform over those of the history.

    Args:
        category: (B, L) categories, 0 where there is no behavior.
        num_pairs: P.
        generator: source of all randomness.

    Returns:
        (B, P, L) booleans: which behaviors belong to the segment; (B,) booleans: whether the
        history has a segment.
    """
    ordered = category.sort(dim=1).values
    again = F.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0)) & (ordered != 0)
    second = again & ~F.pad(again[:, :-1], (1, 0))  # once for each category that occurs twice
    shape = (len(category), num_pairs, category.shape[1])
    key = numbers(shape, generator, category.device)
    chosen = key.masked_fill(~second.unsqueeze(1), -1).argmax(dim=-1)  # (B, P)
    exists = second.any(dim=1)
    segment = category.unsqueeze(1) == ordered.gather(1, chosen).unsqueeze(-1)
    return segment & exists[:, None, None], exists


def leave_out(segment: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Two views (B, P, 2, L) of segments (B, P, L): booleans, each with some of the behaviors."""
    shape = (*segment.shape[:2], 2, segment.shape[2])
    draw = numbers(shape, generator, segment.device)
    draw = draw.masked_fill(~segment.unsqueeze(2), -1)
    best = draw == draw.amax(dim=-1, keepdim=True)  # always kept, so that no view is empty
    return segment.unsqueeze(2) & ((draw >= rate) | best)
