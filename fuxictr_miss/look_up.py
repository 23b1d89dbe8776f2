"""Rows of an embedding table for the contrastive losses, with a gradient that costs little.

PyTorch makes a gradient as large as the table of every look-up and adds it to the backbone's; on a
CPU its own way to sum up the rows is slower than `index_put_`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def look_up(table: nn.Module, ids: Tensor, beside: bool = False) -> Tensor:
    """Embeddings of ids; padding is zero and sends no gradient into the table.

    Args:
        table: a module that embeds ids to K dimensions.
        ids: (...) token ids, int64; 0 is padding.
        beside: whether another loss sends the table a dense gradient in the same step: ours may
            then be a sparse one, to be added to it.

    Returns:
        (..., K).
    """
    if type(table) is nn.Embedding and table.padding_idx == 0:
        return _Rows.apply(table.weight, ids, beside) if ids.is_cpu else table(ids)
    return table(ids) * (ids != 0).unsqueeze(-1)


def keep_dense(table: nn.Module) -> None:
    """Make a sparse gradient dense that no other loss has sent one to; optimizers ask for that."""
    if type(table) is nn.Embedding and table.weight.requires_grad:
        table.weight.register_post_accumulate_grad_hook(partial(_make_dense, table))


def _make_dense(table: nn.Embedding, weight: Tensor) -> None:
    if weight.grad is not None and weight.grad.is_sparse and not table.sparse:
        weight.grad = weight.grad.to_dense()


class _Rows(torch.autograd.Function):
    """Rows of a (rows, K) weight on the CPU, whose row 0 is all zeros."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, beside: bool) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.sparse = weight.shape, beside and ids.numel() < len(weight)
        return weight.index_select(0, ids.reshape(-1)).view(*ids.shape, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (ids,), (grad,) = ctx.saved_tensors, grad_outputs
        if ctx.sparse:
            real = grad * (ids != 0).unsqueeze(-1)
            rows = torch.sparse_coo_tensor(
                ids.reshape(1, -1), real.flatten(0, -2), ctx.shape, check_invariants=False
            )
            return rows, None, None
        total = grad.new_zeros(ctx.shape)
        total.index_put_((ids,), grad, accumulate=True)
        total[0] = 0
        return total, None, None
