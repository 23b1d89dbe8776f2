"""CL4SRec: contrastive learning for sequential recommendation (arXiv 2010.14395)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.values import Share
from fuxictr_miss.losses import nt_xent
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.draws import shuffle, uniform
from fuxictr_miss.methods.encoders import similarities
from fuxictr_miss.methods.transformer import TransformerMethod, TransformerSettings


@dataclasses.dataclass(frozen=True)
class CL4SRecSettings(TransformerSettings):
    """The keys of CL4SRec: `cl4srec_` and the field's name."""

    crop_ratio: Share = 0.6  # η, of the behaviors that a crop keeps
    mask_ratio: Share = 0.3  # γ, of the behaviors that are masked
    reorder_ratio: Share = 0.6  # β, of the behaviors that are shuffled


@register_method("CL4SRec")
class CL4SRec(TransformerMethod):
    """Two of crop, mask and reorder, a causal Transformer, NT-Xent.

    A history of n behaviors gets two views by two different operators, drawn for each row:

        crop     a random run of ⌊ηn⌋ behaviors, at least one
        mask     ⌊γn⌋ random behaviors become the mask token, a learned vector
        reorder  a random run of ⌊βn⌋ behaviors is shuffled

    The Transformer's state of the newest behavior represents a view. Its negatives are the 2(B - 1)
    views of other rows, except rows of the same user. The paper compares states by their inner
    product, which its last LayerNorm turns into a cosine with a fixed temperature; here it is the
    cosine over `ssl_temperature`, as in SimCLR. Beside it the paper predicts the next item; here
    that place is the label loss's.
    """

    Settings = CL4SRecSettings
    settings: CL4SRecSettings

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.mask_token = nn.Parameter(0.1 * torch.randn(self.width))

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw two views of each history, encode them, and contrast."""
        order, masked = self._draw(behavior.length, behavior.max_len)
        views = behavior.embed(order).flatten(3)  # (B, 2, L, JK)
        views = self.mask_token.where(masked.unsqueeze(-1), views)
        length = (order < behavior.max_len).sum(dim=-1)  # (B, 2) behaviors in a view
        states = self.encoder(views.flatten(0, 1), length.flatten())
        first, second = states.unflatten(0, (-1, 2)).unbind(1)  # (B, JK) each
        exists = behavior.length > 0
        loss = nt_xent(first, second, self.temperature, behavior.group, exists)
        similar = similarities(first, second, exists, behavior.group, behavior.watched)
        return SSLLosses(loss, loss.new_zeros(()), *similar)

    def _draw(self, length: Tensor, max_len: int) -> tuple[Tensor, Tensor]:
        """(B, 2, L) the ordered behaviors of both views, and (B, 2, L) which are masked."""
        settings = self.settings
        candidates = length.new_ones((len(length), 3), dtype=torch.bool)
        operator = shuffle(candidates, self.generator)[:, :2].unsqueeze(-1)  # two different ones
        length = length[:, None].expand(-1, 2)
        cropped = crop(length, max_len, settings.crop_ratio, self.generator)
        masked = mask(length, max_len, settings.mask_ratio, self.generator)
        reordered = reorder(length, max_len, settings.reorder_ratio, self.generator)
        order = cropped.where(
            operator == 0, reordered.where(operator == 2, _as_is(length, max_len))
        )
        return order, masked & (operator == 1)


def crop(length: Tensor, max_len: int, ratio: float, generator: torch.Generator) -> Tensor:
    """A random run of ⌊ratio × n⌋ behaviors, at least one if there are any.

    Args:
        length: (...) behaviors per history, n.
        max_len: L, the largest n.

    Returns:
        (..., L) indices of the behaviors in their order, then L, which stands for padding.
    """
    keep = _floor(length, ratio).maximum(length.clamp(max=1))
    start = uniform(length - keep + 1, generator)
    places = torch.arange(max_len, device=length.device)
    return (start.unsqueeze(-1) + places).masked_fill(places >= keep.unsqueeze(-1), max_len)


def mask(length: Tensor, max_len: int, ratio: float, generator: torch.Generator) -> Tensor:
    """(..., L) booleans: ⌊ratio × n⌋ of the n behaviors, each equally likely."""
    places = torch.arange(max_len, device=length.device)
    rank = shuffle(places < length.unsqueeze(-1), generator)
    return rank < _floor(length, ratio).unsqueeze(-1)


def reorder(length: Tensor, max_len: int, ratio: float, generator: torch.Generator) -> Tensor:
    """(..., L) as `crop`, but with all behaviors, a run of ⌊ratio × n⌋ of them shuffled."""
    size = _floor(length, ratio).unsqueeze(-1)
    start = uniform(length - size.squeeze(-1) + 1, generator).unsqueeze(-1)
    places = torch.arange(max_len, device=length.device)
    inside = (places >= start) & (places < start + size)
    order = (start + shuffle(inside, generator)).where(inside, places)
    return order.masked_fill(places >= length.unsqueeze(-1), max_len)


def _as_is(length: Tensor, max_len: int) -> Tensor:
    places = torch.arange(max_len, device=length.device)
    return places.masked_fill(places >= length.unsqueeze(-1), max_len)


def _floor(length: Tensor, ratio: float) -> Tensor:
    return (length.double() * ratio).floor().long()
