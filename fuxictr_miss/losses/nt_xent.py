"""NT-Xent of SimCLR (https://arxiv.org/abs/2002.05709), Eq. 1."""

from __future__ import annotations

import torch
from torch import Tensor

from fuxictr_miss.distributed import processes
from fuxictr_miss.losses.checks import check_masks, check_views
from fuxictr_miss.losses.info_nce import info_nce


def nt_xent(
    first: Tensor,
    second: Tensor,
    temperature: float | Tensor = 0.1,
    group: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """NT-Xent: each of 2B views against its twin and the 2(B - 1) views of other rows.

    -1/(2|mask|) Σ_i log( exp(s(z_i, z_i⁺)/τ) / Σ_{k≠i} exp(s(z_i, z_k)/τ) ), s the cosine

    Args:
        first: (B, D) one view of each row.
        second: (B, D) the other.
        temperature: τ > 0, a number or a scalar tensor, which may be learnable.
        group: (B,) integers; rows of one group are never each other's negatives. None: every row
            is a group of its own.
        mask: (B,) booleans; a row outside the mask is neither anchor nor negative. None: all rows
            are in it.

    Returns:
        Scalar, the mean over both views of the rows in the mask; exactly 0 if there is none.

    Raises:
        InputError: the temperature is not positive, or shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from fuxictr_miss.losses import nt_xent
        >>> views = torch.ones(4, 2)
        >>> nt_xent(views, views)  # all alike: log(2 * 4 - 1)
        tensor(1.9459)
    """
    check_views("first and second", first, second, (2,))
    check_masks(first, group, mask)
    # InfoNCE of 2B pairs (z_i, z_i⁺) in which the two views of a row are of one group
    if group is None:
        share = processes.share()
        group = torch.arange(len(first), device=first.device) + (share.own.start if share else 0)
    return info_nce(
        torch.cat([first, second]),
        torch.cat([second, first]),
        temperature,
        group.repeat(2),
        mask=None if mask is None else mask.repeat(2),
    )
