"""IRSSL: self-supervised learning for large-scale item recommendations (arXiv 2007.12865)."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior, in_parts
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.config.values import Count, LayerSizes, PositiveRate
from fuxictr_miss.losses import info_nce
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.catalogue import catalogue
from fuxictr_miss.methods.draws import drop, integers, uniform
from fuxictr_miss.methods.encoders import mlp, similarities

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class IRSSLSettings:
    """The keys of IRSSL: `irssl_` and the field's name."""

    num_pairs: Count = 1  # items drawn for each row of a batch
    dropout: PositiveRate = 0.5  # of embeddings; used only if an item has one feature
    encoder: LayerSizes = dataclasses.field(default_factory=lambda: [20, 20])  # the shared tower


@register_method("IRSSL")
class IRSSL(nn.Module):
    """Correlated masking of an item's features, with one tower for both views.

    Items are drawn uniformly from those of the training histories, not by their popularity as the
    labels' are (the paper's heterogeneous distributions); their features are the J sequences. For
    each batch one set of features is drawn, W_m = {seed} ∪ {the n features with the highest
    mutual information with it}. The first view masks it, the second masks its complement. A masked
    feature is replaced by a learned default embedding of that feature. The loss is the paper's
    InfoNCE over the items of the batch; equal items are not each other's negatives.

    The paper's n = ⌊J/2⌋ would mask both features of an item that has two, so n is at most J - 2.
    Before `prepare` is called, all features count as equally correlated and masking is random, and
    an item is a random behavior of its row's history.

    Args:
        ssl: keys that all methods share.
        settings: keys of IRSSL.
        num_sequences: J.
        dim: K.
        generator: source of all random draws.
    """

    Settings = IRSSLSettings
    behaviors_of_a_pair = 1  # both views show one item

    correlation: Tensor  # (J, J) mutual information of the item features, in nats
    items: Tensor | None = None  # (I, J) ids of the items of the training histories

    def __init__(
        self,
        ssl: SSLSettings,
        settings: IRSSLSettings,
        num_sequences: int,
        dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.temperature, self.block_size = ssl.temperature, ssl.block_size
        self.settings = settings
        self.generator = generator
        self.tower = mlp(num_sequences * dim, settings.encoder)
        self.register_buffer("correlation", torch.zeros(num_sequences, num_sequences))
        if num_sequences == 1:
            log.info(
                "IRSSL: a single item feature (J = 1) cannot be masked; the views differ by "
                "dropout on its embedding instead."
            )
        else:
            self.default = nn.Parameter(0.1 * torch.randn(num_sequences, dim))

    def prepare(self, columns: dict[str, Tensor]) -> None:
        """Collect the items of the training split, and how much their features tell of each other.

        Args:
            columns: the J sequences by name, (rows, L) ids each.
        """
        if any(behavior.mask.any() for behavior in in_parts(list(columns.values()))):
            found = catalogue(list(columns.values()), power=0).items
            self.items = found.to(self.correlation.device)
        ids = torch.stack(list(columns.values())).long()  # (J, rows, L)
        features = ids[:, (ids != 0).all(dim=0)]  # (J, behaviors)
        for i, one in enumerate(features):
            for j, other in enumerate(features[:i]):
                shared = mutual_information(one, other)
                self.correlation[i, j] = self.correlation[j, i] = shared

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw items, mask their features in two ways, and contrast them."""
        ids = self._draw(behavior).flatten(0, 1)  # (BP, J)
        items = Behavior(ids.split(1, dim=1), behavior.tables)  # each a history of one behavior
        e = items.tensor.squeeze(1)  # (BP, J, K)
        if e.shape[1] == 1:
            views = [drop(e, self.settings.dropout, self.generator) for _ in range(2)]
        else:
            masked = draw_mask(self.correlation, self.generator)[:, None]  # (J, 1)
            views = [e.where(~masked, self.default), e.where(masked, self.default)]
        first, second = self.tower(torch.stack(views).flatten(2))
        exists = items.length > 0
        loss = info_nce(
            first, second, self.temperature, items.group, mask=exists, block_size=self.block_size
        )
        similar = similarities(first, second, exists, items.group, behavior.watched)
        return SSLLosses(loss, loss.new_zeros(()), *similar)

    def _draw(self, behavior: Behavior) -> Tensor:
        """(B, P, J) ids of items."""
        shape = behavior.batch_size, self.settings.num_pairs
        if self.items is None:
            count = behavior.length[:, None].expand(shape)
            return behavior.tokens(uniform(count, self.generator))
        return self.items[integers(shape, self.generator, self.items.device) % len(self.items)]

    def __getstate__(self) -> dict[str, Any]:
        """Without the items, which a copy or a file does not need."""
        return {**self.__dict__, "items": None}


def draw_mask(correlation: Tensor, generator: torch.Generator) -> Tensor:
    """W_m as (J,) booleans: a random seed feature and the n most correlated with it."""
    features = len(correlation)
    n = max(0, min(features // 2, features - 2))
    order = torch.rand(features, generator=generator, device=correlation.device).argsort()
    by_correlation = correlation[order[:1], order[1:]].argsort(descending=True, stable=True)
    chosen = torch.cat([order[:1], order[1:][by_correlation[:n]]])  # random among equal ones
    return torch.zeros_like(order, dtype=torch.bool).index_fill(0, chosen, True)


def mutual_information(first: Tensor, second: Tensor) -> float:
    """Σ P(x, y) log( P(x, y) / (P(x) P(y)) ) of two columns of ids, in nats; 0 if empty."""
    if len(first) == 0:
        return 0.0
    pairs, count = (first * (second.max() + 1) + second).unique(return_counts=True)
    p = count.double() / len(first)
    x = _shares(first)[pairs // (second.max() + 1)]
    y = _shares(second)[pairs % (second.max() + 1)]
    return float((p * (p / (x * y)).log()).sum())


def _shares(column: Tensor) -> Tensor:
    """P(id), indexed by the id."""
    return column.bincount().double() / len(column)
