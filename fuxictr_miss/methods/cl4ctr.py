"""CL4CTR: a contrastive learning framework for CTR prediction (arXiv 2212.00522)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.config.values import Count, NonNegative, Rate
from fuxictr_miss.distributed import processes
from fuxictr_miss.fields import Fields
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.draws import drop
from fuxictr_miss.methods.encoders import mean_similarity
from fuxictr_miss.methods.transformer import TransformerBlock

SMOOTHING = 1e-4  # of the cosines, as published: tables start with vectors of length 1e-4 here


@dataclasses.dataclass(frozen=True)
class CL4CTRSettings:
    """The keys of CL4CTR: `cl4ctr_` and the field's name."""

    mask: Literal["random", "feature", "dimension"] = "random"  # what a view leaves out of (F, K)
    mask_ratio: Rate = 0.5  # share of it that is left out
    encoder: Literal["transformer", "cross"] = "transformer"  # the feature interaction encoder
    layers: Count = 3  # of the encoder
    dropout: Rate = 0.0  # of the Transformer; published: 0.2
    field_weight: NonNegative = 0.01  # β of alignment and uniformity, beside 1 for the contrast


@register_method("CL4CTR")
class CL4CTR(nn.Module):
    """Three losses that shape the vectors of all features; no history is needed.

        L = L_cl + β (L_a + L_u)

        L_cl  two masked views of a row go through one encoder of feature interactions and a
              linear layer each: their mean squared distance; there are no negatives
        L_a   alignment: the mean squared distance of the vectors that a field has in two rows
        L_u   uniformity: the mean cosine of the vectors of two fields in one row

    `ssl_weight` is the paper's α, and β is relative to it. The paper sums L_a and L_u over all
    features of all fields; its authors' code, as this does, over those of the batch, which also
    weighs features by their frequency. The code's L_u also counts the cosine of a vector with
    itself, which makes it (F - 1) / F of this one and a constant; 1e-4 in the denominator is here,
    too. A view is masked as by dropout,
    with the rest scaled up; the published feature and dimension masks do not scale. The
    linear layers begin alike; independent ones, as published, begin with a loss so large that the
    global clip cuts the labels' gradient to a sixth. The Transformer is this package's, with a
    feed-forward part of 4 K instead of 128. A history is a field: the mean of its behaviors.

    L_cl and L_a are least where a field has one vector for all of its features. So the method is a
    regularizer of joint training, as published; as a pretraining it lets the tables collapse.

    A step costs the encoder on 2B rows of F vectors. A whole run of PNN on Amazon Beauty,
    with the start of Python and of the data, takes 24 s of CPU, 13 s with the cross layers, 7 s
    without CL4CTR.

    Args:
        ssl: keys that all methods share.
        settings: keys of CL4CTR.
        num_fields: F.
        dim: K.
        generator: source of all random draws.
    """

    Settings = CL4CTRSettings
    reads = "fields"

    def __init__(
        self,
        ssl: SSLSettings,
        settings: CL4CTRSettings,
        num_fields: int,
        dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.generator = generator
        if settings.encoder == "transformer":
            self.layers = nn.ModuleList(
                TransformerBlock(dim, 1, settings.dropout, generator)
                for _ in range(settings.layers)
            )
        else:
            self.layers = nn.ModuleList(
                nn.Linear(num_fields * dim, 1) for _ in range(settings.layers)
            )
        self.projections = nn.ModuleList(nn.Linear(num_fields * dim, dim) for _ in range(2))
        self.projections[1].load_state_dict(self.projections[0].state_dict())

    def forward(self, fields: Fields) -> SSLLosses:
        """Compare two masked views of each row, and the vectors of fields."""
        x, present = fields.vectors, fields.present
        exists = present.any(dim=1)
        first, second = (
            projection(self._encode(self._masked(x))) for projection in self.projections
        )
        distance = (first - second).square().sum(dim=-1)
        contrast = (distance * exists).sum() / processes.number_of_pairs(exists)
        share = processes.share()
        everyone = x, present
        if share is not None and share.gather:
            everyone = processes.gather(x), processes.gather(present, gradient=False)
        regularity = alignment(*everyone) + uniformity(x, present)
        loss = contrast + self.settings.field_weight * regularity
        return SSLLosses(loss, loss.new_zeros(()), mean_similarity(first, second, exists))

    def _masked(self, x: Tensor) -> Tensor:
        """A view (B, F, K) of the fields: a part is zero, the rest scaled up."""
        kept = {"random": x, "feature": x[..., :1], "dimension": x[:, :1]}[self.settings.mask]
        return x * drop(torch.ones_like(kept), self.settings.mask_ratio, self.generator)

    def _encode(self, x: Tensor) -> Tensor:
        """(B, F, K) -> (B, FK), by the Transformer or by DCN's cross layers."""
        if self.settings.encoder == "transformer":
            for block in self.layers:
                x = block(x, x)
            return x.flatten(1)
        start = h = x.flatten(1)
        for layer in self.layers:
            h = start * layer(h) + h
        return h


def alignment(x: Tensor, present: Tensor) -> Tensor:
    """L_a: the mean of ||x_if - x_jf||² over all fields f and pairs of rows i < j that have it.

    Args:
        x: (B, F, K) vectors, zeros where a field is absent.
        present: (B, F) booleans.

    Returns:
        A scalar; 0 if no field is in two rows.
    """
    rows = present.sum(dim=0)  # (F,)
    mean = x.sum(dim=0) / rows.clamp(min=1).unsqueeze(-1)
    squares = ((x - mean).square().sum(dim=-1) * present).sum(dim=0)
    pairs = rows * (rows - 1) / 2
    return (rows * squares).sum() / pairs.sum().clamp(min=1)  # Σ_{i<j} ||x_i - x_j||² = n Σ ...


def uniformity(x: Tensor, present: Tensor) -> Tensor:
    """L_u: the mean cosine of x_if and x_ig over all rows i and pairs of fields f < g that it has.

    Args:
        x: (B, F, K) vectors, zeros where a field is absent.
        present: (B, F) booleans.

    Returns:
        A scalar; 0 if no row has two fields.
    """
    length = torch.linalg.vector_norm(x, dim=-1)
    cosine = x @ x.mT / (length.unsqueeze(1) * length.unsqueeze(2) + SMOOTHING)  # (B, F, F)
    pairs = (present.unsqueeze(1) & present.unsqueeze(2)).triu(1)
    return (cosine * pairs).sum() / processes.number_of_pairs(pairs)
