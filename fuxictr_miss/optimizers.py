"""Adam for FuxiCTR's models in one kernel."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from fuxictr.pytorch.models import BaseModel


class FusedAdam(torch.optim.Adam):
    """PyTorch's Adam in one kernel: the same to float rounding, without a loop in Python."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        # Adam's own, without what is around it: that imports torch._dynamo (see start_up.py)
        return inspect.unwrap(torch.optim.Adam.step)(self, closure)


def set_optimizer(model: BaseModel, name: str) -> None:
    """Replace a new model's Adam by `FusedAdam`; learning rates stay.

    Args:
        model: plain or enhanced, not trained yet.
        name: what the config says; with any other optimizer the model keeps what FuxiCTR gave it.
    """
    if name.lower() != "adam":
        return
    groups = [
        {key: group[key] for key in ("params", "lr")} for group in model.optimizer.param_groups
    ]
    model.optimizer = FusedAdam(groups, groups[0]["lr"])
