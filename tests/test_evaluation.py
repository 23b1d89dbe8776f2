"""Our metrics are FuxiCTR's, for every backbone, and rows in another order change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fuxictr.metrics import evaluate_metrics

from fuxictr_miss import experiment
from fuxictr_miss.evaluation import evaluate
from fuxictr_miss.registry import list_models

FIELDS = {
    f"{prefix}{kind}_field": [names]
    for prefix in ("din_", "dien_", "", "sim_")
    for kind, names in (
        ("target", ["item_id", "cate_id"]),
        ("sequence", ["item_history", "cate_history"]),
    )
}
FIELDS |= {key: value[0] for key, value in FIELDS.items() if key.startswith("sim_")}
GROUPED = ["AUC", "logloss", "gAUC", "avgAUC", "MRR", "NDCG(2)"]


@pytest.mark.parametrize(
    "name", [name for name in list_models() if "_" not in name and name != "MISS"]
)
def test_metrics_of_every_backbone_are_those_of_fuxictr(params, name):
    params.update(FIELDS, model=name, embedding_dim=8)
    for key in ("embedding_regularizer", "net_regularizer"):  # of other names in FM and LR
        del params[key]
    model, loaders = experiment.build(params)
    model._max_gradient_norm = 10.0
    for batch in loaders["train"]:
        model.train_step(batch)
    model.double()  # in float32 the last bit of a prediction depends on the row's place in a batch
    loader = loaders["test"]
    loader.batch_size = 32
    assert loader.trim_history
    ours = evaluate(model, loader, ["logloss", "AUC"])
    assert list(ours) == ["logloss", "AUC"]
    assert not model.training
    loader.trim_history = False
    theirs = model.evaluate(loader, metrics=["AUC", "logloss"])
    assert ours == pytest.approx(theirs, abs=1e-9, rel=0)


def test_metrics_by_group_are_those_of_fuxictr(params):
    params.update(group_id="cate_id")
    model, loaders = experiment.build(params)
    loaders["test"].batch_size = 32
    ours = evaluate(model, loaders["test"], GROUPED)
    assert ours == pytest.approx(model.evaluate(loaders["test"], metrics=GROUPED), abs=1e-9, rel=0)


def test_grouped_auc_counts_ties_by_half_and_leaves_out_groups_of_one_label(params):
    rng = np.random.default_rng(5)
    model, _ = experiment.build({**params, "group_id": "user_id"})
    for values in (2, 1000):  # many ties, few ties
        group = rng.integers(0, 12, 200)
        label = rng.integers(0, 2, 200).astype(float)
        label[group == 3] = 1
        score = rng.integers(0, values, 200) / values

        class Fixed(type(model)):
            def forward(self, inputs):
                return {"y_pred": inputs["score"]}

            def get_labels(self, inputs):
                return inputs["label"]

        model.__class__ = Fixed
        batch = {"score": score, "label": label, "user_id": group}
        batches = [{name: torch.from_numpy(each) for name, each in batch.items()}]
        expected = evaluate_metrics(label, score, ["gAUC", "avgAUC"], group)
        assert evaluate(model, batches, ["gAUC", "avgAUC"]) == pytest.approx(expected, abs=1e-12)


def test_a_class_with_an_evaluation_of_its_own_keeps_it(params, monkeypatch):
    model, loaders = experiment.build(params)
    monkeypatch.setattr(type(model), "evaluate", lambda self, loader, metrics: {"own": 1})
    assert evaluate(model, loaders["test"], ["AUC"]) == {"own": 1.0}
