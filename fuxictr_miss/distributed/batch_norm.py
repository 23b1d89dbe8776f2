"""Batch normalisation over the global batch, whose rows several processes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.distributed import processes

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d)


@contextmanager
def synchronised_batch_norm(model: nn.Module) -> Iterator[None]:
    """Let a model's batch normalisation use the statistics of the global batch.

    PyTorch's `SyncBatchNorm` does so on GPUs only. With one process nothing changes.
    """
    found: list[Any] = [each for each in model.modules() if isinstance(each, _KINDS)]
    norms = found if processes.world_size() > 1 else []
    for norm in norms:
        norm.forward = partial(_forward, norm, norm.forward)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _forward(norm: Any, plain: Any, x: Tensor) -> Tensor:
    if processes.share() is None or not norm.training:
        return plain(x)
    y, mean, variance, count = _Normalised.apply(x, norm.weight, norm.bias, norm.eps)
    if norm.track_running_stats:
        norm.num_batches_tracked += 1
        share = norm.momentum
        share = 1 / float(norm.num_batches_tracked) if share is None else share
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(variance * (count / (count - 1)), share)
    return y


class _Normalised(torch.autograd.Function):
    """x (rows, C, ...) normalised; the mean, the variance, and how many values a channel has."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        others = [axis for axis in range(x.dim()) if axis != 1]
        own_variance, own_mean = torch.var_mean(x, others, correction=0)
        count = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        own_square = own_variance.double() + own_mean.double() ** 2  # as doubles: they cancel out
        own = torch.cat([count, own_mean * count, own_square * count])
        count, mean, square = processes.total(own).split([1, *2 * [x.shape[1]]])
        mean = mean / count
        variance = (square / count - mean**2).clamp(min=0).to(x.dtype)
        mean = mean.to(x.dtype)
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps, ctx.has_bias = eps, bias is not None
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        count = count.to(x.dtype)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        # with fixed statistics; then what flows through the mean and the variance is added
        by_x, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(), x.contiguous(), scale, mean, variance, None, None, False,
            ctx.eps, [True, True, True],
        )  # fmt: skip
        sums = processes.total(torch.stack([by_weight, by_bias])) / count.to(x.dtype)
        inverse = (variance + ctx.eps).rsqrt()
        by_variance = scale * inverse**2 * sums[0]
        by_mean = scale * inverse * sums[1] - mean * by_variance
        shape = (1, -1, *[1] * (x.dim() - 2))
        by_x -= torch.addcmul(by_mean.view(shape), x, by_variance.view(shape))
        return (
            by_x,
            by_weight if weight is not None else None,
            by_bias if ctx.has_bias else None,
            None,
        )
