"""MISS as one module: behaviors in, the two contrastive losses out (Eq. 9 to 16)."""

from __future__ import annotations

import dataclasses
import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.errors import unknown
from fuxictr_miss.losses import info_nce
from fuxictr_miss.methods.miss.augmentation import (
    draw_feature_pairs,
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
VARIANTS = ("", "/F", "/F/U", "/F/L", "/F/U/L")


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

    def __post_init__(self) -> None:
        for name in ("max_width", "max_height", "max_distance", "num_pairs", "num_feature_pairs"):
            require(getattr(self, name) >= 1, f"miss_{name}", getattr(self, name), "1 or more")
        for name in ("interest_encoder", "feature_encoder"):
            sizes = getattr(self, name)
            require(bool(sizes) and min(sizes) >= 1, f"miss_{name}", sizes, "a list of layer sizes")
        if self.extractor not in EXTRACTORS:
            raise unknown("miss_extractor", self.extractor, EXTRACTORS)
        if self.variant not in VARIANTS:
            raise unknown("miss_variant", self.variant, VARIANTS)


@register_method("MISS")
class MISS(nn.Module):
    """Multi-interest self-supervision (arXiv 2111.15068).

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
        self.interest_encoder = _mlp(num_sequences * dim, settings.interest_encoder)
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
            self.feature_encoder = _mlp(dim, settings.feature_encoder)

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw the pairs, compute their views, and contrast them."""
        loss, similarity = self._interest_level(behavior)
        return SSLLosses(loss, self._feature_level(behavior), similarity)

    def _interest_level(self, behavior: Behavior) -> tuple[Tensor, Tensor]:
        """L_ssl of Eq. 15 and the mean similarity of its pairs (Fig. 5)."""
        pairs = draw_interest_pairs(
            behavior.length,
            self.branches,
            self.max_distance,
            self.settings.num_pairs,
            self.generator,
        )
        windows = torch.cat([pairs.first, pairs.second], dim=2)  # (B, M, 2P)
        interests = self.extractor(behavior, windows).flatten(3)  # (B, M, 2P, JK): t of Eq. 20
        z = self.interest_encoder(interests)  # Eq. 13
        z = z.permute(1, 2, 0, 3).unflatten(1, (2, -1))  # (M, 2, P, B, D)
        first, second = z[:, 0].flatten(0, 1), z[:, 1].flatten(0, 1)  # (M*P, B, D)
        valid = pairs.valid.T.repeat_interleave(self.settings.num_pairs, dim=0)  # (M*P, B)
        loss = info_nce(first, second, self.temperature, behavior.group, valid=valid)
        return loss, _mean_similarity(first, second, valid)

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
        return info_nce(views[0], views[1], self.temperature, behavior.group, valid=valid)


def _extractor(name: str, max_width: int, num_sequences: int, dim: int) -> nn.Module:
    if name == "cnn":
        return HorizontalConvolution(max_width)
    kind = SelfAttentionExtractor if name == "self_attention" else LSTMExtractor
    return kind(num_sequences, dim)


def _mlp(width: int, sizes: list[int]) -> nn.Sequential:
    """Enc_i or Enc_if: ReLU between the layers, the last one linear so that z has all signs."""
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers[:-1])


def _mean_similarity(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """Mean cosine similarity of the positive pairs that exist."""
    with torch.no_grad():
        cosine = F.cosine_similarity(first, second, dim=-1)
        return (cosine * valid).sum() / valid.sum().clamp(min=1)
