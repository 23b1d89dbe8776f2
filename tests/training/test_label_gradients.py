"""What of the label loss reaches which table, jointly and after a pretraining; the thaw."""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from fuxictr_miss import experiment
from fuxictr_miss.training import fit, labels, run
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.labels import Labels, Thaw
from fuxictr_miss.training.pretraining import Pretraining

pytestmark = pytest.mark.trained_number

OWN = ("item_id", "cate_id")  # tables of the behaviors
OTHER = ("user_id",)


def build(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, Any]]:
    return experiment.build({**params, "model": "DIN_MISS", "model_id": "run", **changes})


def tables(model: Any, names: tuple[str, ...]) -> list[Tensor]:
    return [model.embedding_layer.embedding_layers[name].weight for name in names]


def gradients(model: Any, batch: dict[str, Tensor], term: str) -> dict[str, Tensor]:
    """Those of the label loss or of all of Eq. 17, by parameter, at the same random draws."""
    ssl = model._self_supervision
    draws = ssl.generator.get_state()
    model.zero_grad()
    returned = model.forward(batch)
    if term == "label":
        returned.pop("_self_supervision")
    model.add_loss(returned, model.get_labels(batch).double()).backward()
    ssl.generator.set_state(draws)
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for n, p in model.named_parameters()}  # fmt: skip


def in_float64(model: Any, batch: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """Wide weights, so that no gradient is lost in rounding."""
    model.double()
    draw = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        parameter.data = noise / 3
    return model, {k: c.double() if c.is_floating_point() else c for k, c in batch.items()}


LINEAR, POOLING = "nn.Linear(4, 4, bias=False)", "layers.MaskedAveragePooling()"
ENCODERS: dict[str, Any] = {
    "tables alone": None,
    "projected": [LINEAR, "nn.Tanh()", "nn.Linear(4, 4)"],
    "pooled, projected": [POOLING, LINEAR],
}


@pytest.mark.parametrize(
    ("backbone", "encoder"),
    [("DIN", "tables alone"), ("PNN", "tables alone"), ("DeepFM", "tables alone"),
     ("DIN", "projected"), ("PNN", "pooled, projected")],
)  # fmt: skip
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_label_gradient_reaches_the_behaviors_tables(
    params, backbone, encoder, share
):
    """Also of the weights of a projection behind them."""
    if ENCODERS[encoder] is not None:
        specs = [{"name": "item_history", "feature_encoder": ENCODERS[encoder]}]
        params.update(feature_specs=specs, embedding_regularizer=0)
    found = []
    for each in (1.0, share):
        model, loaders = build(params, model=f"{backbone}_MISS", ssl_label_gradient=each)
        model, batch = in_float64(model, next(iter(loaders["train"])))
        found.append([gradients(model, batch, term) for term in ("label", "all")])
    (label, whole), (scaled_label, scaled) = found
    own = {id(p) for p in model._self_supervision.table_parameters(model)}
    names = [name for name, p in model.named_parameters() if id(p) in own]
    assert len(names) >= 2
    assert any("feature_encoders" in name for name in names) == (encoder != "tables alone")
    for name, full in label.items():
        factor = share if name in names else 1.0
        assert torch.allclose(scaled_label[name], factor * full, rtol=1e-10, atol=1e-14)
        contrastive = whole[name] - full  # whatever the share
        assert torch.allclose(scaled[name] - scaled_label[name], contrastive, rtol=1e-8, atol=1e-12)
    assert all(label[name].any() for name in names)


def test_a_share_of_one_changes_no_bit_and_hangs_nothing_on_the_tables(params, monkeypatch):
    trained = []
    for patched in (False, True):
        model, loaders = build(params, ssl_label_gradient=1.0)
        if patched:
            monkeypatch.setattr(torch.nn.Module, "register_forward_hook", None)  # no hook at all
        for batch in loaders["train"]:
            model._max_gradient_norm = 10.0
            model.train_step(batch)
        trained.append(model.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_no_hook_outlives_a_step(params):
    model, loaders = build(params, ssl_label_gradient=0.3)
    before = [len(module._forward_hooks) for module in model.modules()]
    model.forward(next(iter(loaders["train"])))
    assert [len(module._forward_hooks) for module in model.modules()] == before


@pytest.mark.parametrize("key", ["ssl_label_gradient", "ssl_other_gradient"])
def test_only_tables_and_what_the_contrastive_loss_trains_are_ever_frozen(params, key):
    """The projection of a feature that no history shares, and numeric weights, need labels."""
    price = {"name": "price", "active": True, "dtype": "float", "type": "numeric"}
    for split in ("train", "valid", "test"):
        frame = pl.read_parquet(params[f"{split}_data"]).with_columns(price=pl.lit(1.5))
        params[f"{split}_data"] = f"{params['data_root']}_{split}.parquet"
        frame.write_parquet(params[f"{split}_data"])
    columns = [*params["feature_cols"], price]
    specs = [{"name": n, "feature_encoder": [LINEAR]} for n in ("user_id", "item_history")]
    model, _ = build(params, feature_cols=columns, feature_specs=specs)
    own, other = {"ssl_label_gradient": (0.0, 1.0), "ssl_other_gradient": (1.0, 0.0)}[key]
    labels.set_table_rates(model, own, other)
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    layer = model.embedding_layer
    expected = tables(model, OTHER)
    if key == "ssl_label_gradient":
        expected = [*tables(model, OWN), layer.feature_encoders["item_history"][0].weight]
    assert frozen == {id(p) for p in expected}


@pytest.mark.parametrize("strategy", ["joint", "pretrain", "pretrain_joint"])
@pytest.mark.parametrize(
    ("key", "frozen", "free"),
    [("ssl_label_gradient", OWN, OTHER), ("ssl_other_gradient", OTHER, OWN)],
)
def test_each_gradient_freezes_its_own_tables(params, strategy, key, frozen, free):
    model, loaders = build(params, ssl_training=strategy, ssl_pretrain_epochs=1, **{key: 0.0})
    seen: list[dict[str, Tensor]] = []
    step = type(model).train_step

    def spy(self: Any, batch: Any) -> Tensor:
        seen.append({n: tables(self, (n,))[0].detach().clone() for n in (*OWN, *OTHER)})
        return step(self, batch)

    type(model).train_step = spy
    try:
        fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"])
    finally:
        type(model).train_step = step
    moved = {n for n in (*OWN, *OTHER) if any(not torch.equal(s[n], seen[0][n]) for s in seen)}
    if strategy != "pretrain" and key == "ssl_label_gradient":
        assert moved == {*OWN, *OTHER}  # the contrastive loss still moves them
    else:
        assert moved == set(free)
    assert frozen


def test_the_label_learning_rate_is_that_of_the_label_phase_only(params, monkeypatch):
    rate = params["learning_rate"]
    model, loaders = build(params, ssl_training="pretrain", ssl_pretrain_epochs=1, ssl_thaw=True,
                           ssl_label_gradient=0.0, ssl_label_learning_rate=0.5 * rate)  # fmt: skip
    seen = {}
    step = FuxiCTRLoop.step

    def spy(self: Any, *arguments: Any) -> Tensor:
        seen.setdefault(phases[0], {g["lr"] for g in self.model.optimizer.param_groups})
        return step(self, *arguments)

    phases: list[str] = ["label"]
    begin = Labels.__init__

    def labels(self: Any, loop: Any, train: Any, epochs: int, name: str, *patience: int,
               **named: int) -> None:  # fmt: skip
        phases[0] = name
        begin(self, loop, train, epochs, name, *patience, **named)

    monkeypatch.setattr(FuxiCTRLoop, "step", spy)
    monkeypatch.setattr(Labels, "__init__", labels)
    fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert seen == {"label": {0.5 * rate}, "thaw": {rate}, "restart": {rate}}
    assert {group["lr"] for group in model.optimizer.param_groups} == {rate}


# ----------------------------------------------------------------- thaw and restart

THAWED = {"ssl_training": "pretrain", "ssl_pretrain_epochs": 1, "ssl_label_gradient": 0.0,
          "ssl_other_gradient": 0.0, "ssl_thaw": True}  # fmt: skip


def with_metrics(monkeypatch: pytest.MonkeyPatch, aucs: list[float]) -> None:
    """Validation gives these AUCs, one after another, whatever the model predicts."""
    left = iter(aucs)

    def evaluated(*_: Any, **__: Any) -> dict[str, float]:
        return {"AUC": next(left), "logloss": 0.5}

    monkeypatch.setattr("fuxictr_miss.training.fuxictr_loop.evaluate", evaluated)


FROZEN = [0.6, 0.7, 0.65, 0.64]
TRIALS = {
    "frozen": ([*FROZEN, 0.66, 0.6, 0.5], [4, 1, 2], 1),
    "thaw": ([*FROZEN, 0.8, 0.75, 0.5, 0.78, 0.77], [4, 2, 3], 4),
    "restart": ([*FROZEN, 0.66, 0.5, 0.6, 0.9, 0.85], [4, 1, 4], 7),
}  # validation AUC of each epoch, epochs of each phase, the best epoch


@pytest.mark.parametrize(("aucs", "epochs", "best"), TRIALS.values(), ids=TRIALS)
def test_validation_keeps_the_best_of_frozen_thawed_and_restarted(params, monkeypatch, caplog,
                                                                 aucs, epochs, best):  # fmt: skip
    """A trial ends with its first epoch that is no better; a restart looks at its own epochs."""
    names = ("label", "thaw", "restart")
    phases = [name for name, number in zip(names, epochs, strict=True) for _ in range(number)]
    model, loaders = build(params, **THAWED, early_stop_patience=2)
    ends: list[dict[str, Tensor]] = []
    validate = FuxiCTRLoop.validate

    def spy(self: Any) -> Any:
        ends.append(copy.deepcopy(self.model.state_dict()))
        return validate(self)

    monkeypatch.setattr(FuxiCTRLoop, "validate", spy)
    with_metrics(monkeypatch, aucs)
    with caplog.at_level(logging.INFO):
        rows = fit(model, loaders["train"], epochs=4, validation_data=loaders["valid"])
    assert [row["phase"] for row in rows] == ["pretrain", *phases]
    for name, value in model.state_dict().items():
        assert torch.equal(value, ends[best][name]), name
    name = "embedding_layer.embedding_layers.item_id.weight"
    assert torch.equal(ends[1][name], ends[0][name])
    assert not torch.equal(ends[4][name], ends[1][name])
    said = [m for r in caplog.records if (m := r.getMessage()).startswith(("thaw:", "restart:"))]
    kept = [line.split(":")[0] for line in said if line.endswith(": kept.")]
    assert len(said) == 2
    assert kept == [name for name in names[1:] if name == phases[best]]
    assert model._early_stop_patience == 2


def test_the_log_of_a_trial_names_a_sum_of_metrics_with_its_weights(params, monkeypatch, caplog):
    model, loaders = build(params, **THAWED, monitor={"AUC": 1, "logloss": -0.5})
    with_metrics(monkeypatch, [0.6, 0.7, 0.65])
    with caplog.at_level(logging.INFO):
        fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    said = "thaw: best validation AUC + -0.5 logloss 0.450000, before 0.350000: kept."
    assert said in [record.getMessage() for record in caplog.records]


def test_a_thaw_begins_with_the_best_weights_of_the_frozen_epochs(params, monkeypatch):
    model, loaders = build(params, **THAWED, early_stop_patience=9)
    ends, starts, begin = [], [], Thaw.__init__

    def spy(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        starts.append(copy.deepcopy(self.loop.model.state_dict()))

    def evaluated(model: Any, *_: Any) -> dict[str, float]:
        ends.append(copy.deepcopy(model.state_dict()))
        return {"AUC": 0.7 if len(ends) == 2 else 0.6, "logloss": 0.5}

    monkeypatch.setattr(Thaw, "__init__", spy)
    monkeypatch.setattr("fuxictr_miss.training.fuxictr_loop.evaluate", evaluated)
    fit(model, loaders["train"], epochs=3, validation_data=loaders["valid"])
    assert all(torch.equal(starts[0][name], value) for name, value in ends[1].items())
    assert not all(torch.equal(ends[1][name], value) for name, value in ends[2].items())


@pytest.mark.parametrize(("restarted", "kept"), [(0.3, True), (0.6, False)])
def test_of_a_monitored_loss_the_smaller_is_the_better(params, monkeypatch, restarted, kept):
    monitored = {"monitor": "logloss", "monitor_mode": "min"}
    model, loaders = build(params, **THAWED, **monitored, early_stop_patience=1)
    left = iter([0.5, 0.55, 0.52, restarted, 0.7])
    ends: list[Tensor] = []

    def evaluated(model: Any, *_: Any) -> dict[str, float]:
        ends.append(next(model.dnn.parameters()).detach().clone())
        return {"AUC": 0.5, "logloss": next(left)}

    monkeypatch.setattr("fuxictr_miss.training.fuxictr_loop.evaluate", evaluated)
    fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"])
    assert torch.equal(next(model.dnn.parameters()), ends[3 if kept else 0])


def test_a_restart_has_the_pretrained_tables_and_a_new_tower(params, monkeypatch):
    model, loaders = build(params, **THAWED, ssl_row_norm="log_count")
    new = copy.deepcopy(model.state_dict())
    starts: list[dict[str, Tensor]] = []
    trained: list[Tensor] = []
    restart, end = FuxiCTRLoop.restart, Pretraining.end

    def spy(self: Any) -> None:
        assert self.model.optimizer.state  # of the epochs before
        restart(self)
        assert not self.model.optimizer.state
        starts.append(copy.deepcopy(self.model.state_dict()))

    def before_norms(self: Any) -> None:
        trained.extend(self.best)
        end(self)

    monkeypatch.setattr(FuxiCTRLoop, "restart", spy)
    monkeypatch.setattr(Pretraining, "end", before_norms)
    fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    (start,) = starts
    table = "embedding_layer.embedding_layers.item_id.weight"
    assert not torch.equal(start[table], new[table])  # pretrained
    assert any(torch.equal(start[table], each) for each in trained)  # with their own norms
    towers = [name for name in new if "embedding" not in name and "_self_supervision" not in name]
    assert towers
    for name in towers:
        assert torch.equal(start[name], new[name]), name


@pytest.mark.parametrize(
    "changes",
    [{"ssl_thaw": False}, {"ssl_label_gradient": 1.0, "ssl_other_gradient": 1.0},
     {"ssl_training": "pretrain_joint", "ssl_label_gradient": 0.5}],
)  # fmt: skip
def test_nothing_is_thawed_that_is_not_frozen(params, changes):
    model, loaders = build(params, **{**THAWED, **changes})
    rows = fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert not {"thaw", "restart"} & {row["phase"] for row in rows}


TRIALS_BY_NAME = ("thaw", "restart", "newest")


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize(
    ("model_name", "strategy"),
    [("DIN_MISS", "pretrain"), ("DIN_PPMI", "pretrain"), ("DIN_MISS", "joint")],
)
def test_a_run_killed_in_any_phase_ends_at_the_same_digits(
    prefixes, tmp_path, monkeypatch, caplog, model_name, strategy
):
    """Before every save: the state is of the epoch before, the checkpoint may be of a later one."""
    pretrained = 40 if strategy == "joint" else 4  # epochs, beside label epochs of more steps
    changes = {**THAWED, "model": model_name, "ssl_start": "svd", "ssl_other_gradient": 0.4,
               "early_stop_patience": 10, "ssl_label_learning_rate": 0.02, "batch_size": 64,
               "ssl_training": strategy, "ssl_pretrain_epochs": pretrained}  # fmt: skip

    def train(folder: Path, resume: bool = False) -> Any:
        model, loaders = build(prefixes, model_root=str(folder), **changes)
        rows = fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"],
                   resume=resume)  # fmt: skip
        return without_time(rows), model.evaluate(loaders["test"]), model.state_dict()

    def outcomes() -> dict[str, str]:
        said = [record.getMessage().partition(":") for record in caplog.records]
        return {name: rest for name, _, rest in said if name in TRIALS_BY_NAME}

    killed = []
    save = run.Run._save

    def copy_and_save(self: Any) -> None:
        if len(self.rows) > 1:
            folder = shutil.copytree(tmp_path / "whole", tmp_path / f"{len(killed)}")
            killed.append((folder, outcomes()))
        save(self)

    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "_save", copy_and_save)
        rows, metrics, weights = train(tmp_path / "whole")
    expected = outcomes()
    phases = [row["phase"] for row in rows]
    assert {"label" if strategy == "pretrain" else "joint", *TRIALS_BY_NAME} <= set(phases)
    if model_name == "DIN_MISS":
        assert sum("ssl_loss" in row for row in rows) >= 2  # killed between
    assert len(killed) >= len(rows) - 1
    for folder, said in killed:
        caplog.clear()
        again, other_metrics, other = train(folder, resume=True)
        assert again == rows, folder
        assert other_metrics == metrics, folder
        assert said | outcomes() == expected, folder
        assert all(torch.equal(other[name], value) for name, value in weights.items()), folder
