"""MISS as one module: behaviors in, the two contrastive losses out (Eq. 9 to 16)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

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
ACTIVATIONS = ("relu", "identity")
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
    activation: str = "relu"  # one of ACTIVATIONS, of the horizontal convolution (Eq. 19)
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
            ("activation", ACTIVATIONS),
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

    Beyond the paper, `activation: identity` takes the ReLU out of Eq. 19, through which a dimension
    of an item's vector learns nothing once it is negative; and `view_encoder: transformer` lets the
    J features of an interest attend to each other before the MLP of Enc_i; a feature-level view is
    a single vector and keeps its MLP.

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
        self.temperature, self.block_size = ssl.temperature, ssl.block_size
        self.generator = generator
        self.settings = settings
        without = settings.variant.split("/")
        max_width = 1 if "U" in without else settings.max_width
        self.max_distance = 1 if "L" in without else settings.max_distance
        self.extractor = _extractor(settings, max_width, num_sequences, dim)
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
        if self.multi_interest:
            levels = self._interest_views(behavior)
        else:
            levels = [self._sample_views(behavior)]
        encoded = [self._encode_interests(levels[0][0])]  # Eq. 13
        encoded += [self.feature_encoder(r) for r, _ in levels[1:]]  # Eq. 14
        losses = self._contrast(encoded, [exist for _, exist in levels], behavior.group)
        # Fig. 5 is about the interests h: an encoder can keep collapsed ones apart
        (first, second), exist = levels[0]
        similarity = mean_similarity(first.flatten(3), second.flatten(3), exist)
        feature = losses[1] if len(losses) > 1 else losses[0].new_zeros(())
        return SSLLosses(losses[0], feature, similarity)

    def _interest_views(self, behavior: Behavior) -> list[tuple[Tensor, Tensor]]:
        """The pairs of Eq. 21 and, unless there is no feature level, of Eq. 24.

        Returns:
            A level each: the views, (2, M, P, B, J, K) interests and (2, M, N', Q, B, K), and
            whether a pair exists, the same shape without the first and the last dimensions.
        """
        keys = self.settings
        pairs = draw_interest_pairs(
            behavior.length,
            self.branches,
            self.max_distance,
            keys.num_pairs,
            self.generator,
            keys.distance,
        )
        windows = [pairs.first, pairs.second]  # (B, M, P) each
        sizes = [2 * keys.num_pairs]
        if self.heights:
            fine = draw_feature_pairs(
                behavior.length,
                len(behavior.columns),
                self.branches,
                self.heights,
                keys.num_feature_pairs,
                self.generator,
            )
            windows.append(fine.window.flatten(2))
            sizes.append(self.heights * keys.num_feature_pairs)
        interests = self.extractor(behavior, torch.cat(windows, dim=2))  # Eq. 20
        of_level = interests.split(sizes, dim=2)  # (B, M, 2P, J, K), (B, M, N'Q, J, K)
        h = of_level[0].unflatten(2, (2, keys.num_pairs))
        exist = pairs.valid.T.unsqueeze(1).expand(-1, keys.num_pairs, -1)  # (M, P, B)
        levels = [(h.permute(2, 1, 3, 0, 4, 5), exist)]
        if self.heights:
            of_rows = of_level[1].unflatten(2, fine.window.shape[2:])
            r = self.vertical(of_rows, fine.rows).permute(4, 1, 2, 3, 0, 5)  # Eq. 23
            levels.append((r, fine.valid.T[:, None, None].expand(r.shape[1:5])))
        return levels

    def _sample_views(self, behavior: Behavior) -> tuple[Tensor, Tensor]:
        """Pairs of halves of the history (Eq. 8), as `_interest_views` with M = 1."""
        halves, exists = draw_halves(
            behavior.length, behavior.max_len, self.settings.num_pairs, self.generator
        )
        everywhere = torch.arange(behavior.max_len, device=halves.device)
        interests = self.extractor(behavior, everywhere.expand(len(halves), 1, -1))[:, 0]
        share = halves / halves.sum(dim=-1, keepdim=True).clamp(min=1)
        h = torch.einsum("bpvl,bljk->vpbjk", share.to(interests.dtype), interests)
        return h.unsqueeze(1), exists.expand(1, self.settings.num_pairs, -1)

    def _encode_interests(self, h: Tensor) -> Tensor:
        """Enc_i of Eq. 13: (..., J, K) interests to (..., D)."""
        if self.settings.view_encoder == "transformer":
            features = h.flatten(0, -3)
            h = self.attention(features, features).view(h.shape)
        return self.interest_encoder(h.flatten(-2))

    def _contrast(
        self, levels: list[Tensor], exist: list[Tensor], group: Tensor
    ) -> Sequence[Tensor]:
        """InfoNCE of each level (Eq. 15, 16), a set for each branch and pair.

        Args:
            levels: (2, ..., B, D) encoded views.
            exist: (..., B) of each level.
            group: (B,).
        """

        def one_way(anchor: Tensor, positive: Tensor, mask: Tensor) -> Tensor:
            return info_nce(
                anchor, positive, self.temperature, group, mask=mask, block_size=self.block_size
            )

        losses = []
        for z, mask in zip(levels, exist, strict=True):
            case = (*z.flatten(1, -3), mask.flatten(0, -2))  # (P, B, D), (P, B, D), (P, B)
            loss = one_way(*case)
            if self.settings.symmetric:
                loss = (loss + one_way(case[1], case[0], case[2])) / 2
            losses.append(loss)
        return losses


def _extractor(keys: MISSSettings, max_width: int, num_sequences: int, dim: int) -> nn.Module:
    if keys.extractor == "cnn":
        return HorizontalConvolution(max_width, keys.activation == "relu")
    kind = SelfAttentionExtractor if keys.extractor == "self_attention" else LSTMExtractor
    return kind(num_sequences, dim)
