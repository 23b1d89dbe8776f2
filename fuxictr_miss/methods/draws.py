"""Random draws that several methods make, each from the given generator only."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(count: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform integers in [0, count), of the shape of `count`; 0 where it is not positive."""
    draw = torch.randint(2**62, count.shape, generator=generator, device=count.device)
    return draw % count.clamp(min=1)


def shuffle(eligible: Tensor, generator: torch.Generator) -> Tensor:
    """A random order of the eligible places.

    Args:
        eligible: (..., L) booleans.

    Returns:
        (..., L): the rank of each place among the eligible ones, uniform over all orders. Places
        that are not eligible rank behind them.
    """
    key = torch.rand(eligible.shape, generator=generator, device=eligible.device)
    order = key.masked_fill(~eligible, torch.inf).argsort(dim=-1, stable=True)
    return order.argsort(dim=-1)


def by_weight(up_to: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Places drawn with replacement, each in proportion to its weight.

    Args:
        up_to: (V,) float64, the cumulative sums of the weights; a place of weight 0 is never drawn,
            unless all are.
        shape: of the result.
    """
    draw = torch.rand(shape, generator=generator, device=up_to.device, dtype=up_to.dtype)
    return torch.searchsorted(up_to, draw * up_to[-1], right=True).clamp(max=len(up_to) - 1)


def drop(x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Dropout: a component is 0 with probability `rate`, else divided by 1 - `rate`.

    PyTorch's own dropout draws from the global generator, which a method must not use.
    """
    if rate == 0:
        return x
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= rate
    return x * kept / (1 - rate)
