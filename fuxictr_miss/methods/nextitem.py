"""NextItem: a causal Transformer that predicts the next behavior of a history (SASRec's task)."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.values import Count, NonNegative, Switch
from fuxictr_miss.distributed import processes
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.catalogue import Catalogue, catalogue
from fuxictr_miss.methods.chosen_places import chosen_places
from fuxictr_miss.methods.draws import by_weight
from fuxictr_miss.methods.encoders import mean_similarity
from fuxictr_miss.methods.transformer import TransformerMethod, TransformerSettings


@dataclasses.dataclass(frozen=True)
class NextItemSettings(TransformerSettings):
    """The keys of NextItem: `nextitem_` and the field's name."""

    negatives: Count = 256  # N, drawn for each batch and shared by all its behaviors
    power: NonNegative = 0.0  # of an item's frequency in the draw; 1: as negatives in the batch
    log_q: Switch = True  # whether scores are corrected for it; False: relative to popularity
    heads: Count = 1


@register_method("NextItem")
class NextItem(TransformerMethod):
    """SASRec's task (arXiv 1808.09781) by a sampled softmax, as generative pretraining for CTR.

    The state h_l of a causal Transformer over behaviors 1 to l scores every item i by h_l · e_i,
    where e_i is what the Transformer reads of an item, too: the J embeddings of its attributes,
    concatenated, so that a score is the sum over attributes. The loss of the next item t is

        -log( exp(h · e_t) / (exp(h · e_t) + Σ_k exp(h · e_k - log(N q_k))) ),

    the sum over N items k ≠ t drawn with the probabilities q, proportional to count^power over the
    training rows. The correction log(N q_k) makes the sum an unbiased estimate of that over all
    other items of the training rows, whatever q is. Without it (`nextitem_log_q: False`) and with
    power 1, a score learns how much more likely an item is than its popularity says, as in InfoNCE
    and skip-gram; validation prefers that for frozen tables (PNN, CDs .905 against .894, Beauty
    .827 against .828). L is the mean over histories of the mean over
    their next behaviors; `ssl_pretrain_sampling: pairs` makes that the mean over all next
    behaviors.

    SASRec has one negative and a binary loss, which gSASRec (arXiv 2308.07192) shows to be
    overconfident; its cure is hundreds of negatives and a calibrated binary loss. Here a sampled
    softmax takes the place of the latter, as in GPSD (arXiv 2506.03699). GPSD then moves tables and
    Transformer to a CTR model and freezes the tables. Here only tables move, as the backbone has no
    such Transformer: `ssl_training: pretrain` with `ssl_label_gradient: 0`. The blocks are those of
    the other methods here, with LayerNorm behind each part, learned positions and no RoPE. Cosines
    over `ssl_temperature` in place of h · e were tried (CDs, PNN: validation AUC .887 against
    .894), so this loss does not use it.

    A step costs a Transformer over the behaviors of B histories, short ones by themselves, and a
    product of each with N items: four to seven times as much as MISS under the recommended recipe.
    """

    Settings = NextItemSettings
    settings: NextItemSettings
    catalogue: Catalogue | None = None  # of the training rows; None: that of the batch

    def prepare(self, columns: dict[str, Tensor]) -> None:
        """Collect the items of the training split.

        Args:
            columns: the J sequences by name, (rows, L) ids each.
        """
        found = catalogue(list(columns.values()), self.settings.power)
        self.catalogue = Catalogue(*(each.to(self.encoder.position.device) for each in found))

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Predict each behavior but the first from all before it."""
        h, target, ids, weight = self._predictions(behavior)
        if self.catalogue is None and len(h) == 0:
            nothing = h.sum()
            return SSLLosses(nothing, nothing.detach(), nothing.detach())
        items, up_to, log_q = self.catalogue or catalogue(behavior.columns, self.settings.power)
        count = self.settings.negatives
        with processes.sharing(None):  # the same in every process
            drawn = by_weight(up_to, (count,), self.generator)
        negative = Behavior(items[drawn].split(1, dim=1), behavior.tables).tensor.flatten(1)
        own = torch.linalg.vecdot(h, target).unsqueeze(1)  # (T, 1)
        others = h @ negative.T  # (T, N)
        if self.settings.log_q:
            others = others - (log_q[drawn] + math.log(count)).to(h.dtype)
        same = ids[:, :1] == items[drawn, 0]
        for j in range(1, ids.shape[1]):
            same &= ids[:, j, None] == items[drawn, j]
        logits = torch.cat([own, others.masked_fill(same, -torch.inf)], dim=1)
        first = logits.new_zeros(len(h), dtype=torch.long)
        terms = F.cross_entropy(logits, first, reduction="none")
        loss = (terms * weight).sum() / processes.number_of_pairs(weight, least=1e-12)
        similarity = mean_similarity(h, target, weight > 0)
        return SSLLosses(loss, loss.new_zeros(()), similarity)

    @torch.no_grad()
    def scores(self, behavior: Behavior, items: Tensor) -> Tensor:
        """h · e_i of one item a row, h the state after its whole history.

        Args:
            behavior: the histories.
            items: (B, J) ids.

        Returns:
            (B,); 0 for an empty history.
        """
        h = self.encoder(behavior.tensor.flatten(2), behavior.length)
        e = Behavior(items.split(1, dim=1), behavior.tables).tensor.flatten(1)
        return torch.linalg.vecdot(h, e) * (behavior.length > 0)

    def _predictions(self, behavior: Behavior) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All behaviors but the first of each history, and the states that predict them.

        Returns:
            (T, JK) states; (T, JK) embeddings; (T, J) ids; (T,) one over the number in the history,
            0 for a place without a behavior.
        """
        x, ids = behavior.tensor.flatten(2), behavior.tokens(behavior.indices)
        last = (behavior.length - 1).clamp(min=0)
        states = self.encoder.states(x[:, :-1], last)
        exists = behavior.indices[:, :-1] < last[:, None]
        weight = exists / last.clamp(min=1).to(x.dtype)[:, None]
        chosen = chosen_places(exists)
        h, target, ids, weight = (
            each.flatten(0, 1)[chosen] for each in (states, x[:, 1:], ids[:, 1:], weight)
        )
        return h, target, ids, weight
