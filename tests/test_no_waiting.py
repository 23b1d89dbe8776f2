"""A training step never waits for a GPU: no number of a tensor is asked for.

PyTorch's fake tensors have a shape and no values, so they refuse what would need one: `int(x)`,
`if x:`, `x[mask]`. They are of the CPU here, and say that they are of a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)

from fuxictr_miss import behavior, experiment
from fuxictr_miss.methods.base import list_methods
from fuxictr_miss.self_supervision import self_supervision_of
from fuxictr_miss.training.training_data import inspect_training_data

WAITS = (DataDependentOutputException, DynamicOutputShapeException)
NAMES = ["DIN", "PNN", *(f"DIN_{name}" for name in list_methods() if name != "PPMI")]


@pytest.fixture
def without_values(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    monkeypatch.setattr(FakeTensor, "is_cuda", property(lambda _: True))
    yield FakeTensorMode(allow_non_fake_inputs=True)
    behavior._multipliers.cache_clear()  # they are fakes now


@pytest.mark.parametrize("changes", [{}, {"miss_far_share": 0.5, "map_task": "RFD"}])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_asks_for_no_value(params, without_values, name, changes):
    model, loaders = experiment.build({**params, "model": name, "ssl_training": "joint", **changes})
    inspect_training_data(model, loaders["train"])  # methods look at the training rows once
    if (ssl := self_supervision_of(model)) is not None:
        ssl.begin_epoch()
    batch = next(iter(loaders["train"]))
    with without_values as mode:
        fake = {column: mode.from_tensor(values) for column, values in batch.items()}
        loss = model.compute_loss(model.forward(fake), model.get_labels(fake))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)


@pytest.mark.parametrize("ask", [int, bool, torch.nonzero, lambda x: x[x > 0], torch.unique])
def test_a_question_for_a_value_would_be_seen(without_values, ask):
    with without_values as mode, pytest.raises(WAITS):
        ask(mode.from_tensor(torch.ones(1)))
