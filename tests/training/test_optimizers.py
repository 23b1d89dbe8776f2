"""Adam in one kernel takes the place of FuxiCTR's Adam only."""

from __future__ import annotations

import torch

from fuxictr_miss import experiment


def test_groups_and_their_rates_are_kept(params):
    model, _ = experiment.build({**params, "model": "DIN_MISS", "learning_rate": 0.02})
    assert type(model.optimizer) is torch.optim.Adam
    assert model.optimizer.defaults["fused"]
    optimized = [p for group in model.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in optimized} == {id(p) for p in model.parameters()}
    assert model.lr_decay(0.5) == 0.01
    assert {group["lr"] for group in model.optimizer.param_groups} == {0.01}


def test_other_optimizers_stay_fuxictrs(params):
    model, _ = experiment.build({**params, "optimizer": "Adagrad"})
    assert type(model.optimizer) is torch.optim.Adagrad
