"""MISS as one module: behaviors in, the two contrastive losses out (Eq. 9 to 16)."""

from __future__ import annotations

import dataclasses
import logging

import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.errors import unknown
from fuxictr_miss.losses import info_nce
from fuxictr_miss.methods.encoders import TransformerBlock, mean_similarity, mlp
from fuxictr_miss.methods.miss.augmentation import (
    DISTANCES,
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
from fuxictr_miss.registry import SSLLosses, register_method
from fuxictr_miss.settings import SSLSettings, require

EXTRACTORS = ("cnn", "self_attention", "lstm")
VARIANTS = ("", "/F", "/F/U", "/F/L", "/F/U/L", "/M/F/U/L")
VIEW_ENCODERS = ("mlp", "transformer")


@dataclasses.dataclass(frozen=True)
class MISSSettings:
    """The keys of MISS: `miss_` and the field's name; defaults and ranges of Section VI.A."""

    max_width: int = 3  # M
    max_height: int = 2  # N
    max_distance: int = 3  # H
    num_pairs: int = 1  # P, a branch
    num_feature_pairs: int = 1  # Q, a branch
    interest_encoder: list[int] = dataclasses.field(default_factory=lambda: [20, 20])  # Enc_i
    feature_encoder: list[int] = dataclasses.field(default_factory=lambda: [10, 10])  # Enc_if
    extractor: str = "cnn"  # one of EXTRACTORS (Table VII)
    variant: str = ""  # one of VARIANTS (Table VI)
    distance: str = "uniform"  # one of DISTANCES, how h is distributed
    view_encoder: str = "mlp"  # one of VIEW_ENCODERS, what Enc_i is
    symmetric: bool = False  # whether view 2 is contrasted with view 1, too

    def __post_init__(self) -> None:
        for name in ("max_width", "max_height", "max_distance", "num_pairs", "num_feature_pairs"):
            require(getattr(self, name) >= 1, f"miss_{name}", getattr(self, name), "1 or more")
        for name in ("interest_encoder", "feature_encoder"):
            sizes = getattr(self, name)
            require(bool(sizes) and min(sizes) >= 1, f"miss_{name}", sizes, "a list of layer sizes")
        for name, values in (
            ("extractor", EXTRACTORS),
            ("variant", VARIANTS),
            ("distance", DISTANCES),
            ("view_encoder", VIEW_ENCODERS),
        ):
            if getattr(self, name) not in values:
                raise unknown(f"miss_{name}", getattr(self, name), values)


@register_method("MISS")
class MISS(nn.Module):
    """Multi-interest self-supervision (arXiv 2111.15068).

    The variants of Table VI: /F has no feature level (Eq. 16), /U point-wise interests only
    (M = 1), /L neighbors only (H = 1). The paper does not say what is left without /M, the
    multi-interest consideration. Here a user then has one interest, the mean of all point-wise ones
    t_l, and the augmentation is sample-level (Eq. 8): the two views are the means over the two
    halves of a random split of the history. So /M/F/U/L differs from /F/U/L in one thing only, that
    a view stands for the user instead of an interest; as there, no behavior is in both views.

    Beyond the paper, `view_encoder: transformer` lets the J features of an interest attend to each
    other before the MLP of Enc_i; a feature-level view is a single vector and keeps its MLP.

    Args:
        ssl: keys that all methods share.
        settings: keys of MISS.
        num_sequences: J.
        dim: K.
        generator: where every draw comes from.
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
        self.temperature = ssl.temperature
        self.generator = generator
        self.settings = settings
        without = settings.variant.split("/")
        max_width = 1 if "U" in without else settings.max_width
        self.max_distance = 1 if "L" in without else settings.max_distance
        self.extractor = _extractor(settings.extractor, max_width, num_sequences, dim)
        self.branches = max_width if settings.extractor == "cnn" else 1
        self.multi_interest = "M" not in without
        if settings.view_encoder == "transformer":
            self.attention = TransformerBlock(dim, 1, 0.0, generator)
        self.interest_encoder = mlp(num_sequences * dim, settings.interest_encoder)
        self.heights = usable_heights(num_sequences, settings.max_height)  # N'
        if "F" in without:
            self.heights = 0
        elif self.heights == 0:
            logging.info(
                "MISS: with one sequence (J = 1) there are no feature-level pairs (Eq. 24); "
                "only the interest-level loss (Eq. 15) is used."
            )
        if self.heights:
            self.vertical = VerticalConvolution(self.branches, self.heights)
            self.feature_encoder = mlp(dim, settings.feature_encoder)

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw the pairs, compute their views, and contrast them."""
        loss, similarity = self._interest_level(behavior)
        return SSLLosses(loss, self._feature_level(behavior), similarity)

    def _interest_level(self, behavior: Behavior) -> tuple[Tensor, Tensor]:
        """L_ssl of Eq. 15 and the mean similarity of its pairs (Fig. 5)."""
        views = self._interest_views if self.multi_interest else self._sample_views
        interests, valid = views(behavior)  # (B, M, P, 2, J, K), (B, M)
        shape = interests.shape[:4]
        features = interests.flatten(0, 3)  # (B*M*P*2, J, K)
        if self.settings.view_encoder == "transformer":
            features = self.attention(features, features)
        z = self.interest_encoder(features.flatten(1)).unflatten(0, shape)  # Eq. 13
        z = z.permute(3, 1, 2, 0, 4).flatten(1, 2)  # (2, M*P, B, D)
        # Fig. 5 is about the interests h: an encoder can keep collapsed ones apart
        first, second = interests.flatten(4).unbind(3)  # (B, M, P, JK)
        similarity = mean_similarity(first, second, valid.unsqueeze(-1).expand(shape[:3]))
        valid = valid.T.repeat_interleave(self.settings.num_pairs, dim=0)  # (M*P, B)
        return self._contrast(z, behavior, valid), similarity

    def _interest_views(self, behavior: Behavior) -> tuple[Tensor, Tensor]:
        """Pairs of interests (Eq. 21), and for which branches of a history they exist."""
        pairs = draw_interest_pairs(
            behavior.length,
            self.branches,
            self.max_distance,
            self.settings.num_pairs,
            self.generator,
            self.settings.distance,
        )
        windows = torch.stack([pairs.first, pairs.second], dim=-1)  # (B, M, P, 2)
        interests = self.extractor(behavior, windows.flatten(2))  # (B, M, 2P, J, K): Eq. 20
        return interests.unflatten(2, windows.shape[2:]), pairs.valid

    def _sample_views(self, behavior: Behavior) -> tuple[Tensor, Tensor]:
        """Pairs of halves of the history (Eq. 8), as `_interest_views` with M = 1."""
        max_len = behavior.ids.shape[2]
        halves, exists = draw_halves(
            behavior.length, max_len, self.settings.num_pairs, self.generator
        )
        everywhere = torch.arange(max_len, device=halves.device).expand(len(halves), 1, -1)
        interests = self.extractor(behavior, everywhere)[:, 0]  # (B, L, J, K)
        share = halves / halves.sum(dim=-1, keepdim=True).clamp(min=1)
        means = torch.einsum("bpvl,bljk->bpvjk", share.to(interests.dtype), interests)
        return means.unsqueeze(1), exists.unsqueeze(1)

    def _contrast(self, z: Tensor, behavior: Behavior, valid: Tensor) -> Tensor:
        """InfoNCE of the views (2, pairs, B, D), in the direction of Eq. 15 and 16 or in both."""
        loss = info_nce(z[0], z[1], self.temperature, behavior.group, valid=valid)
        if self.settings.symmetric:
            back = info_nce(z[1], z[0], self.temperature, behavior.group, valid=valid)
            loss = (loss + back) / 2
        return loss

    def _feature_level(self, behavior: Behavior) -> Tensor:
        """L'_ssl of Eq. 16."""
        if self.heights == 0:
            return behavior.ids.new_zeros((), dtype=torch.float32)
        pairs = draw_feature_pairs(
            behavior.length,
            behavior.ids.shape[1],
            self.branches,
            self.heights,
            self.settings.num_feature_pairs,
            self.generator,
        )
        interests = self.extractor(behavior, pairs.window.flatten(2))  # (B, M, N'Q, J, K)
        interests = interests.unflatten(2, pairs.window.shape[2:])
        views = self.feature_encoder(self.vertical(interests, pairs.rows))  # Eq. 14
        views = views.permute(4, 1, 2, 3, 0, 5).flatten(1, 3)  # (2, M*N'*Q, B, D)
        repeats = views.shape[1] // pairs.valid.shape[1]
        valid = pairs.valid.T.repeat_interleave(repeats, dim=0)
        return self._contrast(views, behavior, valid)


def _extractor(name: str, max_width: int, num_sequences: int, dim: int) -> nn.Module:
    if name == "cnn":
        return HorizontalConvolution(max_width)
    kind = SelfAttentionExtractor if name == "self_attention" else LSTMExtractor
    return kind(num_sequences, dim)
