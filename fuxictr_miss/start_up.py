"""From a command to its first step: what a run imports, at once."""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType


def import_experiment() -> ModuleType:
    """`fuxictr_miss.experiment`, imported with the garbage collector at rest.

    The collector would go through everything imported so far time and again, a fifth of the whole,
    and find nothing: modules stay.
    """
    gc.disable()
    try:
        _leave_dynamo_out()
        return importlib.import_module("fuxictr_miss.experiment")
    finally:
        gc.freeze()  # nor is any of it looked at during training
        gc.enable()


def _leave_dynamo_out() -> None:
    """Keep PyTorch's optimizers from importing torch._dynamo, a third of all that is imported.

    They do at their first use, to tell the compiler that it must not look into four of their
    methods. A command compiles nothing; where PyTorch changes, the import is back and nothing else.
    """
    from torch.optim import Optimizer

    for method in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        function = getattr(getattr(Optimizer, method), "__wrapped__", None)
        if function is not None and "torch._dynamo" not in sys.modules:
            function.__dynamo_disable = function
