"""Run a model's forward pass in bfloat16 and its losses in float32."""

from __future__ import annotations

import functools
from typing import Any

import torch
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.errors import InputError
from fuxictr_miss.generated_classes import Generated


@functools.cache
def autocast(model_class: type[BaseModel], precision: str | None) -> type[BaseModel]:
    """Derive a class of the same name whose matrix products run in a lower precision.

    Weights, optimizer and losses stay in float32, and so does the self-supervised part: cosines
    divided by a temperature of 0.1 need more than the 8 bits of a bfloat16.

    Args:
        model_class: plain or enhanced.
        precision: "bf16", in training and in `eval()`; None returns the class unchanged.

    Raises:
        InputError: at construction, the GPU has no bfloat16.
    """
    if precision is None:
        return model_class
    body = {
        "__doc__": model_class.__doc__,
        "__module__": model_class.__module__,
        "_made_by": (autocast, (model_class, precision)),
    }
    return Generated(model_class.__name__, (_InBfloat16, model_class), body)


class _InBfloat16(BaseModel, metaclass=Generated):
    """Mixin in front of a model's class."""

    def __init__(self, *args: Any, **params: Any) -> None:
        super().__init__(*args, **params)
        if self.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise InputError("This GPU does not support bfloat16: remove autocast from the config.")

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        with torch.autocast(self.device.type, torch.bfloat16):
            outputs = super().forward(inputs)
        return {
            name: value.float() if getattr(value, "dtype", None) == torch.bfloat16 else value
            for name, value in outputs.items()
        }
