"""A training step never waits for a GPU: it asks for no number of a tensor, and sends none there.

Here the meta device stands for a GPU. Its tensors have a shape and no values, so they refuse what
would need one: `int(x)`, `if x:`, `x[mask]`. `NoCopies` refuses what PyTorch copies from the CPU.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fuxictr_miss import experiment
from fuxictr_miss.methods.base import list_methods
from fuxictr_miss.self_supervision import self_supervision_of
from fuxictr_miss.training.training_data import inspect_training_data

GPU = torch.device("meta")
WAITS = (RuntimeError, NotImplementedError)
NAMES = ["DIN", "PNN", *(f"DIN_{name}" for name in list_methods() if name != "PPMI")]


class NoCopies(TorchDispatchMode):
    """Refuse an operation of the GPU on a tensor of the CPU, but for a number beside tensors."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        number_too = "copy" in str(operation) or "index_put" in str(operation)
        for each in tree_leaves(args) if isinstance(result, Tensor) and result.is_meta else ():
            if isinstance(each, Tensor) and not each.is_meta and (each.dim() or number_too):
                raise RuntimeError(f"{operation} copies from the CPU.")
        return result


class NoNumbers(TorchFunctionMode):
    """Refuse `torch.tensor(numbers)`, `x[[0, 1]]` and `x[indices] = 1`, which copies its number."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
            result = function(*args, **(kwargs or {}))
            if result.is_meta and not isinstance(args[-1], Tensor):
                raise RuntimeError("The numbers of a list are copied from the CPU.")
            return result
        if function in (Tensor.__getitem__, Tensor.__setitem__):
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            number = function is Tensor.__setitem__ and not isinstance(args[2], Tensor)
            if any(isinstance(each, (list, Tensor) if number else list) for each in places):
                raise RuntimeError("The numbers of a list are copied from the CPU.")
        return function(*args, **(kwargs or {}))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda tensor: tensor.is_meta))
    monkeypatch.setattr(torch, "autocast", lambda *args, **keys: contextlib.nullcontext())


def to_gpu(thing: Any, seen: set[int]) -> Any:
    """Put the tensors that a method keeps beside its parameters on the other device."""
    if isinstance(thing, Tensor):
        return thing.to(GPU)
    if isinstance(thing, (list, tuple)):
        there = [to_gpu(each, seen) for each in thing]
        return type(thing)(*there) if hasattr(thing, "_fields") else type(thing)(there)
    ours = type(thing).__module__.startswith("fuxictr_miss")
    if (ours or isinstance(thing, torch.nn.Module)) and id(thing) not in seen:
        seen.add(id(thing))
        for name, value in vars(thing).items():
            if not isinstance(thing, torch.nn.Module) or not name.startswith("_"):
                vars(thing)[name] = to_gpu(value, seen)
    return thing


@pytest.mark.parametrize("changes", [{}, {"miss_far_share": 0.5, "map_task": "RFD"}])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_waits_for_nothing(params, gpu, name, changes):
    model, loaders = experiment.build({**params, "model": name, "ssl_training": "joint", **changes})
    inspect_training_data(model, loaders["train"])  # methods look at the training rows once
    if (ssl := self_supervision_of(model)) is not None:
        ssl.begin_epoch()
    batch = {column: values.to(GPU) for column, values in next(iter(loaders["train"])).items()}
    model.to(GPU).device = GPU
    seen: set[int] = set()
    for module in model.modules():
        to_gpu(module, seen)

    def step() -> None:
        loss = model.compute_loss(model.forward(batch), model.get_labels(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)

    step()  # what is made once
    with NoCopies(), NoNumbers():
        step()


@pytest.mark.parametrize(
    "wait",
    [
        *(int, bool, torch.nonzero, lambda x: x[x > 0], torch.unique),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: torch.as_tensor(0.1, device=x.device),
        lambda x: x[[0]],
        lambda x: x[torch.tensor([0])],
        lambda x: torch.ones(3).to(x.device),
        lambda x: x.index_put((x.long(),), torch.tensor(1.0)),
        lambda x: x.__setitem__(x.long(), 1.0),
    ],
)
def test_a_wait_would_be_seen(gpu, wait):
    x = torch.ones(1, device=GPU)
    with NoCopies(), NoNumbers(), pytest.raises(WAITS):
        wait(x)
