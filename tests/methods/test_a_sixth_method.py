"""The README's own method is one class and one registration, with nothing edited anywhere."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fuxictr_miss as fm
from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods import base
from fuxictr_miss.training import fit

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
SOURCE = next(
    block
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    if "register_method" in block
)


@pytest.fixture(autouse=True)
def halves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The method in a file of its own, imported as one's own package would be."""
    monkeypatch.setattr(base, "_methods", dict(base._methods))
    (tmp_path / "my_sixth_method.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_sixth_method", None)
    importlib.import_module("my_sixth_method")


def trained(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, float]]:
    model, loaders = experiment.build({**params, **changes})
    fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"])
    return model, model.evaluate(loaders["test"])


def test_it_takes_thirty_lines():
    assert len([line for line in SOURCE.splitlines() if line]) <= 30


def test_it_is_known_on_every_backbone():
    assert "Halves" in fm.list_methods()
    assert {"DIN_Halves", "PNN_Halves", "FiGNN_Halves"} <= set(fm.list_models())


@pytest.mark.parametrize("strategy", ["joint", "pretrain", "pretrain_joint"])
@pytest.mark.parametrize("model", ["DIN_Halves", "DNN_Halves"])
def test_it_trains_under_every_strategy(params, model, strategy):
    changes = {"model": model, "ssl_training": strategy, "ssl_pretrain_epochs": 1}
    _, first = trained(params, **changes)
    _, second = trained(params, **changes)
    assert first == second


def test_its_weight_zero_gives_the_plain_backbone(params):
    plain, metrics = trained(params, model="DIN")
    model, with_zero = trained(params, model="DIN_Halves", ssl_weight=0)
    assert metrics == with_zero
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in plain.state_dict().items())


def test_its_keys_are_read_and_checked_like_ours(params):
    model, _ = experiment.build({**params, "model": "DIN_Halves", "halves_width": 8})
    assert model._self_supervision.methods[0].encoder.out_features == 8
    for wrong in ({"halves_widht": 8}, {"halves_width": "8"}):
        with pytest.raises(InputError, match="halves_width"):
            experiment.build({**params, "model": "DIN_Halves", **wrong})
