"""MAP: a model-agnostic pretraining framework for CTR prediction (arXiv 2308.01737)."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.config.values import Count, LayerSizes, PositiveRate
from fuxictr_miss.distributed import processes
from fuxictr_miss.errors import InputError
from fuxictr_miss.fields import Fields
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.chosen_places import chosen_places
from fuxictr_miss.methods.draws import by_count, shuffle
from fuxictr_miss.methods.encoders import mean_similarity, mlp


@dataclasses.dataclass(frozen=True)
class MAPSettings:
    """The keys of MAP: `map_` and the field's name."""

    task: Literal["MFP", "RFD"] = "MFP"  # masked feature prediction, replaced feature detection
    ratio: PositiveRate = 0.3  # γ, share of a row's ids that are masked or replaced; at least one
    negatives: Count = 25  # k noise ids for each masked one
    hidden_units: LayerSizes = dataclasses.field(default_factory=lambda: [64, 64])  # of the encoder


@register_method("MAP")
class MAP(nn.Module):
    """Spoil some ids of a row, and recover them from the others; no history is needed.

    Some of a row's ids are drawn, ⌊γn⌋ of n, and at least one. An MLP encodes the spoiled row.

        MFP  the ids are masked by a learned vector. For each field f a linear layer g_f turns the
             code z into a vector, whose inner product with the vector of an id is the id's score
             s. Noise contrastive estimation tells the masked id from k noise ids of its field,
             drawn by their frequencies q:
             L = -log σ(d(masked)) - Σ log(1 - σ(d(noise))),    d = s + b - log V_f - log(k q)
             The bias b of an id is log(V_f q), so that d = s - log k: a score says how much
             likelier the row makes an id than its frequency does.
        RFD  the ids are replaced by others of their field, drawn by frequency. A layer of ReLUs and
             a linear one tell for each id whether it was replaced; L is the binary cross-entropy.

    The paper pretrains the embedding *and* the feature interaction layers of a backbone and then
    trains all of it. Backbones have no interface for the latter; here the MLP takes their place,
    only the tables go on to the labels. Its code has output vectors of their own in MFP, 32 wide,
    over the features of all fields; here they are the table's own, and noise is of the field. Its
    biases begin at the same values, and train. Numbers and histories (the mean of their behaviors)
    are never spoiled. Rows of either label count alike, as published: negatives that a protocol has
    drawn at random, as in the splits of the Amazon logs, teach it pairs that mean nothing.

    The method is meant for pretraining and fine-tuning: `ssl_training: pretrain` with
    `ssl_label_gradient: 1`. A whole run of PNN on Amazon Beauty, with the start of Python and of
    the data, takes 41 s of CPU with 25 epochs of MFP, 36 s with RFD, 7 s without MAP.

    Args:
        ssl: keys that all methods share.
        settings: keys of MAP.
        num_fields: F.
        dim: K.
        generator: source of all random draws.

    Raises:
        InputError: there is one field alone.
    """

    Settings = MAPSettings
    reads = "fields"

    def __init__(
        self,
        ssl: SSLSettings,
        settings: MAPSettings,
        num_fields: int,
        dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if num_fields < 2:
            raise InputError(
                "MAP recovers one feature from the others and needs two or more, but the model "
                "embeds only one."
            )
        self.settings = settings
        self.generator = generator
        self.up_to: list[Tensor] = []  # (V_f,) for each field, how often the ids up to one occur
        self.encoder = mlp(num_fields * dim, settings.hidden_units)
        width = settings.hidden_units[-1]
        self.recover = nn.Linear(width, num_fields * dim)
        if settings.task == "MFP":
            self.mask_token = nn.Parameter(0.1 * torch.randn(dim))
        else:
            self.detect = nn.Linear(num_fields * dim, num_fields)

    def prepare(self, columns: dict[str, Tensor]) -> None:
        """Count the ids of the training split.

        Raises:
            InputError: no feature is a single id.
        """
        nothing = torch.zeros(1, dtype=torch.long)
        is_id = [c.dim() == 1 and not c.is_floating_point() for c in columns.values()]
        if not any(is_id):
            raise InputError(
                f"MAP masks or replaces categorical features, but {', '.join(columns)} are numbers "
                "or histories: add one of type categorical to feature_cols."
            )
        self.up_to = []
        for column, counted in zip(columns.values(), is_id, strict=True):
            counts = column.long().bincount(minlength=1) if counted else nothing
            counts[0] = 0  # padding
            self.up_to.append(counts.cumsum(0).to(self.recover.weight.device))

    def forward(self, fields: Fields) -> SSLLosses:
        """Spoil ids of each row, encode it, and recover them."""
        eligible = fields.ids > 0
        count = (eligible.sum(dim=1) * self.settings.ratio).floor().clamp(min=1)
        spoiled = eligible & (shuffle(eligible, self.generator) < count.unsqueeze(1))  # (B, F)
        task = self._predict if self.settings.task == "MFP" else self._detect
        loss, similarity = task(fields, spoiled)
        return SSLLosses(loss, loss.new_zeros(()), similarity)

    def _predict(self, fields: Fields, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Masked feature prediction: the mean over the masked ids, and their similarity."""
        x = self.mask_token.where(masked.unsqueeze(-1), fields.vectors)
        g = self.recover(self.encoder(x.flatten(1)).relu()).view_as(x)  # (B, F, K)
        total = g.new_zeros(())
        for f in _of_ids(fields):
            rows = chosen_places(masked[:, f])
            target = fields.ids[rows, f]
            up_to = self._counts(fields, f)
            shape = len(masked), self.settings.negatives
            noise = by_count(up_to, shape, self.generator)[rows]
            ids = torch.cat([target.unsqueeze(1), noise], dim=1)  # (b, 1 + k)
            s = torch.linalg.vecdot(fields.embed(f, ids), g[rows, f].unsqueeze(1))
            d = s - math.log(self.settings.negatives)
            is_masked = masked[rows, f].unsqueeze(1)
            is_target = torch.zeros_like(d)
            is_target[:, 0] = 1
            each = F.binary_cross_entropy_with_logits(d, is_target, reduction="none")
            total = total + (each * is_masked).sum()
        similarity = mean_similarity(g, fields.vectors, masked)
        return total / processes.number_of_pairs(masked), similarity

    def _detect(self, fields: Fields, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Replaced feature detection: the mean over all ids; there are no pairs to compare."""
        x, replaced = fields.vectors.clone(), torch.zeros_like(chosen)
        for f in _of_ids(fields):
            rows = chosen_places(chosen[:, f])
            other = by_count(self._counts(fields, f), chosen.shape[:1], self.generator)[rows]
            is_chosen = chosen[rows, f]
            x[rows, f] = fields.embed(f, other).where(is_chosen.unsqueeze(1), x[rows, f])
            replaced[rows, f] = (other != fields.ids[rows, f]) & is_chosen
        hidden = self.recover(self.encoder(x.flatten(1)).relu()).relu()
        each = F.binary_cross_entropy_with_logits(
            self.detect(hidden), replaced.to(x.dtype), reduction="none"
        )
        eligible = fields.ids > 0
        return (each * eligible).sum() / processes.number_of_pairs(eligible), x.new_zeros(())

    def _counts(self, fields: Fields, field: int) -> Tensor:
        """(V,) how often the ids up to one occur; before `prepare`, each counts as often."""
        if self.up_to:
            return self.up_to[field]
        return torch.arange(fields.sizes[field], device=fields.ids.device)


def _of_ids(fields: Fields) -> list[int]:
    """The fields of one id a row; all processes draw for the same ones."""
    return [f for f, kind in enumerate(fields.kinds) if kind == "categorical"]
