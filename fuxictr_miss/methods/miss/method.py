"""MISS as one module: behaviors in, both contrastive losses out (Eq. 13 to 16).

The axis order is that of `fuxictr_miss.behavior`.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.config.values import Count, Layers, Share, Switch
from fuxictr_miss.losses import info_nce
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.encoders import mlp, similarities
from fuxictr_miss.methods.miss.augmentation import (
    Distance,
    draw_feature_pairs,
    draw_halves,
    draw_interest_pairs,
    usable_heights,
)
from fuxictr_miss.methods.miss.extractors import (
    HorizontalConvolution,
    LSTMExtractor,
    SelfAttentionExtractor,
    VerticalConvolution,
)
from fuxictr_miss.methods.ppmi import information
from fuxictr_miss.methods.transformer import TransformerBlock

log = logging.getLogger(__name__)

_TOLD_BY = 2**16  # training rows: what ids say about each other is estimated from so many or more


@dataclasses.dataclass(frozen=True)
class MISSSettings:
    """The keys of MISS: `miss_` and the field's name; defaults and ranges of Section VI.A."""

    max_width: Count = 3  # M
    max_height: Count = 2  # N
    max_distance: Count | None = 3  # H; None: all pairs are far ones, whatever `far_share`
    num_pairs: Count = 1  # P, a branch
    far_share: Share = 0.0  # of the P pairs: far ones, any two windows however far apart
    num_feature_pairs: Count = 1  # Q, a branch
    interest_encoder: Layers = dataclasses.field(default_factory=lambda: [20, 20])  # Enc_i, or []
    feature_encoder: Layers = dataclasses.field(default_factory=lambda: [10, 10])  # Enc_if, or []
    extractor: Literal["cnn", "self_attention", "lstm"] = "cnn"  # Table VII
    activation: Literal["relu", "identity"] = "relu"  # of the horizontal convolution (Eq. 19)
    variant: Literal["", "/F", "/F/U", "/F/L", "/F/U/L", "/M/F/U/L"] = ""  # Table VI
    distance: Distance = "uniform"  # the distribution of h
    view_encoder: Literal["mlp", "transformer"] = "mlp"  # what Enc_i is
    symmetric: bool = False  # whether view 2 is contrasted with view 1, too
    separate_features: bool = False  # each attribute is contrasted by itself, not concatenated
    # a higher τ for attributes whose ids tell less than a nat of each other: τ over it, at most 1
    scale_temperature: Switch = False


class Level(NamedTuple):
    """The pairs of views that one loss contrasts."""

    views: Tensor  # (B, M, P, 2, J, K) interests, or (B, M, N', Q, 2, K) of single features
    mask: Tensor  # (B, M, P) or (B, M, N', Q) whether there is such a pair


@register_method("MISS")
class MISS(nn.Module):
    """Multi-interest self-supervision (arXiv 2111.15068).

    The variants of Table VI: /F has no feature level (Eq. 16), /U has point-wise interests
    only (M = 1), /L has neighbors only (H = 1). The paper does not say what remains without /M, the
    multi-interest consideration. Here a user then has one interest, the mean of all point-wise
    interests t_l, and the augmentation is sample-level (Eq. 8): the two views are the means over
    two random halves of the history. So /M/F/U/L differs from /F/U/L only in that a view stands for
    the user instead of for an interest. In both, no behavior is in both views.

    Some options go beyond the paper. `activation: identity` drops the ReLU of Eq. 19, which gives
    no gradient to a dimension of an item's vector once it is negative. `view_encoder: transformer`
    lets the J features of an interest attend to each other before the MLP of Enc_i. A feature-level
    view is a single vector and keeps its MLP.

    `scale_temperature` gives an attribute whose ids say little about each other a temperature of
    its own. At the optimum of Eq. 15, s/τ is their PMI up to a constant of the anchor (van den Oord
    et al., arXiv 1807.03748), and s is a cosine: with τ = 0.1 it spans the PMI of items, several
    nats. Two categories in a history may be nearly independent; at 0.1 their vectors spell out
    noise. With I_j, the mutual information of two behaviors' ids of attribute j in nats, its
    temperature is max(τ, min(1, τ / I_j)). An interest of concatenated attributes tells as much as
    the most telling one. Eq. 16 keeps τ.

    Args:
        ssl: keys that all methods share.
        settings: keys of MISS.
        num_sequences: J.
        dim: K.
        generator: source of all random draws.
    """

    Settings = MISSSettings

    def __init__(
        self,
        ssl: SSLSettings,
        settings: MISSSettings,
        num_sequences: int,
        dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.temperature, self.block_size = ssl.temperature, ssl.block_size
        self.own_temperatures = [ssl.temperature]  # of each attribute, or of all
        self.generator = generator
        self.settings = settings
        without = settings.variant.split("/")
        max_width = 1 if "U" in without else settings.max_width
        self.max_distance = 1 if "L" in without else settings.max_distance
        self.far_pairs = 0 if "L" in without else round(settings.far_share * settings.num_pairs)
        self.extractor = _extractor(settings, max_width, num_sequences, dim)
        self.branches = max_width if settings.extractor == "cnn" else 1  # M
        self.multi_interest = "M" not in without
        if settings.view_encoder == "transformer":
            self.attention = TransformerBlock(dim, 1, 0.0, generator)
        width = dim if settings.separate_features else num_sequences * dim
        self.interest_encoder = mlp(width, settings.interest_encoder)
        self.heights = usable_heights(num_sequences, settings.max_height)  # N'
        if "F" in without or ssl.alpha[1] == 0:  # a weight of 0 would compute Eq. 24 for nothing
            self.heights = 0
        elif self.heights == 0:
            log.info(
                "MISS: with one sequence (J = 1) there are no feature-level pairs (Eq. 24); "
                "only the interest-level loss (Eq. 15) is used."
            )
        self.behaviors_of_a_pair = 1 if self.heights else 2  # Eq. 24 needs one window, Eq. 21 two
        if self.heights:
            self.vertical = VerticalConvolution(self.branches, self.heights)
            self.feature_encoder = mlp(dim, settings.feature_encoder)

    @property
    def prepares(self) -> bool:
        """Whether `prepare` is called."""
        return self.settings.scale_temperature

    def prepare(self, columns: dict[str, Tensor]) -> None:
        """Set each attribute's temperature.

        Args:
            columns: the J sequences by name, (rows, L) ids each.
        """
        step = max(1, len(next(iter(columns.values()))) // _TOLD_BY)
        told = {name: information(column[::step].cpu()) for name, column in columns.items()}
        if not self.settings.separate_features:
            told = {" + ".join(told): max(told.values())}
        tau = self.temperature
        self.own_temperatures = [max(tau, min(1, tau / max(nats, tau))) for nats in told.values()]
        for (name, nats), own in zip(told.items(), self.own_temperatures, strict=True):
            log.info("MISS: temperature %.3g of %s, whose ids tell %.2f nats about each other.",
                         own, name, nats)  # fmt: skip

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw pairs, compute their views, encode them and contrast them."""
        if self.multi_interest:
            interest, feature = self._draw_views(behavior)
        else:
            interest, feature = self._draw_halves(behavior), None
        z = self._encode_interests(interest.views)  # Eq. 13
        mask = interest.mask
        if self.settings.separate_features:  # z: (B, M, P, 2, J, D)
            z = z.movedim(-2, 3)
            mask = mask.unsqueeze(-1).expand(z.shape[:4])
        loss = self._contrast(z, mask, behavior.group, self.own_temperatures)  # Eq. 15
        feature_loss = loss.new_zeros(())
        if feature is not None:
            z = self.feature_encoder(feature.views)  # Eq. 14
            tau = [self.temperature]
            feature_loss = self._contrast(z, feature.mask, behavior.group, tau)  # Eq. 16
        # Fig. 5 compares the interests themselves, as an encoder can separate collapsed ones
        first, second = interest.views.flatten(-2).unbind(-2)
        similar = similarities(first, second, interest.mask, behavior.group, behavior.watched)
        return SSLLosses(loss, feature_loss, *similar)

    def _draw_views(self, behavior: Behavior) -> tuple[Level, Level | None]:
        """The pairs of Eq. 21 and, if there is a feature level, those of Eq. 24."""
        keys = self.settings
        pairs = draw_interest_pairs(
            behavior.length,
            self.branches,
            self.max_distance,
            keys.num_pairs,
            self.generator,
            keys.distance,
            self.far_pairs,
        )
        if not self.heights:
            interests = self.extractor(behavior, pairs.windows.flatten(2))  # Eq. 9
            return Level(interests.unflatten(2, (-1, 2)), pairs.mask), None
        fine = draw_feature_pairs(
            behavior.length,
            len(behavior.columns),
            self.branches,
            self.heights,
            keys.num_feature_pairs,
            self.generator,
        )
        drawn = [pairs.windows.flatten(2), fine.window.flatten(2)]  # (B, M, 2P), (B, M, N'Q)
        interests = self.extractor(behavior, torch.cat(drawn, dim=2))  # Eq. 9, in one look-up
        h, g = interests.split([each.shape[2] for each in drawn], dim=2)
        g_hat = self.vertical(g.unflatten(2, fine.window.shape[2:]))  # Eq. 10
        rows = fine.rows.unsqueeze(-1).expand(-1, -1, -1, -1, -1, g_hat.shape[-1])
        r = g_hat.gather(-2, rows)  # Eq. 23, of the rows of Eq. 24
        return Level(h.unflatten(2, (-1, 2)), pairs.mask), Level(r, fine.mask)

    def _draw_halves(self, behavior: Behavior) -> Level:
        """The mean interests of random halves of the history (Eq. 8), with M = 1."""
        halves, mask = draw_halves(
            behavior.length, behavior.max_len, self.settings.num_pairs, self.generator
        )
        interests = self.extractor(behavior, behavior.indices.unsqueeze(1)).squeeze(1)
        share = halves / halves.sum(dim=-1, keepdim=True).clamp(min=1)
        h = torch.einsum("bpvl,bljk->bpvjk", share.to(interests.dtype), interests)
        return Level(h.unsqueeze(1), mask.unsqueeze(1))

    def _encode_interests(self, h: Tensor) -> Tensor:
        """Enc_i: (..., J, K) interests to (..., D)."""
        if self.settings.view_encoder == "transformer":
            features = h.flatten(0, -3)
            h = self.attention(features, features).view(h.shape)
        if not self.settings.separate_features:
            h = h.flatten(-2)  # Flat of Eq. 20
        return self.interest_encoder(h)

    def _contrast(self, z: Tensor, mask: Tensor, group: Tensor, own: list[float]) -> Tensor:
        """InfoNCE of one level, the mean over its branches and pairs.

        Args:
            z: (B, ..., 2, D) encoded views.
            mask: (B, ...) whether there is such a pair.
            group: (B,).
            own: the temperature of all, or of each attribute, the last axis of `mask`.
        """
        first, second = z.movedim(0, -2).flatten(0, -4).unbind(1)  # (P, B, D) each
        exists = mask.flatten(1).T  # (P, B)
        tau = own * (len(first) // len(own))  # one of each set of B pairs
        views = [(first, second)] + ([(second, first)] if self.settings.symmetric else [])
        losses = [
            info_nce(anchor, positive, tau, group, mask=exists, block_size=self.block_size)
            for anchor, positive in views
        ]
        return torch.stack(losses).mean()


def _extractor(keys: MISSSettings, max_width: int, num_sequences: int, dim: int) -> nn.Module:
    if keys.extractor == "cnn":
        return HorizontalConvolution(max_width, keys.activation == "relu")
    kind = SelfAttentionExtractor if keys.extractor == "self_attention" else LSTMExtractor
    return kind(num_sequences, dim)
