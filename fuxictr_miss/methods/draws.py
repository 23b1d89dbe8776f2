"""Random draws that methods make, each from the given generator only.

Where several processes share a batch, each draws for all of its rows and takes its own: a row's
draws do not depend on the number of processes. The rows of a draw are its first axis, or a multiple
of them, all of one row next to each other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fuxictr_miss.distributed import processes


def uniform(count: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform integers in [0, count), of the shape of `count`; 0 where it is not positive."""
    return integers(count.shape, generator, count.device) % count.clamp(min=1)


def integers(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Uniform integers in [0, 2^62)."""
    return _own_rows(
        lambda size: torch.randint(2**62, size, generator=generator, device=device), shape
    )


def numbers(
    shape: tuple[int, ...],
    generator: torch.Generator,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return _own_rows(
        lambda size: torch.rand(size, generator=generator, device=device, dtype=dtype), shape
    )


def _own_rows(draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...]) -> Tensor:
    """Draw for the rows of the global batch; return those of this process."""
    share = processes.share()
    if share is None or shape[0] % share.rows:  # or they are of no rows
        return draw(shape)
    times = shape[0] // share.rows
    drawn = draw((times * share.total, *shape[1:]))
    return drawn[times * share.own.start : times * share.own.stop]


def shuffle(eligible: Tensor, generator: torch.Generator) -> Tensor:
    """A random order of the eligible places.

    Args:
        eligible: (..., L) booleans.

    Returns:
        (..., L): the rank of each place among the eligible ones, uniform over all orders. Places
        that are not eligible rank behind them.
    """
    key = numbers(eligible.shape, generator, eligible.device)
    order = key.masked_fill(~eligible, torch.inf).argsort(dim=-1, stable=True)
    return order.argsort(dim=-1)


def by_weight(up_to: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Places drawn with replacement, each in proportion to its weight.

    Args:
        up_to: (V,) float64, the cumulative sums of the weights; a place of weight 0 is never drawn,
            unless all are.
        shape: of the result.
    """
    draw = numbers(shape, generator, up_to.device, up_to.dtype)
    return torch.searchsorted(up_to, draw * up_to[-1], right=True).clamp(max=len(up_to) - 1)


def by_count(up_to: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Places drawn with replacement, each in proportion to its count.

    Args:
        up_to: (V,) integers, the cumulative sums of the counts; not all are 0.
        shape: of the result.
    """
    draw = uniform(up_to[-1].expand(shape), generator)
    return torch.searchsorted(up_to, draw, right=True)


def drop(x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Dropout: a component is 0 with probability `rate`, else divided by 1 - `rate`.

    PyTorch's own dropout draws from the global generator, which a method must not use.
    """
    if rate == 0:
        return x
    kept = numbers(x.shape, generator, x.device) >= rate
    return x * kept / (1 - rate)
