"""The contrastive loss of Eq. 15 and 16: InfoNCE with in-batch negatives."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fuxictr_miss.errors import InputError

# Above this many similarities at once (256 MB in float32) the product is cut into chunks.
_MAX_SIMILARITIES = 2**26


def info_nce(
    anchor: Tensor,
    positive: Tensor,
    temperature: float = 0.1,
    group: Tensor | None = None,
    chunk_size: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """InfoNCE over P sets of positive pairs, cosine similarity, in-batch negatives (Eq. 15, 16).

    -1/|valid| Σ_p Σ_x log( exp(s(z1_px, z2_px)/τ) / Σ_x' exp(s(z1_px, z2_px')/τ) )

    Args:
        anchor: z1, (B, D) or (P, B, D).
        positive: z2, same shape; row b of `anchor` and `positive` is a positive pair.
        temperature: τ > 0.
        group: (B,) integers; rows of one group are never each other's negatives.
        chunk_size: anchors per matrix product, to bound memory; None lets the size decide.
        valid: (B,) or (P, B) booleans; a row that is not valid is neither anchor nor negative.

    Returns:
        Scalar, the mean over the valid pairs; exactly 0 where there is none.

    Raises:
        InputError: τ is not positive, or shapes do not fit.
    """
    if not temperature > 0:
        raise InputError(f"The temperature must be positive, got {temperature}.")
    if anchor.shape != positive.shape or anchor.dim() not in (2, 3):
        raise InputError(
            "anchor and positive must both be (B, D) or (P, B, D), got "
            f"{tuple(anchor.shape)} and {tuple(positive.shape)}."
        )
    if anchor.dim() == 2:
        anchor, positive = anchor.unsqueeze(0), positive.unsqueeze(0)
    p, b, _ = anchor.shape
    if valid is None:
        valid = anchor.new_ones((p, b), dtype=torch.bool)
    valid = valid.expand(p, b)
    weight = valid / valid.sum().clamp(min=1)  # 1/(|B| P) of Eq. 15, over the pairs that exist
    weight = weight.to(anchor.dtype)
    anchor = F.normalize(anchor, dim=-1)
    positive = F.normalize(positive, dim=-1)
    if chunk_size is None:
        if p * b * b <= _MAX_SIMILARITIES:
            return _one_product(anchor, positive, temperature, group, valid, weight)
        chunk_size = max(1, _MAX_SIMILARITIES // (4 * p * b))
    loss: Tensor = _Chunked.apply(anchor, positive, temperature, group, valid, weight, chunk_size)
    return loss


def _one_product(
    anchor: Tensor,
    positive: Tensor,
    temperature: float,
    group: Tensor | None,
    valid: Tensor,
    weight: Tensor,
) -> Tensor:
    logits = anchor @ positive.mT / temperature  # (P, B, B), row = anchor
    rows = torch.arange(logits.shape[1], device=logits.device)
    logits = logits.masked_fill(_not_negatives(rows, group, valid), -torch.inf)
    own = logits.diagonal(dim1=1, dim2=2)
    return ((logits.logsumexp(dim=-1) - own) * weight).sum()


def _not_negatives(rows: Tensor, group: Tensor | None, valid: Tensor) -> Tensor:
    """(P, len(rows), B): True where column x' must not stand in the denominator of a row x."""
    excluded = ~valid.unsqueeze(1)  # (P, 1, B)
    columns = torch.arange(valid.shape[1], device=valid.device)
    if group is not None:
        excluded = excluded | (group[rows, None] == group[None, :])
    return excluded & (rows[:, None] != columns[None, :])  # the positive itself always stays


class _Chunked(torch.autograd.Function):
    """The same sum, `chunk_size` anchors at a time.

    The loss is a scalar, so its gradient is known up to one factor as soon as a chunk's softmax
    is: both gradients are summed up in the forward pass and no similarity outlives its chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        positive: Tensor,
        temperature: float,
        group: Tensor | None,
        valid: Tensor,
        weight: Tensor,
        chunk_size: int,
    ) -> Tensor:
        b = anchor.shape[1]
        loss = anchor.new_zeros(())
        grad_anchor, grad_positive = torch.zeros_like(anchor), torch.zeros_like(positive)
        for rows in torch.arange(b, device=anchor.device).split(chunk_size):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            logits = anchor[:, part] @ positive.mT / temperature  # (P, c, B)
            logits.masked_fill_(_not_negatives(rows, group, valid), -torch.inf)
            lse = logits.logsumexp(dim=-1, keepdim=True)
            own = logits.diagonal(offset=part.start, dim1=1, dim2=2)
            loss += ((lse.squeeze(-1) - own) * weight[:, part]).sum()
            softmax = logits.sub_(lse).exp_()
            softmax.diagonal(offset=part.start, dim1=1, dim2=2).sub_(1)
            softmax *= weight[:, part, None] / temperature
            grad_anchor[:, part] = softmax @ positive
            grad_positive += softmax.mT @ anchor[:, part]
        ctx.save_for_backward(grad_anchor, grad_positive)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_anchor, grad_positive = ctx.saved_tensors
        (scale,) = grad_outputs
        return scale * grad_anchor, scale * grad_positive, None, None, None, None, None
