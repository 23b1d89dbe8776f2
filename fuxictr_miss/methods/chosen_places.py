"""Which places of a batch a method computes, without waiting for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def chosen_places(mask: Tensor) -> Tensor:
    """The places of a mask, flattened, that are to be computed: those that it chooses.

    On a GPU these are all, and the mask must be applied again: it would have to be waited for to
    know how many it chooses.
    """
    if mask.is_cuda:
        return torch.arange(mask.numel(), device=mask.device)
    return mask.flatten().nonzero().squeeze(1)
