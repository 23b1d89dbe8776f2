"""Rule, the baseline of Table V that takes item categories for interests."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.errors import InputError
from fuxictr_miss.losses import info_nce
from fuxictr_miss.methods.encoders import mean_similarity, mlp
from fuxictr_miss.registry import SSLLosses, register_method
from fuxictr_miss.settings import SSLSettings, require


@dataclasses.dataclass(frozen=True)
class RuleSettings:
    """The keys of Rule: `rule_` and the field's name."""

    category: int = 1  # which of the sequences is the category, counted from 0
    dropout: float = 0.5  # probability that a view leaves a behavior out
    num_pairs: int = 1  # segments drawn from a history
    encoder: list[int] = dataclasses.field(default_factory=lambda: [20, 20])

    def __post_init__(self) -> None:
        require(self.category >= 0, "rule_category", self.category, "0 or more")
        require(0 < self.dropout < 1, "rule_dropout", self.dropout, "between 0 and 1")
        require(self.num_pairs >= 1, "rule_num_pairs", self.num_pairs, "1 or more")
        sizes = self.encoder
        require(bool(sizes) and min(sizes) >= 1, "rule_encoder", sizes, "a list of layer sizes")


@register_method("Rule")
class Rule(nn.Module):
    """Segments of one category, two dropout views of a segment (arXiv 2111.15068, Section VI.C.2).

    The paper "segments the behavior sequence into several sub-sequences based on item categories
    and then conducts dropout on each". A segment is all behaviors of one category, wherever they
    stand in the history; a view of it keeps each behavior with probability 1 - `rule_dropout`, one
    at least, and is the encoded mean of those kept. A segment of a single behavior has no two views
    and is not drawn. The loss is InfoNCE (Eq. 15) with the other users' segments as negatives.

    Args:
        ssl: keys that all methods share.
        settings: keys of Rule.
        num_sequences: J.
        dim: K.
        generator: where every draw comes from.

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
                "Rule splits histories by item category and needs a category sequence: number "
                f"{settings.category} (rule_category), counted from 0, of {num_sequences} there is "
                "none."
            )
        self.temperature, self.block_size = ssl.temperature, ssl.block_size
        self.settings = settings
        self.generator = generator
        self.encoder = mlp(num_sequences * dim, settings.encoder)

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw segments, leave behaviors out twice, and contrast."""
        places = torch.arange(behavior.max_len, device=behavior.length.device)
        category = behavior.tokens(places.expand(behavior.batch_size, -1))[
            :, self.settings.category
        ]
        segment, exists = draw_segments(category, self.settings.num_pairs, self.generator)
        kept = leave_out(segment, self.settings.dropout, self.generator)  # (B, P, 2, L)
        share = kept / kept.sum(dim=-1, keepdim=True).clamp(min=1)
        x = behavior.tensor.transpose(1, 2).flatten(2)  # (B, L, JK)
        views = torch.einsum("bpvl,blw->vpbw", share.to(x.dtype), x)
        first, second = self.encoder(views)  # (P, B, D) each
        valid = exists.expand(len(first), -1)  # (P, B)
        loss = info_nce(
            first, second, self.temperature, behavior.group, mask=valid, block_size=self.block_size
        )
        return SSLLosses(loss, loss.new_zeros(()), mean_similarity(first, second, valid))


def draw_segments(
    category: Tensor, num_pairs: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random segments of two behaviors or more, uniform over those of a history.

    Args:
        category: (B, L) categories, 0 where there is no behavior.

    Returns:
        (B, P, L) which behaviors are of the segment; (B,) whether the history has a segment.
    """
    ordered = category.sort(dim=1).values
    again = F.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0)) & (ordered != 0)
    second = again & ~F.pad(again[:, :-1], (1, 0))  # once a category that occurs twice or more
    shape = (len(category), num_pairs, category.shape[1])
    key = torch.rand(shape, generator=generator, device=category.device)
    chosen = key.masked_fill(~second.unsqueeze(1), -1).argmax(dim=-1)  # (B, P)
    exists = second.any(dim=1)
    segment = category.unsqueeze(1) == ordered.gather(1, chosen).unsqueeze(-1)
    return segment & exists[:, None, None], exists


def leave_out(segment: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """(B, P, 2, L): two views of the segments (B, P, L), each with some of the behaviors or all."""
    shape = (*segment.shape[:2], 2, segment.shape[2])
    draw = torch.rand(shape, generator=generator, device=segment.device)
    draw = draw.masked_fill(~segment.unsqueeze(2), -1)
    best = draw == draw.amax(dim=-1, keepdim=True)  # stays whatever the others do
    return segment.unsqueeze(2) & ((draw >= rate) | best)
