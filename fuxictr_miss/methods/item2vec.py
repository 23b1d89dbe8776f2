"""Item2Vec: skip-gram with negative sampling over histories (arXiv 1603.04259)."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior, in_parts
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.config.values import Count, NonNegative, Positive
from fuxictr_miss.distributed import processes
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.draws import by_weight, uniform
from fuxictr_miss.methods.encoders import mean_similarity


@dataclasses.dataclass(frozen=True)
class Item2VecSettings:
    """The keys of Item2Vec: `item2vec_` and the field's name."""

    window: Count | None = None  # the largest distance of a pair; None: any, as published
    num_pairs: Count = 12  # pairs drawn from a history
    negatives: Count = 15  # ids drawn for each pair
    power: NonNegative = 0.75  # of an id's frequency in the draw of negatives
    subsample: Positive | None = 1e-3  # ρ: ids of a larger share count less; None: all count alike


class Unigrams(NamedTuple):
    """What the frequency of the ids of one sequence decides."""

    up_to: Tensor  # (V,) float64 cumulative weights of the draw of negatives
    kept: Tensor  # (V,) share of an id's occurrences that subsampling keeps


@register_method("Item2Vec")
class Item2Vec(nn.Module):
    """Skip-gram with negative sampling (arXiv 1603.04259), the oldest rival.

    Two behaviors i and j of one history, at most `item2vec_window` apart, are a pair. With u the
    row of the backbone's table and v a row of an output table that only this method has,

        L = -log σ(u_i · v_j / τ - log N) - Σ_k log σ(log N - u_i · v_k / τ),

    the sum over N ids k ≠ j, drawn for the pair in proportion to count^power over the training
    rows. At its optimum u_i · v_j / τ is about PMI(i, j) (Levy and Goldberg 2014), which `_PPMI`
    factorises. An occurrence of an id with the share f of all counts min(1, sqrt(ρ / f)).

    It differs from the published one in these points. Without log N, all scores would lie far
    below 0, which takes one of K dimensions and more epochs (CDs, PNN: validation AUC .892 after 60
    epochs without it, .900 after 30 with it). τ (`ssl_temperature`) only makes the vectors shorter,
    so that a step of Adam turns them further (.913). A step draws P pairs of a history, all within
    the window alike, instead of listing all; `ssl_pretrain_sampling: pairs` makes that the
    published sum in expectation. Subsampling weighs the pairs instead of discarding some, and does
    not widen the window. Each of the J attributes has its own loss, and L is their mean. The output
    table starts at random, as the backbone's own starts near 0. The paper ends with the vectors;
    here they are a CTR model's frozen tables: `ssl_training: pretrain` with
    `ssl_label_gradient: 0`.

    A step reads B P (N + 2) J rows of K numbers, whatever the length of the histories, and costs
    2.5 times as much as MISS under the recommended recipe. The second table is as large as the
    backbone's; serving does not have it.

    Args:
        ssl: keys that all methods share.
        settings: keys of Item2Vec.
        num_sequences: J.
        dim: K.
        generator: source of all random draws.
    """

    Settings = Item2VecSettings

    def __init__(
        self,
        ssl: SSLSettings,
        settings: Item2VecSettings,
        num_sequences: int,
        dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.temperature = ssl.temperature
        self.settings, self.dim, self.generator = settings, dim, generator
        self.unigrams: list[Unigrams] | None = None  # None: those of the batch

    def open_tables(self, sizes: list[int]) -> None:
        """Make the output tables, (V, K) each.

        Args:
            sizes: V of each sequence.
        """
        tables = (0.1 * torch.randn(size, self.dim) for size in sizes)
        self.output = nn.ParameterList(nn.Parameter(table) for table in tables)

    def prepare(self, columns: dict[str, Tensor]) -> None:
        """Count the ids of the training split.

        Args:
            columns: the J sequences by name, (rows, L) ids each.
        """
        self.unigrams = self._count(list(columns.values()))

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw pairs and negatives, and tell them apart."""
        pairs, exists = draw_pairs(
            behavior.length,
            behavior.max_len,
            self.settings.window,
            self.settings.num_pairs,
            self.generator,
        )
        u = behavior.embed(pairs[..., 0])  # (B, P, J, K)
        centre, context = behavior.tokens(pairs).unbind(2)  # (B, P, J) each
        mask = exists.unsqueeze(1).expand(pairs.shape[:2])  # (B, P)
        losses, similarities = [], []
        shift = math.log(self.settings.negatives)
        unigrams = self.unigrams or self._count(list(behavior.columns))
        for j, (table, (up_to, kept)) in enumerate(zip(self.output, unigrams, strict=True)):
            shape = (*pairs.shape[:2], self.settings.negatives)
            drawn = by_weight(up_to, shape, self.generator)  # (B, P, N)
            u_i, v_j = u[..., j, :] / self.temperature, table[context[..., j]]  # (B, P, K)
            own = torch.linalg.vecdot(u_i, v_j) - shift  # (B, P)
            others = (table[drawn] @ u_i.unsqueeze(-1)).squeeze(-1) - shift  # (B, P, N)
            others = F.logsigmoid(-others) * (drawn != context[..., j, None])
            weight = kept[centre[..., j]] * kept[context[..., j]] * mask
            terms = (-F.logsigmoid(own) - others.sum(dim=-1)) * weight
            losses.append(terms.sum() / processes.number_of_pairs(weight, least=1e-12))
            similarities.append(mean_similarity(u_i, v_j, mask))
        loss = torch.stack(losses).mean()
        return SSLLosses(loss, loss.new_zeros(()), torch.stack(similarities).mean())

    def _count(self, columns: list[Tensor]) -> list[Unigrams]:
        """The unigrams of each sequence, over the behaviors of these rows."""
        counts = [torch.zeros(len(table), dtype=torch.int64) for table in self.output]
        for behavior in in_parts(columns):
            for count, column in zip(counts, behavior.columns, strict=True):
                count += column[behavior.mask].cpu().bincount(minlength=len(count))
        device = self.output[0].device
        return [
            Unigrams(*(each.to(device) for each in unigrams(count.double(), self.settings)))
            for count in counts
        ]


def unigrams(count: Tensor, settings: Item2VecSettings) -> Unigrams:
    """Weights of the ids from their counts (V,), float64; padding has none."""
    weight = (count**settings.power).where(count > 0, 0)
    share = count / count.sum().clamp(min=1)
    if settings.subsample is None:
        return Unigrams(weight.cumsum(0), torch.ones_like(share))
    return Unigrams(weight.cumsum(0), (settings.subsample / share).sqrt().clamp(max=1))


def draw_pairs(
    length: Tensor,
    max_len: int,
    window: int | None,
    num_pairs: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Random pairs of behaviors of one history, all pairs and both orders equally likely.

    Args:
        length: (B,) behaviors per row, n.
        max_len: L, the largest n.
        window: the largest distance; None: any.
        num_pairs: P.
        generator: source of all randomness.

    Returns:
        (B, P, 2) indices of different behaviors; (B,) booleans: whether the history has a pair.
    """
    longest = max(max_len - 1, 1)
    h = torch.arange(1, min(window or longest, longest) + 1, device=length.device)
    pairs = (length[:, None] - h).clamp(min=0).cumsum(dim=1)  # (B, H) of a distance up to h
    pair = uniform(pairs[:, -1:].expand(-1, num_pairs), generator)
    closer = torch.searchsorted(pairs, pair, right=True).clamp(max=len(h) - 1)
    first = pair - F.pad(pairs, (1, 0)).gather(1, closer)
    ends = torch.stack([first, first + closer + 1], dim=-1)
    turned = uniform(torch.full_like(pair, 2), generator).bool().unsqueeze(-1)
    return ends.flip(-1).where(turned, ends), length >= 2
