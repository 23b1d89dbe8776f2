"""Let batch normalisation train on a batch of one row.

Fault: FuxiCTR's loaders (fuxictr/pytorch/dataloaders) keep a last batch of one row, as there is
whenever rows % batch_size == 1. One row has no variance, and the `BatchNorm1d` of MLP_Block and of
many models raises an error.
Obsolete when FuxiCTR's layers take one row.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fuxictr_miss.distributed import processes


def tolerate_one_row(model: nn.Module) -> None:
    """Let every `BatchNorm1d` of the model use its running statistics for a batch of one row.

    Parameters, `state_dict` and larger batches are not affected. A second call has no effect.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d) and not _is_tolerant(module):
            pause = _Pause()
            module.register_forward_pre_hook(pause.begin)
            module.register_forward_hook(pause.end, always_call=True)


def _is_tolerant(norm: nn.Module) -> bool:
    hooks = norm._forward_pre_hooks.values()
    return any(isinstance(getattr(hook, "__self__", None), _Pause) for hook in hooks)


class _Pause:
    """Puts one `BatchNorm1d` into `eval()` mode for one call."""

    def __init__(self) -> None:
        self.on = False

    def begin(self, norm: nn.Module, inputs: tuple[Tensor]) -> None:
        if norm.training and inputs[0].shape[0] <= 1 and processes.share() is None:
            self.on = True
            norm.eval()

    def end(self, norm: nn.Module, *_: Any) -> None:
        if self.on:
            self.on = False
            norm.train()
