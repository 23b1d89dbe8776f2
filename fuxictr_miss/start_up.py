"""From a command to its first step: what a run imports, at once."""

from __future__ import annotations

import gc
import importlib
from types import ModuleType


def import_experiment() -> ModuleType:
    """`fuxictr_miss.experiment`, imported with the garbage collector at rest.

    The collector would go through everything imported so far time and again, a fifth of the whole,
    and find nothing: modules stay. With it comes torch._dynamo, which PyTorch's optimizers import
    at their first use.
    """
    gc.disable()
    try:
        importlib.import_module("torch._dynamo")
        return importlib.import_module("fuxictr_miss.experiment")
    finally:
        gc.freeze()  # nor is any of it looked at during training
        gc.enable()
