"""PyTorch's fused Adam for FuxiCTR's models."""

from __future__ import annotations

import torch
from fuxictr.pytorch.models import BaseModel


def set_optimizer(model: BaseModel, name: str) -> None:
    """Let a new model's Adam run as one kernel: equal up to rounding, without a Python loop.

    Args:
        model: plain or enhanced, not trained yet.
        name: the config's `optimizer`; unless it is Adam, nothing changes.
    """
    if name.lower() == "adam":
        groups = [
            {key: group[key] for key in ("params", "lr")} for group in model.optimizer.param_groups
        ]
        model.optimizer = torch.optim.Adam(groups, fused=True)
