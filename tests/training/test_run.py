"""Strategies, what they log, and that a killed run ends as if nothing had happened."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from tqdm import tqdm

from fuxictr_miss import experiment
from fuxictr_miss.data import data_digest
from fuxictr_miss.errors import DivergedError, InputError
from fuxictr_miss.methods.base import SSLLosses
from fuxictr_miss.training import checkpoint, means, pretraining, run
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.histories import Histories
from fuxictr_miss.training.labels import Labels
from fuxictr_miss.training.phases import phases_of
from fuxictr_miss.training.pretraining import Pretraining

pytestmark = pytest.mark.trained_number

STRATEGIES = ["joint", "pretrain", "pretrain_joint"]


def build(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, Any]]:
    return experiment.build({**params, "model": "DIN_MISS", "model_id": "run", **changes})


def pretraining_of(model: Any, loaders: dict[str, Any]) -> Pretraining:
    ssl, train = model._self_supervision, loaders["train"]
    histories = Histories(train, [s.features for s in ssl.sources], ssl.user, ssl.unknown_user)
    return Pretraining(FuxiCTRLoop(model, loaders["valid"], ""), ssl, histories, train)


def without_users(params: dict[str, Any]) -> dict[str, Any]:
    """The same data with no column of the user: a distinct history counts as one."""
    first, *others = params["feature_cols"]
    first = {**first, "name": [name for name in first["name"] if name != "user_id"]}
    return {**params, "feature_cols": [first, *others]}


def fit(model: Any, loaders: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    return run.fit(model, loaders["train"], validation_data=loaders["valid"], **options)


@pytest.mark.parametrize(
    ("strategy", "names"),
    [("joint", {"joint"}), ("pretrain", {"pretrain", "label"}),
     ("pretrain_joint", {"pretrain", "joint"})],
)  # fmt: skip
def test_phases_of_each_strategy(params, strategy, names):
    model, loaders = build(params, ssl_training=strategy, ssl_pretrain_epochs=2)
    rows = fit(model, loaders, epochs=2)
    assert {row["phase"] for row in rows} == names


def test_users_with_one_behavior_are_drawn_if_the_method_learns_from_one(params, tmp_path):
    newest = [pl.col(f"{each}_history").str.split("^").list.last() for each in ("item", "cate")]
    splits = {f"{each}_data": tmp_path / f"{each}.parquet" for each in ("train", "valid", "test")}
    for key, path in splits.items():
        pl.read_parquet(params[key]).with_columns(newest).write_parquet(path)
    params = {**params, **{key: str(path) for key, path in splits.items()}}
    model, loaders = build(
        params, model="DIN_IRSSL", ssl_training="pretrain", ssl_pretrain_sampling="pairs",
        ssl_pretrain_epochs=1,
    )  # fmt: skip
    loop = FuxiCTRLoop(model, loaders["valid"], "")
    pretrain = phases_of(loop, loaders["train"], epochs=1)[0]()
    assert set(pretrain.histories.pairs.tolist()) == {1}
    assert fit(model, loaders, epochs=1)[0]["ssl_loss"] > 0


def test_an_epoch_is_one_log_line_with_all_its_numbers(params, caplog):
    model, loaders = build(params, ssl_training="pretrain_joint", ssl_pretrain_epochs=1)
    with caplog.at_level(logging.INFO):
        rows = fit(model, loaders, epochs=1)
    lines = [r.getMessage() for r in caplog.records if " epoch " in r.getMessage()]
    assert len(lines) == len(rows) == 2
    for name in ("ssl_loss", "ssl_feature_loss", "similarity", "held_out_ssl"):
        assert name in lines[0]
    for name in ("label_loss", "ssl_loss", "ssl_feature_loss", "similarity", "AUC", "logloss"):
        assert name in lines[1]


@pytest.mark.parametrize("extractor", ["cnn", "self_attention", "lstm"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_similarity_of_the_pairs_is_logged_for_every_extractor(params, extractor, strategy):
    """The numbers of Fig. 5."""
    changes = {"miss_extractor": extractor, "ssl_training": strategy, "ssl_pretrain_epochs": 1}
    model, loaders = build(params, **changes)
    for row in fit(model, loaders, epochs=2):
        assert ("similarity" in row) == (row["phase"] != "label")
        assert -1 <= row.get("similarity", 0) <= 1


def test_pretraining_uses_each_user_once_and_holds_some_out(params):
    model, loaders = build(params, ssl_training="pretrain")
    phase = pretraining_of(model, loaders)
    assert sorted([*phase._order(), *phase.held_out]) == list(range(len(phase.histories)))
    assert len(phase.held_out) == round(len(phase.histories) * pretraining.HELD_OUT_SHARE)


def test_a_pretraining_has_a_batch_size_and_a_learning_rate_of_its_own(params):
    given = {"ssl_pretrain_batch_size": 7, "ssl_pretrain_learning_rate": 0.25}
    for keys, size, rate in (({}, params["batch_size"], params["learning_rate"]), (given, 7, 0.25)):
        model, loaders = build(params, ssl_training="pretrain", **keys)
        phase = pretraining_of(model, loaders)
        assert len(phase) == -(-len(phase.users) // size)
        assert [group["lr"] for group in phase.optimizer.param_groups] == [rate]
        assert [group["eps"] for group in phase.optimizer.param_groups] == [1e-6]
        assert model.optimizer.param_groups[0]["lr"] == params["learning_rate"]


def test_every_epoch_says_how_many_steps_it_took(params):
    model, loaders = build(params, ssl_training="pretrain_joint", ssl_pretrain_epochs=1)
    first, joint = fit(model, loaders, epochs=1)
    assert joint["steps"] == len(loaders["train"])
    assert first["steps"] == len(pretraining_of(model, loaders))


def test_pretraining_moves_the_tables_and_nothing_else_of_the_backbone(params):
    model, loaders = build(params, ssl_training="pretrain")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    phase = pretraining_of(model, loaders)
    with phase.loop.during_fit(10.0):
        phase.epoch(0, tqdm(disable=True))
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    backbone = {k for k in moved if not k.startswith("_self_supervision.")}
    layers = "embedding_layer.embedding_layers."
    wanted = ("item_id", "cate_id", "item_history", "cate_history")
    assert backbone == {f"{layers}{name}.weight" for name in wanted}


@pytest.mark.parametrize(
    ("schedule", "epochs", "best"),
    [("constant", 2 + pretraining.PRETRAIN_PATIENCE, 1), ("linear", 50, -1)],
)
def test_the_held_out_loss_stops_a_pretraining_and_chooses_its_weights_unless_the_rate_falls(
    params, monkeypatch, schedule, epochs, best
):
    keys = {"ssl_pretrain_epochs": 50, "ssl_pretrain_schedule": schedule}
    model, loaders = build(params, ssl_training="pretrain", **keys)
    losses = iter([3.0, 2.0, *[2.5] * 50])
    kept = []

    def held_out(self):
        kept.append([p.detach().clone() for p in model._self_supervision.trained(model)])
        return next(losses)

    monkeypatch.setattr(Pretraining, "_held_out_loss", held_out)
    monkeypatch.setattr(Labels, "epoch", lambda self, number, progress: ({}, True))
    monkeypatch.setattr(run, "load", lambda path, data: model.state_dict())
    rows = fit(model, loaders, epochs=1)
    assert len(rows) == epochs + 1
    assert all(map(torch.equal, model._self_supervision.trained(model), kept[best]))


def test_held_out_losses_of_different_epochs_are_of_the_same_draws(params):
    model, loaders = build(params, ssl_training="pretrain")
    phase = pretraining_of(model, loaders)
    generator = model._self_supervision.generator
    first = phase._held_out_loss()
    torch.rand(7, generator=generator)  # what an epoch draws
    before = [each.get_state() for each in (generator, phase.generator)]
    assert phase._held_out_loss() == first
    assert all(map(torch.equal, (generator.get_state(), phase.generator.get_state()), before))


def test_the_held_out_loss_is_the_mean_over_the_users_without_dropout(params, monkeypatch):
    """Also where they do not fill the last batch."""
    model, loaders = build(params, ssl_training="pretrain", ssl_pretrain_batch_size=3)
    phase, sizes = pretraining_of(model, loaders), []

    def losses(self: Any, model: Any, batch: dict[str, torch.Tensor]) -> SSLLosses:
        assert not self.training
        sizes.append(len(batch["user_id"]))
        one = torch.ones(())
        return SSLLosses(one * sizes[-1], 0 * one, one)

    monkeypatch.setattr(type(model._self_supervision), "losses", losses)
    found = phase._held_out_loss()
    assert sizes == [3, len(phase.held_out) - 3]
    weight = model._self_supervision.settings.weight
    assert found == pytest.approx(weight * sum(n * n for n in sizes) / sum(sizes))


def test_one_user_in_twenty_is_held_out():
    assert pretraining.HELD_OUT_SHARE == 0.05
    assert pretraining.MIN_HELD_OUT == 4  # so 70 users are the fewest of whom any are


def test_frozen_tables_stand_still_and_are_free_again_afterwards(params, monkeypatch):
    model, loaders = build(params, ssl_training="pretrain", ssl_pretrain_epochs=1,
                           ssl_label_gradient=0.0, ssl_other_gradient=0.0)  # fmt: skip
    seen = []
    step = type(model).train_step

    def spy(self, batch):
        seen.append(self.embedding_layer.embedding_layers["item_id"].weight.detach().clone())
        return step(self, batch)

    monkeypatch.setattr(type(model), "train_step", spy)
    fit(model, loaders, epochs=1)
    assert all(torch.equal(each, seen[0]) for each in seen)
    assert all(p.requires_grad for p in model.parameters())


def test_scaled_tables_learn_at_their_own_rate_until_the_end_of_fit(params, monkeypatch):
    model, loaders = build(params, ssl_training="pretrain", ssl_pretrain_epochs=1,
                           ssl_label_gradient=0.1, ssl_other_gradient=0.1)  # fmt: skip
    table = model.embedding_layer.embedding_layers["item_id"].weight
    head = next(model.dnn.parameters())

    def rate(parameter):
        groups = model.optimizer.param_groups
        return next(g["lr"] for g in groups if any(p is parameter for p in g["params"]))

    during = []
    validate = FuxiCTRLoop.validate

    def spy(self):
        during.append((rate(table), rate(head)))
        return validate(self)

    monkeypatch.setattr(FuxiCTRLoop, "validate", spy)
    fit(model, loaders, epochs=1)
    assert during == [(pytest.approx(0.1 * params["learning_rate"]), params["learning_rate"])]
    assert rate(table) == rate(head) == params["learning_rate"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_ends_like_one_that_was_never_stopped(params, strategy, stop_after):
    changes = {"ssl_training": strategy, "ssl_pretrain_epochs": 2, "net_dropout": 0.2}
    model, loaders = build(params, **changes)
    rows = fit(model, loaders, epochs=3)
    whole = (model.evaluate(loaders["test"]), [_without_time(row) for row in rows])

    class Killed(Exception):
        pass

    model, loaders = build(params, **changes)
    epochs_done = 0
    save = run.Run._save

    def save_and_die(self):
        nonlocal epochs_done
        save(self)
        epochs_done += 1
        if epochs_done == stop_after:
            raise Killed

    run.Run._save = save_and_die
    try:
        with pytest.raises(Killed):
            fit(model, loaders, epochs=3)
    finally:
        run.Run._save = save
    model, loaders = build(params, **changes)
    rows = fit(model, loaders, epochs=3, resume=True)
    assert (model.evaluate(loaders["test"]), [_without_time(row) for row in rows]) == whole


def _without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


@pytest.mark.parametrize(("device", "restored"), [("cpu", []), ("cuda:1", ["cuda:1"])])
def test_random_numbers_of_a_gpu_are_restored_on_the_models_whichever_it_is(
    monkeypatch, device, restored
):
    seen = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, on: seen.append(str(on)))
    state = {**run._random_state(torch.device("cpu")), "cuda": torch.zeros(16)}
    run._restore_random_state(state, torch.device(device))
    assert seen == restored


def test_a_resumed_pretraining_knows_its_best_weights(params, monkeypatch):
    changes = {"ssl_training": "pretrain", "ssl_pretrain_epochs": 3}
    monkeypatch.setattr(Pretraining, "_held_out_loss", lambda self: next(losses))
    ends, save = [], run.Run._save
    for kill in (False, True):
        losses = iter([1.0, 2.0, 3.0])  # the first epoch is the best
        model, loaders = build(params, **changes)
        if kill:
            with monkeypatch.context() as patch:
                patch.setattr(run.Run, "_save", lambda self: save(self) or 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    fit(model, loaders, epochs=1)
            model, loaders = build(params, **changes)
        fit(model, loaders, epochs=1, resume=kill)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


@pytest.mark.parametrize("killed", [False, True])
def test_early_stopping_waits_for_patience_epochs_also_across_a_resume(params, monkeypatch, killed):
    metrics = iter([0.6, 0.5, 0.5, 0.5])

    def evaluated(*_: Any) -> dict[str, float]:
        return {"AUC": next(metrics), "logloss": 0.5}

    monkeypatch.setattr("fuxictr_miss.training.fuxictr_loop.evaluate", evaluated)
    settings = {**params, "early_stop_patience": 2}
    model, loaders = build(settings)
    if killed:
        save = run.Run._save
        with monkeypatch.context() as patch:
            patch.setattr(run.Run, "_save", lambda self: save(self) if self.epoch else 1 / 0)
            with pytest.raises(ZeroDivisionError):
                fit(model, loaders, epochs=9)
        metrics = iter([0.5, 0.5])
        model, loaders = build(settings)
    rows = fit(model, loaders, epochs=9, resume=killed)
    assert [row["AUC"] for row in rows] == [0.6, 0.5, 0.5]


def test_resuming_a_finished_run_trains_no_further(params):
    model, loaders = build(params)
    rows = fit(model, loaders, epochs=2)
    again, loaders = build(params)
    assert fit(again, loaders, epochs=2, resume=True) == rows
    assert again.evaluate(loaders["test"]) == model.evaluate(loaders["test"])


def test_resuming_with_other_settings_is_refused(params):
    model, loaders = build(params)
    fit(model, loaders, epochs=1, settings={"ssl_weight": 0.5})
    with pytest.raises(InputError, match=r"ssl_weight was 0\.5 and is 1"):
        fit(model, loaders, epochs=1, resume=True, settings={"ssl_weight": 1})


def test_a_run_killed_by_the_system_in_mid_epoch_resumes(params, tmp_path):
    """The real thing: SIGKILL to a process, then a resume in another one, this."""
    script = (
        "import sys, yaml\n"
        "from fuxictr_miss.experiment import run\n"
        "run(yaml.safe_load(open(sys.argv[1])))\n"
    )
    settings = {**params, "model": "DIN_MISS", "ssl_training": "pretrain_joint", "epochs": 10,
                "early_stop_patience": 10, "ssl_pretrain_epochs": 10}  # fmt: skip
    whole = digits(experiment.run({**settings, "model_root": str(tmp_path / "whole")}))
    settings["model_root"] = str(tmp_path / "killed")
    config = tmp_path / "killed.yaml"
    config.write_text(yaml.safe_dump(settings))
    state = tmp_path / "killed" / "small" / "DIN_small.state"
    process = subprocess.Popen([sys.executable, "-c", script, str(config)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while not state.exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert digits(experiment.run(settings, resume=True)) == whole


def digits(result: dict[str, Any]) -> dict[str, Any]:
    """A run's result without its times."""
    history = [_without_time(row) for row in result["history"]]
    return {**_without_time(result), "history": history}


def test_fit_without_validation_data_says_so(params):
    model, loaders = build(params)
    with pytest.raises(InputError, match="validation_data"):
        run.fit(model, loaders["train"], epochs=1)


# ----------------------------------------------------------------- what a run says and refuses


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def with_histories(loaders, *rows: list[int], name: str = "item_history") -> Any:
    """The training split with these ids in one sequence, repeated over all rows."""
    column = loaders["train"].columns[name]
    for row in range(len(column)):
        ids = rows[row % len(rows)]
        column[row] = torch.tensor(ids + [0] * (column.shape[1] - len(ids)))
    return loaders


def test_the_log_names_behaviors_tables_and_the_share_of_rows_with_a_pair(params, caplog):
    model, loaders = build(params)
    with caplog.at_level(logging.INFO):
        fit(model, loaders, epochs=1)
    lengths = (loaders["train"].column("item_history") != 0).sum(dim=1)
    share = 100 * float((lengths >= 1).float().mean())  # a feature-level pair needs one
    sizes = [model.feature_map.features[n]["vocab_size"] for n in ("item_history", "cate_history")]
    assert (
        f"Learns from the behavior item_history + cate_history, embedded by item_id ({sizes[0]} x "
        f"4), cate_id ({sizes[1]} x 4): {share:.1f}% of the training rows have a pair."
    ) in lines(caplog)


@pytest.mark.parametrize(
    ("method", "sequences", "learns"),
    [("MISS", ["item_history"], False), ("MISS", None, True), ("IRSSL", ["item_history"], True),
     ("S3Rec", None, False), ("Item2Vec", None, False), ("NextItem", None, False),
     ("DuoRec", None, False)],
)  # fmt: skip
def test_histories_of_one_behavior_have_a_pair_where_the_method_needs_no_second(
    params, method, sequences, learns
):
    """At the feature level of MISS (Eq. 24) and for IRSSL one item is enough."""
    params.update(model=f"DIN_{method}", ssl_sequences=sequences)
    model, loaders = experiment.build({**params, "model_id": "run", "s3rec_heads": 1})
    with_histories(loaders, [1], [2], [3])
    with_histories(loaders, [1], [2], [3], name="cate_history")
    if learns:
        row = fit(model, loaders, epochs=1)[0]
        assert row["ssl_loss"] + row["ssl_feature_loss"] > 0
    else:
        with pytest.raises(InputError, match=r"no training row has a positive pair.*at least 2"):
            fit(model, loaders, epochs=1)


def test_a_feature_level_of_weight_0_is_none(params):
    """Neither its cost nor its pairs: a history of one behavior has no other."""
    model, loaders = build(params, ssl_feature_weight=0)
    method = model._self_supervision.methods[0]
    assert not hasattr(method, "vertical")
    with_histories(loaders, [1], [2])
    with_histories(loaders, [1], [2], name="cate_history")
    with pytest.raises(InputError, match="no training row has a positive pair"):
        fit(model, loaders, epochs=1)


def test_a_run_without_any_pair_is_refused(params):
    model, loaders = build(params)
    with_histories(loaders, [], [], [])
    with pytest.raises(InputError, match=r"no training row has a positive pair.*ssl_sequences"):
        fit(model, loaders, epochs=1)


def test_clicks_and_rare_buys_that_are_zipped_are_a_warning(params, caplog):
    """Nearly no position has both, so nearly no row has a behavior at all."""
    model, loaders = build(params, ssl_sequences=["item_history", "cate_history"])
    with_histories(loaders, [1, 2, 3])
    with_histories(loaders, *[[]] * 19, [1, 2], name="cate_history")
    with caplog.at_level(logging.WARNING):
        fit(model, loaders, epochs=1)
    assert any("Only 5.0% of the training rows have a pair" in line for line in lines(caplog))


def test_a_run_whose_tables_are_all_frozen_is_refused(params):
    model, loaders = build(params)
    for table in model._self_supervision.sources[0].tables(model):
        table.weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"tables of item_history \+ cate_history are frozen"):
        fit(model, loaders, epochs=1)


@pytest.mark.parametrize(
    ("changes", "phase"),
    [({"ssl_training": "pretrain", "ssl_pretrain_learning_rate": 1e30}, "pretrain"),
     ({"ssl_training": "joint", "learning_rate": 1e30}, "joint"),
     ({"ssl_weight": 0, "learning_rate": 1e30}, "label")],
)  # fmt: skip
def test_a_training_that_diverges_ends_with_the_phase_and_epoch(params, changes, phase):
    model, loaders = build(params, **changes)
    with pytest.raises(DivergedError, match=rf"({phase} epoch [12]: \w+|predictions of)"):
        fit(model, loaders, epochs=20)
    assert not os.path.exists(model.checkpoint)


@pytest.mark.parametrize("name", ["label_loss", "AUC", "held_out_ssl", "ssl_feature_loss"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_number_of_an_epoch_may_be_none(name, value):
    with pytest.raises(DivergedError, match=f"joint epoch 3: {name} is"):
        means.check_finite({"phase": "joint", "epoch": 3, "steps": 4, "ok": 1.0, name: value})


def test_few_users_are_all_trained_on_and_the_last_epoch_is_kept(params, caplog):
    changes = {"ssl_training": "pretrain", "ssl_pretrain_epochs": 3}
    model, loaders = build(without_users(params), **changes)
    with_histories(loaders, [1, 2, 3], [4, 5], [6, 7, 8])
    with_histories(loaders, [1, 2, 3], [1, 2], [1, 2, 3], name="cate_history")
    with caplog.at_level(logging.INFO):
        rows = fit(model, loaders, epochs=1)
    assert "3 users are too few to hold some out" in "".join(lines(caplog))
    epochs = [row for row in rows if row["phase"] == "pretrain"]
    assert len(epochs) == 3
    assert all("held_out_ssl" not in row and row["ssl_loss"] > 0 for row in epochs)


def test_a_single_history_in_all_is_refused(params):
    model, loaders = build(without_users(params), ssl_training="pretrain")
    with_histories(loaders, [1, 2, 3])
    with_histories(loaders, [1, 2, 3], name="cate_history")
    with pytest.raises(InputError, match="needs two users with a history or more"):
        fit(model, loaders, epochs=1)


def test_each_behavior_has_a_method_of_its_own_and_the_losses_are_their_mean(params):
    model, loaders = build(params, ssl_sequences=[["item_history"], ["cate_history"]])
    part = model._self_supervision
    assert [source.features for source in part.sources] == [["item_history"], ["cate_history"]]
    batch = next(iter(loaders["train"]))
    draws = part.generator.get_state()
    both = part.losses(model, batch)
    part.generator.set_state(draws)
    each = [m(s.read(model, batch)) for s, m in zip(part.sources, part.methods, strict=True)]
    assert both.ssl.item() == pytest.approx((each[0].ssl.item() + each[1].ssl.item()) / 2)
    for strategy in STRATEGIES:
        model, loaders = build(params, ssl_sequences=[["item_history"], ["cate_history"]],
                               ssl_training=strategy, ssl_pretrain_epochs=1)  # fmt: skip
        assert fit(model, loaders, epochs=1)


# ----------------------------------------------------------------- files of a run


def test_after_a_validation_inside_an_epoch_the_training_goes_on_with_dropout(params, monkeypatch):
    model, loaders = build(params, eval_steps=5, early_stop_patience=9)
    modes, step = [], FuxiCTRLoop.step

    def spy(self: Any, *arguments: Any) -> torch.Tensor:
        modes.append(self.model.training)
        return step(self, *arguments)

    monkeypatch.setattr(FuxiCTRLoop, "step", spy)
    fit(model, loaders, epochs=1)
    assert modes == [True] * len(loaders["train"])
    assert len(modes) > 5


def test_eval_steps_beyond_the_run_still_validate_at_its_end(params):
    model, loaders = build(params, eval_steps=10**6)
    rows = fit(model, loaders, epochs=2)
    assert "AUC" not in rows[0]
    assert 0 < rows[1]["AUC"] < 1


def test_the_checkpoint_of_an_earlier_run_never_passes_for_one_of_this(params, monkeypatch):
    model, loaders = build(params)
    fit(model, loaders, epochs=1)
    assert os.path.exists(model.checkpoint)
    again, loaders = build(params, seed=8)
    monkeypatch.setattr(FuxiCTRLoop, "validate", lambda self: {})
    with pytest.raises(InputError, match="cannot be read"):
        fit(again, loaders, epochs=1)


@pytest.mark.parametrize("ending", [".model", ".state"])
def test_a_strangers_file_in_the_place_of_ours_is_refused_and_stays(params, ending):
    model, loaders = build(params)
    place = Path(model.checkpoint).with_suffix(ending)
    place.parent.mkdir(parents=True)
    for write in (lambda: torch.save(model.state_dict(), place), lambda: place.write_text("x")):
        write()
        before = place.read_bytes()
        with pytest.raises(InputError, match="was not written by this version of fuxictr_miss"):
            fit(model, loaders, epochs=1)
        assert place.read_bytes() == before


@pytest.mark.parametrize("ending", [".model", ".state"])
def test_no_file_of_a_run_can_run_code(params, ending, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    model, loaders = build(params)
    fit(model, loaders, epochs=1)
    place = Path(model.checkpoint).with_suffix(ending)
    torch.save({"settings": Bomb()}, place)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        checkpoint.load(place)
    assert not (tmp_path / "exploded").exists()


def other_data(params: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The same data set made again from a log with one more item: every path is as before."""
    splits = tmp_path / "splits"
    splits.mkdir()
    for name in ("train", "valid", "test"):
        rows = pl.read_parquet(params[f"{name}_data"])
        if name == "train":
            rows = rows.with_columns(pl.col("item_id").replace("i1", "a_new_item"))
        rows.write_parquet(splits / f"{name}.parquet")
    return {**params, **{f"{n}_data": str(splits / f"{n}.parquet") for n in NAMES}}


NAMES = ("train", "valid", "test")


def test_a_run_is_not_resumed_on_other_data_of_the_same_path(params, tmp_path):
    model, loaders = build(params)
    fit(model, loaders, epochs=1)
    changed = other_data(params, tmp_path)
    again, loaders = build(changed)
    with pytest.raises(InputError, match=r"run\.state was trained on other data"):
        fit(again, loaders, epochs=1, resume=True)
    with pytest.raises(InputError, match=r"run\.model was trained on other data"):
        experiment.load_trained({**changed, "model": "DIN_MISS", "model_id": "run"})


def test_a_run_is_not_resumed_on_other_pretrained_vectors_in_the_same_file(params, tmp_path):
    """Nor do its weights go on with them: the file is a part of the data."""
    users, *rest = params["feature_cols"]
    file = tmp_path / "vectors.npz"
    item = {**users, "name": "item_id", "pretrained_emb": str(file), "pretrain_dim": 4}
    params["feature_cols"] = [{**users, "name": ["user_id", "cate_id"]}, item, *rest]
    np.savez(file, key=np.array(["i1", "i2"]), value=np.ones((2, 4)))
    fit(*build(params), epochs=1)
    assert fit(*build(params), epochs=1, resume=True)
    np.savez(file, key=np.array(["i1", "i2"]), value=np.full((2, 4), 2.0))
    with pytest.raises(InputError, match=r"run\.state was trained on other data"):
        fit(*build(params), epochs=1, resume=True)
    with pytest.raises(InputError, match=r"run\.model was trained on other data"):
        experiment.load_trained({**params, "model": "DIN_MISS", "model_id": "run"})


def test_a_last_epoch_run_again_after_a_kill_logs_the_same(params, monkeypatch):
    """With the checkpoint on disk and the state not yet, the epoch validates again."""
    changes = {"eval_steps": 10**6}
    model, loaders = build(params, **changes)
    whole = [_without_time(row) for row in fit(model, loaders, epochs=2)]
    model, loaders = build(params, **changes)
    save = run.Run._save
    monkeypatch.setattr(run.Run, "_save", lambda self: save(self) if self.epoch == 1 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(model, loaders, epochs=2)
    monkeypatch.undo()
    assert os.path.exists(model.checkpoint)
    again, loaders = build(params, **changes)
    rows = fit(again, loaders, epochs=2, resume=True)
    assert [_without_time(row) for row in rows] == whole


@pytest.mark.parametrize("content", [{"settings": 3}, [1], {"a": 1}])
def test_any_other_file_of_torchs_is_one_sentence(params, content):
    model, loaders = build(params)
    place = Path(model.checkpoint).with_suffix(".state")
    place.parent.mkdir(parents=True)
    torch.save(content, place)
    for resume in (False, True):
        with pytest.raises(InputError):
            fit(model, loaders, epochs=1, resume=resume)
    assert place.exists()


def test_a_checkpoint_in_the_place_of_a_state_is_one_sentence(params):
    model, loaders = build(params)
    fit(model, loaders, epochs=1)
    Path(model.checkpoint).rename(Path(model.checkpoint).with_suffix(".state"))
    with pytest.raises(InputError, match="is a checkpoint, not the state"):
        fit(model, loaders, epochs=1, resume=True)


def test_the_checkpoint_says_what_data_it_is_of_and_loads_strictly_without_us(params):
    model, loaders = build(params)
    fit(model, loaders, epochs=1)
    weights = torch.load(model.checkpoint, weights_only=True)
    assert weights._metadata[""]["data"] == data_digest(model.feature_map.data_dir) != ""
    fresh, _ = build(params)
    fresh.load_weights(model.checkpoint)  # FuxiCTR's own, strict
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in weights.items())


# ----------------------------------------------------------------- digits


def test_the_number_of_threads_and_loader_workers_changes_no_digit(params, tmp_path):
    """One thread is the default, at every batch size and wherever the rows are kept."""
    script = (
        "import sys, yaml, torch\n"
        "from fuxictr_miss.experiment import run\n"
        "result = run(yaml.safe_load(open(sys.argv[1])))\n"
        "for each in [result, *result['history']]: del each['seconds']\n"
        "print(torch.get_num_threads(), result)\n"
    )
    settings = {**params, "model": "DIN_MISS", "ssl_training": "pretrain_joint", "epochs": 1,
                "ssl_pretrain_epochs": 1, "batch_size": 2048}  # fmt: skip
    here = digits(experiment.run({**settings, "model_root": str(tmp_path / "here")}))
    settings.update(model_root=str(tmp_path / "4"), memory_budget_gb=0, num_workers=3)
    config = tmp_path / "4.yaml"
    config.write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        [sys.executable, "-c", script, str(config)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == f"1 {here}"
