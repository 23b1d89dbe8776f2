"""A method computes the same on a GPU, where it computes places that a CPU leaves out."""

from __future__ import annotations

import importlib

import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.methods.chosen_places import chosen_places
from fuxictr_miss.self_supervision import self_supervision_of
from fuxictr_miss.training.training_data import inspect_training_data


def test_the_places_of_a_mask_are_those_of_its_flat_form():
    mask = torch.tensor([[True, False], [False, True]])
    assert chosen_places(mask).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("name", "changes"),
    [("MAP", {"map_task": "MFP"}), ("MAP", {"map_task": "RFD"}),
     ("NextItem", {"nextitem_dropout": 0.0})],
)  # fmt: skip
def test_losses_and_gradients_are_those_of_the_chosen_places(params, monkeypatch, name, changes):
    model, loaders = experiment.build({**params, "model": f"DIN_{name}", **changes})
    inspect_training_data(model, loaders["train"])
    ssl, batch = self_supervision_of(model), next(iter(loaders["train"]))

    def losses() -> list[torch.Tensor]:
        ssl.generator.manual_seed(5)
        model.zero_grad()
        found = ssl.losses(model, batch)
        found.ssl.backward()
        gradients = [p.grad for p in ssl.trained(model) if p.grad is not None]
        return [found.ssl, found.similarity, *gradients]

    expected = losses()
    module = importlib.import_module(f"fuxictr_miss.methods.{name.lower()}")
    monkeypatch.setattr(module, "chosen_places", lambda mask: torch.arange(mask.numel()))
    torch.testing.assert_close(losses(), expected)
