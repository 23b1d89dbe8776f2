"""Contrastive losses with in-batch negatives: InfoNCE of Eq. 15 and 16, and NT-Xent."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

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
        InputError: τ or `chunk_size` is not positive, or shapes do not fit.
    """
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"chunk_size must be 1 or more, got {chunk_size}.")
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
    # 1/(|B| P) of Eq. 15, over the pairs that exist
    weight = valid.to(anchor.dtype) / valid.sum().clamp(min=1)
    anchor = F.normalize(anchor, dim=-1)
    positive = F.normalize(positive, dim=-1)
    if chunk_size is None:
        if p * b * b <= _MAX_SIMILARITIES:
            return _one_product(anchor, positive, temperature, group, valid, weight)
        chunk_size = max(1, _MAX_SIMILARITIES // (4 * p * b))
    loss: Tensor = _Chunked.apply(anchor, positive, temperature, group, valid, weight, chunk_size)
    return loss


def nt_xent(
    first: Tensor,
    second: Tensor,
    temperature: float = 0.1,
    group: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """NT-Xent of SimCLR (arXiv 2002.05709): each of 2B views against the 2(B - 1) of other rows.

    -1/(2|valid|) Σ_i log( exp(s(z_i, z_i⁺)/τ) / Σ_{k≠i} exp(s(z_i, z_k)/τ) ), s the cosine

    Args:
        first: (B, D) one view of each row.
        second: (B, D) the other.
        temperature: τ > 0.
        group: (B,) integers; rows of one group are never each other's negatives.
        valid: (B,) booleans; a row that is not valid is neither anchor nor negative.

    Returns:
        Scalar, the mean over both views of the valid rows; exactly 0 where there is none.

    Raises:
        InputError: τ is not positive, or shapes do not fit.
    """
    if not temperature > 0:
        raise InputError(f"The temperature must be positive, got {temperature}.")
    if first.shape != second.shape or first.dim() != 2:
        raise InputError(
            f"first and second must both be (B, D), got {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    b = len(first)
    z = F.normalize(torch.cat([first, second]), dim=-1)  # (2B, D)
    row = torch.arange(b, device=z.device).repeat(2)  # (2B,) the row a view is of
    valid = first.new_ones(b, dtype=torch.bool) if valid is None else valid
    group = row if group is None else group.repeat(2)
    excluded = ~valid.repeat(2) | (group[:, None] == group)  # (2B, 2B), row = anchor
    views = torch.arange(2 * b, device=z.device)
    twin = views.roll(b)
    excluded[views, twin] = False  # the positive itself always stays
    logits = (z @ z.mT / temperature).masked_fill(excluded, -torch.inf)
    own = logits.gather(1, twin.unsqueeze(1)).squeeze(1)
    weight = valid.repeat(2).to(z.dtype) / (2 * valid.sum()).clamp(min=1)
    return ((logits.logsumexp(dim=-1) - own) * weight).sum()


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
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_anchor, grad_positive = ctx.saved_tensors
        (scale,) = grad_outputs
        return scale * grad_anchor, scale * grad_positive, None, None, None, None, None
