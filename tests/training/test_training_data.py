"""What a method sees of the training split before the first step."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.methods.irssl import IRSSL, mutual_information
from fuxictr_miss.methods.ppmi import information
from fuxictr_miss.training import fit

STRATEGIES = ["joint", "pretrain", "pretrain_joint"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happened to IRSSL, in order: its columns, then "step" for each batch."""
    seen: list[Any] = []
    prepare, forward = IRSSL.prepare, IRSSL.forward
    monkeypatch.setattr(
        IRSSL, "prepare", lambda self, columns: (seen.append(columns), prepare(self, columns))[1]
    )
    monkeypatch.setattr(
        IRSSL, "forward", lambda self, batch: (seen.append("step"), forward(self, batch))[1]
    )
    return seen


def trained(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, Any]]:
    changes = {"model": "DIN_IRSSL", "ssl_pretrain_epochs": 1, **changes}
    model, loaders = experiment.build({**params, **changes})
    fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"])
    return model, loaders


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_training_split_is_shown_once_and_before_the_first_step(params, calls, strategy):
    model, loaders = trained(params, ssl_training=strategy)
    assert [index for index, each in enumerate(calls) if each != "step"] == [0]
    assert list(calls[0]) == ["item_history", "cate_history"]
    for name, column in calls[0].items():
        assert torch.equal(column, loaders["train"].columns[name])
    item, category = (loaders["train"].columns[name] for name in calls[0])
    real = item != 0
    expected = mutual_information(item[real].long(), category[real].long())
    assert model._self_supervision.methods[0].correlation[0, 1].item() == pytest.approx(expected)


def test_it_is_not_shown_where_the_weight_is_zero(params, calls):
    trained(params, ssl_weight=0)
    assert calls == []


@pytest.mark.parametrize(("prepares", "shown"), [(True, 1), (False, 0)])
def test_it_is_not_shown_to_a_method_that_does_not_prepare(
    params, calls, monkeypatch, prepares, shown
):
    monkeypatch.setattr(IRSSL, "prepares", prepares, raising=False)
    trained(params)
    assert len(calls) - calls.count("step") == shown


def test_a_loader_that_keeps_nothing_in_memory_is_pointed_out(params, caplog):
    model, loaders = experiment.build({**params, "model": "DIN_IRSSL"})
    batches = list(loaders["train"])
    with caplog.at_level(logging.WARNING):
        fit(model, batches, epochs=1, validation_data=loaders["valid"])
    assert any("needs the training split in memory" in r.getMessage() for r in caplog.records)
    assert not model._self_supervision.methods[0].correlation.any()


@pytest.mark.parametrize("scaled", [False, True])
def test_such_a_loader_is_no_matter_to_miss_unless_its_temperatures_are_scaled(
    params, caplog, scaled
):
    model, loaders = experiment.build({
        **params, "model": "DIN_MISS", "ssl_recipe": "paper", "miss_scale_temperature": scaled,
    })  # fmt: skip
    with caplog.at_level(logging.WARNING):
        fit(model, list(loaders["train"]), epochs=1, validation_data=loaders["valid"])
    found = any("needs the training split in memory" in r.getMessage() for r in caplog.records)
    assert found == scaled


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_temperatures_are_those_of_the_training_histories(params, caplog, strategy):
    changes = {"miss_scale_temperature": True, "miss_separate_features": True}
    with caplog.at_level(logging.INFO):
        model, loaders = trained(params, model="DIN_MISS", ssl_training=strategy, **changes)
    expected = [
        max(0.1, min(1, 0.1 / information(loaders["train"].columns[name])))
        for name in ("item_history", "cate_history")
    ]
    method = model._self_supervision.methods[0]
    assert method.own_temperatures == pytest.approx(expected)
    assert expected[1] > 0.1
    said = f"MISS: temperature {expected[1]:.3g} of cate_history, whose ids tell "
    assert any(record.getMessage().startswith(said) for record in caplog.records)
