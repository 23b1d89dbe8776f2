"""Our metrics are FuxiCTR's, for every backbone, and rows in another order change nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from fuxictr.metrics import evaluate_metrics

from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.registry import list_models
from fuxictr_miss.training.evaluation import check_defined, evaluate

pytestmark = pytest.mark.trained_number

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


def fixed(params, y_pred, y_true, group=None, split=None):
    """A model that predicts what it is given, and its one batch."""
    model, _ = experiment.build({**params, "group_id": None if group is None else "user_id"})

    class Fixed(type(model)):
        def forward(self, inputs):
            return {"y_pred": inputs["score"]}

        def get_labels(self, inputs):
            return inputs["label"]

    class Batches(list):
        pass

    model.__class__ = Fixed
    columns = {"score": y_pred, "label": y_true, "user_id": group}
    batch = {n: torch.tensor(each, dtype=torch.float64) for n, each in columns.items() if each}
    batches = Batches([batch] if y_pred else [])
    if split:
        batches.split = split
    return model, batches


@pytest.mark.parametrize("rows", [15, 30, 300])
def test_the_calibration_error_is_that_of_fifteen_bins_of_equal_mass(params, rows):
    rng = np.random.default_rng(rows)
    y_pred = rng.permutation(rows) / rows  # distinct
    y_true = rng.integers(0, 2, rows).astype(float)
    distances = [
        abs(np.mean(y_true[part]) - np.mean(y_pred[part]))
        for part in np.array_split(np.argsort(y_pred), 15)
    ]
    found = evaluate(*fixed(params, y_pred.tolist(), y_true.tolist()), ["ECE"])
    assert found == pytest.approx({"ECE": np.mean(distances)}, abs=1e-12)


def test_equal_predictions_share_a_bin_of_the_calibration_error(params):
    # 60 rows at 0.25, of which 20 are positive: |1/3 - 1/4|, in whatever order they come
    y_true = [1.0] * 20 + [0.0] * 40
    found = evaluate(*fixed(params, [0.25] * 60, y_true), ["ECE"])["ECE"]
    assert found == pytest.approx(1 / 3 - 1 / 4)
    exact = evaluate(*fixed(params, [0.0, 1.0] * 30, [0.0, 1.0] * 30), ["ECE"])["ECE"]
    assert exact == 0


@pytest.mark.parametrize("label", [0, 1])
def test_auc_of_one_label_is_no_number_and_logloss_is_one(params, label):
    model, batches = fixed(params, [0.2, 0.7], [label, label], split="valid")
    with pytest.raises(InputError, match=f"AUC of the valid split.*all 2 labels are {label}"):
        evaluate(model, batches, ["logloss", "AUC"])
    expected = -np.mean(np.log([0.2, 0.7] if label else [0.8, 0.3]))
    assert evaluate(model, batches, ["logloss"]) == {"logloss": pytest.approx(expected)}


@pytest.mark.parametrize("metric", ["gAUC", "avgAUC", "MRR", "NDCG(1)"])
def test_a_metric_by_group_without_groups_names_the_key(params, metric):
    model, batches = fixed(params, [0.2, 0.7], [0, 1])
    with pytest.raises(InputError, match=rf"{metric[:4]}.*group_id"):
        evaluate(model, batches, [metric])


@pytest.mark.parametrize("metric", ["gAUC", "avgAUC"])
def test_no_group_with_both_labels_is_no_number(params, metric):
    model, batches = fixed(params, [0.2, 0.7, 0.3], [0, 1, 1], [1, 2, 2])
    with pytest.raises(InputError, match=f"{metric} of these rows is not defined: no group"):
        evaluate(model, batches, [metric])


@pytest.mark.parametrize(("bad", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
@pytest.mark.parametrize("metric", ["AUC", "logloss", "MRR"])
def test_predictions_that_are_not_finite_are_said_to_have_diverged(params, bad, word, metric):
    model, batches = fixed(params, [0.2, bad, 0.3], [0, 1, 1], [1, 2, 2], split="test")
    with pytest.raises(
        InputError, match=f"1 of 3 predictions of the test split are {word}.*diverg"
    ):
        evaluate(model, batches, [metric])


@pytest.mark.parametrize(
    ("metric", "match"),
    [("auc", "Unknown metric 'auc'.*'AUC'"), ("NDCG(x)", "Unknown metric"), ("NDCG", "NDCG")],
)
def test_an_unknown_metric_is_refused_with_the_closest(params, metric, match):
    model, batches = fixed(params, [0.2, 0.7], [0, 1], [1, 1])
    with pytest.raises(InputError, match=match):
        evaluate(model, batches, [metric])


def test_metrics_of_two_labels_refuse_others_and_rows_that_are_not_there(params):
    model, batches = fixed(params, [0.2, 0.7], [0, 3], [1, 1])
    for metric in ("AUC", "logloss", "gAUC"):
        with pytest.raises(InputError, match=f"{metric} needs labels 0 and 1.*3"):
            evaluate(model, batches, [metric])
    model, batches = fixed(params, [0.2, 1.7], [0, 1])
    with pytest.raises(InputError, match="from 0 to 1"):
        evaluate(model, batches, ["logloss"])
    model, batches = fixed(params, [], [])
    with pytest.raises(InputError, match="no rows"):
        evaluate(model, batches, ["AUC"])


@pytest.mark.parametrize(
    ("metrics", "group_id", "match"),
    [
        (["logloss", "AUC"], None, "AUC of the valid split is not defined: all 180 labels are 0"),
        (["logloss"], None, None),
        (["gAUC"], None, "gAUC needs groups"),
        (["gAUC"], "user_id", "no group has rows of both labels"),
        (["auc"], None, "Unknown metric"),
    ],
)
def test_metrics_that_will_be_no_numbers_are_known_before_training(
    params, metrics, group_id, match
):
    model, loaders = experiment.build({**params, "group_id": group_id})
    check_defined(model, loaders["test"], ["AUC", "logloss"])
    loaders["valid"].columns["label"].zero_()
    if match is None:
        check_defined(model, loaders["valid"], metrics)
        return
    with pytest.raises(InputError, match=match):
        check_defined(model, loaders["valid"], metrics)


def test_groups_out_of_the_vocabulary_are_said_to_be_one(params, caplog):
    model, loaders = experiment.build({**params, "group_id": "item_id"})
    items = loaders["test"].columns["item_id"]
    check_defined(model, loaders["test"], ["gAUC"])
    items[: len(items) // 4] = model.feature_map.features["item_id"]["vocab_size"] - 1
    check_defined(model, loaders["test"], ["AUC", "logloss", "ECE"])
    assert "for one group" not in caplog.text
    check_defined(model, loaders["test"], ["AUC", "gAUC", "NDCG(2)"])
    expected = "gAUC, NDCG(2) of the test split takes the 25.0% of its rows whose item_id is out of"
    assert expected in caplog.text


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_of_one_label_is_refused_before_training(params, splits, tmp_path, split):
    rows = pl.read_parquet(splits / f"{split}.parquet").with_columns(label=pl.lit(1.0))
    rows.write_parquet(tmp_path / "one.parquet")
    with pytest.raises(InputError, match=f"AUC of the {split} split"):
        experiment.build({**params, f"{split}_data": str(tmp_path / "one.parquet")})


def test_a_metric_of_a_class_of_its_own_must_be_finite_too(params, monkeypatch):
    model, loaders = experiment.build(params)
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "evaluate", lambda self, loader, metrics: {"own": np.nan})
        with pytest.raises(InputError, match="own of the test split is nan"):
            evaluate(model, loaders["test"], ["AUC"])
    monkeypatch.setattr(
        type(model), "evaluate_metrics", lambda self, y_true, *_: {"rows": len(y_true)}
    )
    assert evaluate(model, loaders["test"], ["rows"]) == {"rows": 180.0}


def test_a_class_with_an_evaluation_of_its_own_keeps_it(params, monkeypatch):
    model, loaders = experiment.build(params)
    monkeypatch.setattr(type(model), "evaluate", lambda self, loader, metrics: {"own": 1})
    assert evaluate(model, loaders["test"], ["AUC"]) == {"own": 1.0}
