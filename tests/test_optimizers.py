"""Adam in one kernel is PyTorch's to rounding, and takes the place of FuxiCTR's only."""

from __future__ import annotations

import torch
from torch import nn

from fuxictr_miss import experiment
from fuxictr_miss.optimizers import FusedAdam

RATE = 0.01


def test_fused_adam_is_adam_to_rounding():
    weights = []
    for make in (torch.optim.Adam, FusedAdam):
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = make(model.parameters(), lr=RATE)
        for _ in range(50):
            optimizer.zero_grad()
            (model(torch.randn(16, 6)) - 1).square().mean().backward()
            optimizer.step()
        weights.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)


def test_groups_and_their_rates_are_kept(params):
    model, _ = experiment.build({**params, "model": "DIN_MISS", "learning_rate": 0.02})
    assert type(model.optimizer) is FusedAdam
    optimized = [p for group in model.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in optimized} == {id(p) for p in model.parameters()}
    assert model.lr_decay(0.5) == 0.01
    assert {group["lr"] for group in model.optimizer.param_groups} == {0.01}


def test_other_optimizers_stay_fuxictrs(params):
    model, _ = experiment.build({**params, "optimizer": "Adagrad"})
    assert type(model.optimizer) is torch.optim.Adagrad
