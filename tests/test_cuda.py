"""The same code on a GPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.evaluation import evaluate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


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


@pytest.mark.parametrize("name", ["DIN", "DIN_MISS"])
def test_a_batch_comes_without_waiting_for_the_device(params, name):
    model, loaders = experiment.build({**params, "model": name, "gpu": 0, "ssl_training": "joint"})
    model._max_gradient_norm = 10.0
    model.train()
    model.train_step(next(iter(loaders["train"])))  # what is made once
    batches = iter(loaders["train"])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            model.forward(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", [None, "bf16"])
def test_metrics_come_out_near_those_of_the_cpu(params, precision):
    params.update(group_id="cate_id", epochs=1, model="DIN_MISS")
    model, loaders = experiment.build({**params, "gpu": 0, "autocast": precision})
    reference, _ = experiment.build(params)
    model.load_state_dict(reference.state_dict())
    wanted = ["logloss", "gAUC"]
    on_cpu = evaluate(reference, experiment.build(params)[1]["test"], wanted)
    assert evaluate(model, loaders["test"], wanted) == pytest.approx(on_cpu, abs=1e-2)
    assert set(model.evaluate(loaders["test"], metrics=["AUC"])) == {"AUC"}  # FuxiCTR's own
