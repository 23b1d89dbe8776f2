"""Import what a training run needs, as fast as possible."""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType


def import_experiment() -> ModuleType:
    """Import `fuxictr_miss.experiment` with the garbage collector disabled.

    The collector would scan all imported modules repeatedly, a fifth of the import time, and free
    nothing.
    """
    gc.disable()
    try:
        _leave_dynamo_out()
        return importlib.import_module("fuxictr_miss.experiment")
    finally:
        gc.freeze()  # exclude the modules from collections during training, too
        gc.enable()


def _leave_dynamo_out() -> None:
    """Keep PyTorch's optimizers from importing torch._dynamo, a third of the import time.

    They import it at first use, to exclude four of their methods from compilation. Our commands
    compile nothing. If PyTorch changes this mechanism, it only imports torch._dynamo again.
    """
    from torch.optim import Optimizer

    for method in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        function = getattr(getattr(Optimizer, method), "__wrapped__", None)
        if function is not None and "torch._dynamo" not in sys.modules:
            function.__dynamo_disable = function
