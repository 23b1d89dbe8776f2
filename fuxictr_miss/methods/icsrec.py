"""ICSRec: intent contrastive learning with cross subsequences (arXiv 2310.14318)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.values import Count, Rate
from fuxictr_miss.distributed import processes
from fuxictr_miss.losses import nt_xent
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.draws import uniform
from fuxictr_miss.methods.encoders import similarities
from fuxictr_miss.methods.same_target import SameTargetMethod
from fuxictr_miss.methods.transformer import TransformerSettings


@dataclasses.dataclass(frozen=True)
class ICSRecSettings(TransformerSettings):
    """The keys of ICSRec: `icsrec_` and the field's name."""

    intents: Count = 256  # clusters of subsequences
    clustered: Count = 4096  # random subsequences that are clustered, before each epoch
    iterations: Count = 20  # of k-means
    dropout: Rate = 0.1  # published: 0.5 at a width of 64


@register_method("ICSRec")
class ICSRec(SameTargetMethod):
    """Subsequences of one target share a coarse intent, those of one cluster a fine one.

    A random behavior of a history is the target, those before it are a subsequence, of which a
    causal Transformer makes a state. Two losses contrast them by NT-Xent:

        coarse  (L_ssl)   the states of two subsequences with the same target; other subsequences
                          of that target are no negatives
        fine    (L'_ssl)  a state and the centre of its cluster, for both subsequences; states of
                          that cluster are no negatives

    Where the training split has no other subsequence of a target, the same one is encoded again.
    The paper's λ is `ssl_weight` and its β is `ssl_feature_weight`, equal unless set.

    Clusters are those of k-means (Lloyd's iterations from random states). The authors' code finds
    them with faiss among all subsequences before each epoch, five times, and keeps the best; here
    it is once, among random ones. The code trains on all subsequences; here a step draws one of
    each history. States are compared by their cosine over `ssl_temperature`, there by the inner
    product with τ = 1. Beside it the paper predicts the next item; here that place is the label
    loss's.

    A step costs two passes of the Transformer, as one of CL4SRec does, and a clustering as much as
    some thirty passes.
    """

    Settings = ICSRecSettings
    settings: ICSRecSettings
    centres: Tensor | None = None  # (intents, JK), of this epoch

    def begin_epoch(self) -> None:
        """Forget the clusters: the first step finds new ones."""
        self.centres = None

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw a target of each history, encode two subsequences before it, and contrast."""
        first, second, item, exists = self.pairs(behavior)
        coarse = nt_xent(first, second, self.temperature, item, exists)
        fine = coarse.new_zeros(())
        if self.centres is None:
            self.centres = self._cluster(behavior.tables)
        if self.centres is not None:
            for state in (first, second):
                intent = nearest(state.detach(), self.centres)
                centre = self.centres[intent]
                fine = fine + nt_xent(state, centre, self.temperature, intent, exists)
        similar = similarities(first, second, exists, item, behavior.watched)
        return SSLLosses(coarse, fine, *similar)

    @torch.no_grad()
    def _cluster(self, tables: Sequence[nn.Module]) -> Tensor | None:
        """(intents, JK) centres of the states of random subsequences; None if there are none."""
        if not self.index:
            return None
        keys, index = self.settings, self.index
        count = torch.tensor(len(index), device=self.generator.device)
        training, _ = self.training, self.eval()
        with processes.sharing(None):  # every process finds the same clusters
            chosen = uniform(count.expand(keys.clustered), self.generator)
            parts = [index.older(part, tables) for part in chosen.split(512)]
            states = [self.encoder(part.tensor.flatten(2), part.length) for part in parts]
            found = k_means(torch.cat(states), keys.intents, keys.iterations, self.generator)
        self.train(training)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Without the clusters, too."""
        return {**super().__getstate__(), "centres": None}


def k_means(x: Tensor, clusters: int, iterations: int, generator: torch.Generator) -> Tensor:
    """The centres of k-means, by Lloyd's iterations from random points.

    Args:
        x: (N, D) points.
        clusters: at most N centres are found.
        iterations: of assigning the points and moving the centres.
        generator: source of all randomness.

    Returns:
        (min(clusters, N), D). A centre that loses all of its points stays.
    """
    centres = x[torch.randperm(len(x), generator=generator, device=x.device)[:clusters]]
    for _ in range(iterations):
        member = F.one_hot(nearest(x, centres), len(centres)).to(x.dtype)  # (N, clusters)
        count = member.sum(dim=0).unsqueeze(1)
        centres = torch.where(count > 0, member.T @ x / count.clamp(min=1), centres)
    return centres


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """(N,) the index of the nearest centre (clusters, D) of each point (N, D)."""
    return (centres.square().sum(dim=1) - 2 * x @ centres.T).argmin(dim=1)
