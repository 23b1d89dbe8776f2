"""The same code on a GPU; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.losses import fused, info_nce
from fuxictr_miss.methods.base import list_methods
from fuxictr_miss.training.evaluation import evaluate
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.phases import phases_of
from fuxictr_miss.training.training_data import inspect_training_data

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
NAMES = ["DIN", "PNN", *(f"DIN_{name}" for name in list_methods() if name != "PPMI")]


def test_batches_on_a_device_are_those_on_the_cpu(params):
    _, there = experiment.build({**params, "gpu": 0})
    _, here = experiment.build(params)
    for a, b in zip(there["train"], here["train"], strict=True):
        for name in a:
            assert a[name].is_cuda
            assert torch.equal(a[name].cpu(), b[name])


def test_columns_that_do_not_fit_come_to_the_device_batch_by_batch(params, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    _, loaders = experiment.build({**params, "gpu": 0})
    assert not loaders["train"].columns["item_history"].is_cuda
    assert next(iter(loaders["train"]))["item_history"].is_cuda


@contextmanager
def no_waiting() -> Iterator[None]:
    """An operation that waits for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", NAMES)
def test_a_step_does_not_wait_for_the_device(params, name):
    model, loaders = experiment.build({**params, "model": name, "gpu": 0, "ssl_training": "joint"})
    inspect_training_data(model, loaders["train"])
    model._max_gradient_norm = 10.0
    model.train()
    batches = iter(loaders["train"])
    model.train_step(next(batches))  # what is made once
    with no_waiting():
        for _ in range(3):
            model.train_step(next(batches))


@pytest.mark.parametrize("name", NAMES[2:])
def test_a_pretraining_step_does_not_wait_for_the_device(params, name):
    changes = {"model": name, "gpu": 0, "ssl_training": "pretrain", "ssl_label_gradient": 0.0}
    model, loaders = experiment.build({**params, **changes})
    inspect_training_data(model, loaders["train"])
    loop = FuxiCTRLoop(model, loaders["valid"], "")
    with loop.during_fit(10.0):
        phase = phases_of(loop, loaders["train"], 1)[0]()
        steps = phase.steps(0)
        next(steps)
        with no_waiting():
            next(steps)


@pytest.mark.parametrize("name", ["DIN", "DIN_MISS"])
def test_a_run_on_the_device_ends_near_one_on_the_cpu(params, tmp_path, name):
    changes = {"model": name, "metrics": ["logloss"], "monitor": "logloss", "monitor_mode": "min"}
    there, here = (
        experiment.run({**params, **changes, "gpu": gpu, "model_root": str(tmp_path / str(gpu))})
        for gpu in (0, -1)
    )
    assert there["test_logloss"] == pytest.approx(here["test_logloss"], abs=0.05)


@pytest.mark.parametrize("shape", [(1, 3000, 8), (24, 128, 10)])
def test_infonce_and_its_gradient_are_those_of_the_cpu(shape, monkeypatch):
    monkeypatch.setattr(fused, "SIMILARITIES_ON_A_GPU", 2**21)  # several parts
    draw = torch.Generator().manual_seed(1)
    views = [torch.randn(shape, dtype=torch.float64, generator=draw) for _ in range(2)]
    group = torch.randint(shape[1] // 2, shape[1:2], generator=draw)
    found = []
    for device in ("cpu", "cuda"):
        anchor, positive = (each.to(device).clone().requires_grad_() for each in views)
        loss = info_nce(anchor, positive, 0.1, group.to(device))
        loss.backward()
        found.append([loss.detach(), anchor.grad, positive.grad])
    torch.testing.assert_close([each.cpu() for each in found[1]], found[0])


# untrained, all predictions are near 0.5, where bfloat16 has steps of 0.004: no gAUC
@pytest.mark.parametrize(
    ("precision", "metrics"), [(None, ["logloss", "gAUC"]), ("bf16", ["logloss"])]
)
def test_metrics_come_out_near_those_of_the_cpu(params, precision, metrics):
    params.update(group_id="cate_id", epochs=1, model="DIN_MISS")
    model, loaders = experiment.build({**params, "gpu": 0, "autocast": precision})
    reference, here = experiment.build(params)
    model.load_state_dict(reference.state_dict())
    on_cpu = evaluate(reference, here["test"], metrics)
    assert evaluate(model, loaders["test"], metrics) == pytest.approx(on_cpu, abs=1e-2)
    assert set(model.evaluate(loaders["test"], metrics=["AUC"])) == {"AUC"}  # FuxiCTR's own
