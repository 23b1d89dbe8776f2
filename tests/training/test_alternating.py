"""Joint training in which no label moves the behaviors' tables: what each kind of step changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.training import fit
from fuxictr_miss.training.alternating import JOINT_EPOCHS
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.pretraining import Pretraining

pytestmark = pytest.mark.trained_number

OWN = {"ssl_training": "joint", "ssl_label_gradient": 0.0, "ssl_other_gradient": 0.0,
       "ssl_pretrain_epochs": 4, "ssl_row_norm": "log_count", "miss_num_pairs": 2}  # fmt: skip
TABLE = "embedding_layer.embedding_layers.item_id.weight"


def build(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, Any]]:
    return experiment.build({**params, "model": "DIN_MISS", "model_id": "run", **OWN, **changes})


def train(params: dict[str, Any], epochs: int = 2, **changes: Any) -> tuple[Any, list[Any]]:
    model, loaders = build(params, **changes)
    rows = fit(model, loaders["train"], epochs=epochs, validation_data=loaders["valid"])
    return model, rows


def test_the_tables_become_those_of_a_pretraining_to_the_bit(params, monkeypatch):
    ends: list[torch.Tensor] = []
    end = Pretraining.end

    def spy(self: Any) -> None:
        end(self)
        ends.append(self.model.state_dict()[TABLE].clone())

    monkeypatch.setattr(Pretraining, "end", spy)
    train(params)
    train(params, ssl_training="pretrain")
    assert len(ends) == 2
    assert torch.equal(*ends)


def test_after_a_pretraining_the_joint_phase_is_the_same_one(params):
    """A joint phase on the same rows would train the tables by too few contrastive steps."""
    _, alone = train(params, ssl_thaw=True)
    _, after = train(params, ssl_training="pretrain_joint", ssl_thaw=True)
    pretrained = [row for row in after if row["phase"] == "pretrain"]
    assert len(pretrained) == OWN["ssl_pretrain_epochs"]
    rest = after[len(pretrained) :]
    assert [row["phase"] for row in rest][:3] == [row["phase"] for row in alone][:3]
    assert {row["phase"] for row in rest} == {"joint", "thaw", "restart"}
    both = [
        ["ssl_loss" in row for row in rows if row["phase"] == "joint"] for rows in (alone, rest)
    ]
    assert any(both[0])
    assert both[0][: sum(both[0]) + 1] == both[1][: sum(both[0]) + 1]


def test_label_steps_leave_the_tables_alone_and_contrastive_ones_the_tower(params, monkeypatch):
    changed: dict[str, set[str]] = {"label": set(), "contrastive": set()}

    def spy_on(kind: type, name: str, label: str) -> None:
        original = getattr(kind, name)

        def before_and_after(self: Any, *args: Any) -> Any:
            before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
            result = original(self, *args)
            after = dict(self.model.named_parameters())
            changed[label] |= {n for n, old in before.items() if not torch.equal(old, after[n])}
            return result

        monkeypatch.setattr(kind, name, before_and_after)

    spy_on(FuxiCTRLoop, "step", "label")
    spy_on(Pretraining, "step", "contrastive")
    model, _ = train(params, epochs=1)
    ssl = model._self_supervision
    own = {n for n, p in model.named_parameters() if any(p is each for each in ssl.trained(model))}
    tables = {n for n, _ in model.named_parameters() if n.startswith("embedding_layer")}
    assert changed["contrastive"] == own
    assert TABLE in own
    assert changed["label"] == {n for n, _ in model.named_parameters()} - own - tables


def test_the_clip_of_label_steps_counts_no_gradient_of_what_they_leave_alone(params, monkeypatch):
    step, steps = FuxiCTRLoop.step, []

    def spy(self: Any, *args: Any) -> torch.Tensor:
        loss = step(self, *args)
        parameters = self.model.named_parameters()
        own = [p for n, p in parameters if n == TABLE or n.startswith("_self_supervision")]
        steps.append(all(p.grad is None for p in own))
        return loss

    monkeypatch.setattr(FuxiCTRLoop, "step", spy)
    train(params, epochs=1)
    assert all(steps)


def test_contrastive_steps_stand_evenly_between_the_label_steps(params, monkeypatch):
    order: list[str] = []
    for kind, letter in ((FuxiCTRLoop, "L"), (Pretraining, "C")):
        step = kind.step  # type: ignore[attr-defined]

        def spy(self: Any, *args: Any, step: Any = step, letter: str = letter) -> Any:
            order.append(letter)
            return step(self, *args)

        monkeypatch.setattr(kind, "step", spy)
    train(params, epochs=1, ssl_pretrain_batch_size=5)
    between = "".join(order).rstrip("L").split("L")[1:]
    counts = {len(run) for run in between}
    assert max(counts) - min(counts) <= 1
    assert sum(map(len, between)) == order.count("C") > 4


def test_early_stopping_counts_from_the_last_contrastive_step(params, monkeypatch):
    def worse_and_worse(*_: Any, **__: Any) -> dict[str, float]:
        worse_and_worse.auc -= 0.01
        return {"AUC": worse_and_worse.auc, "logloss": 0.5}

    worse_and_worse.auc = 0.9
    monkeypatch.setattr("fuxictr_miss.training.fuxictr_loop.evaluate", worse_and_worse)
    ended: list[int] = []
    monkeypatch.setattr(Pretraining, "end", lambda self: ended.append(1))
    _, rows = train(params, epochs=9, early_stop_patience=2, ssl_pretrain_epochs=12)
    with_both = [row for row in rows if "ssl_loss" in row]
    assert len(ended) == 1
    assert len(with_both) == JOINT_EPOCHS  # of twelve that the contrastive steps would fill
    assert len({row["steps"] for row in rows}) == 1  # no epoch is cut short
    assert len(rows) == len(with_both) + 2


@pytest.mark.parametrize("factor", [1, 8])
def test_every_contrastive_epoch_is_done_once_whatever_the_number_of_label_steps(
    params, monkeypatch, factor
):
    numbers: list[int] = []
    steps = Pretraining.steps

    def spy(self: Any, number: int) -> Any:
        numbers.append(number)
        yield from steps(self, number)

    monkeypatch.setattr(Pretraining, "steps", spy)
    train(params, epochs=1, ssl_pretrain_epochs=5, ssl_pretrain_batch_size=128 * factor)
    assert numbers == list(range(5))
