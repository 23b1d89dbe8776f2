"""PyTorch's fused Adam for FuxiCTR's models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from fuxictr.pytorch.models import BaseModel


class FusedAdam(torch.optim.Adam):
    """PyTorch's Adam as one fused kernel: equal up to rounding, without a Python loop."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        # without the decorators of Adam.step, which import torch._dynamo (see start_up.py)
        return inspect.unwrap(torch.optim.Adam.step)(self, closure)


def set_optimizer(model: BaseModel, name: str) -> None:
    """Replace a new model's Adam by `FusedAdam`, with the same parameter groups and rates.

    Args:
        model: plain or enhanced, not trained yet.
        name: the config's `optimizer`; unless it is Adam, nothing changes.
    """
    if name.lower() != "adam":
        return
    groups = [
        {key: group[key] for key in ("params", "lr")} for group in model.optimizer.param_groups
    ]
    model.optimizer = FusedAdam(groups, groups[0]["lr"])
