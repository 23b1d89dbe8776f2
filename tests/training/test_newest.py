"""The trial on each user's newest rows, whose targets no pretraining has seen."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.training import fit
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.labels import Labels

pytestmark = pytest.mark.trained_number

THAWED = {"ssl_training": "pretrain", "ssl_pretrain_epochs": 1, "ssl_label_gradient": 0.0,
          "ssl_other_gradient": 0.0, "ssl_thaw": True}  # fmt: skip


def build(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, Any]]:
    return experiment.build({**params, "model": "DIN_MISS", "model_id": "run", **changes})


def users_and_lengths(batches: Any) -> Counter[tuple[int, int]]:
    """The rows of some batches."""
    found: Counter[tuple[int, int]] = Counter()
    for batch in batches:
        length = (batch["item_history"] != 0).sum(dim=1)
        found.update(zip(batch["user_id"].tolist(), length.tolist(), strict=True))
    return found


@pytest.mark.parametrize("last", [0.99, 0.5])
def test_the_newest_rows_train_a_new_tower_on_frozen_normed_tables(prefixes, monkeypatch, last):
    keys = {**THAWED, "ssl_row_norm": "log_count", "ssl_label_learning_rate": 0.02}
    model, loaders = build(prefixes, **keys)
    rows, rates, starts, kept = [], set(), {}, []
    labels, step = Labels.__init__, FuxiCTRLoop.step

    def begin(self: Any, loop: Any, *arguments: Any) -> None:
        labels(self, loop, *arguments)
        starts[self.name] = copy.deepcopy(loop.model.state_dict())

    def spy(self: Any, batch: Any, *arguments: Any) -> Any:
        if "newest" in starts:
            rows.append(batch)
            rates.update(group["lr"] for group in self.model.optimizer.param_groups)
        return step(self, batch, *arguments)

    monkeypatch.setattr(Labels, "__init__", begin)
    monkeypatch.setattr(FuxiCTRLoop, "step", spy)

    def evaluated(model: Any, *_: Any) -> dict[str, float]:
        kept.append(copy.deepcopy(model.state_dict()))
        return {"AUC": last if "newest" in starts else 0.6 + 0.01 * len(kept), "logloss": 0.5}

    monkeypatch.setattr("fuxictr_miss.training.fuxictr_loop.evaluate", evaluated)
    said = fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert [row["phase"] for row in said] == ["pretrain", "label", "thaw", "restart", "newest"]
    everything = users_and_lengths(loaders["train"].batches())
    longest: dict[int, int] = {}
    for user, length in everything:
        longest[user] = max(length, longest.get(user, 0))
    assert users_and_lengths(rows) == dict.fromkeys(longest.items(), 2)
    assert rates == {0.02}
    for name, value in starts["newest"].items():
        assert torch.equal(value, starts["label"][name]), name
    table = "embedding_layer.embedding_layers.item_id.weight"
    assert torch.equal(kept[-1][table], starts["label"][table])
    assert not torch.equal(kept[-1]["dnn.mlp.0.weight"], starts["label"]["dnn.mlp.0.weight"])
    best = kept[-1] if last == 0.99 else kept[2]
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [{"ssl_label_gradient": 0.5}, {"ssl_thaw": False}],
)
def test_no_trial_of_the_newest_rows_where_labels_move_the_tables(prefixes, changes):
    model, loaders = build(prefixes, **{**THAWED, **changes})
    rows = fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert "newest" not in {row["phase"] for row in rows}


def test_every_epoch_of_the_newest_rows_is_validated(prefixes):
    model, loaders = build(prefixes, **THAWED, early_stop_patience=9)
    rows = fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"])
    assert all("AUC" in row for row in rows if row["phase"] != "pretrain")
    assert [row["epoch"] for row in rows if row["phase"] == "newest"] == [1, 2]
