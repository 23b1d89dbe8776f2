"""Strategies, what they log, and that a killed run ends as if nothing had happened."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import torch
import yaml

from fuxictr_miss import experiment, training
from fuxictr_miss.errors import InputError

STRATEGIES = ["joint", "pretrain", "pretrain_joint"]


def build(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, Any]]:
    return experiment.build({**params, "model": "DIN_MISS", "model_id": "run", **changes})


def fit(model: Any, loaders: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    return training.fit(model, loaders["train"], validation_data=loaders["valid"], **options)


@pytest.mark.parametrize(
    ("strategy", "names"),
    [("joint", {"joint"}), ("pretrain", {"pretrain", "label"}),
     ("pretrain_joint", {"pretrain", "joint"})],
)  # fmt: skip
def test_phases_of_each_strategy(params, strategy, names):
    model, loaders = build(params, ssl_training=strategy, ssl_pretrain_epochs=2)
    rows = fit(model, loaders, epochs=2)
    assert {row["phase"] for row in rows} == names


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


def test_pretraining_uses_each_history_once_and_holds_some_out(params):
    model, loaders = build(params, ssl_training="pretrain")
    phase = training._Pretraining(model, loaders["train"])
    names = model._self_supervision.sources[0].sequences
    rows = zip(*(loaders["train"].columns[n].tolist() for n in names), strict=True)
    distinct = {str(row) for row in rows}
    used = [
        str(tuple(h[phase.slices[name]].tolist() for name in names))
        for h in [*phase.histories, *phase.held_out]
    ]
    assert sorted(used) == sorted(distinct)
    assert len(phase.held_out) == round(len(distinct) * training.HELD_OUT_SHARE)


def test_a_pretraining_has_a_batch_size_and_a_learning_rate_of_its_own(params):
    given = {"ssl_pretrain_batch_size": 7, "ssl_pretrain_learning_rate": 0.25}
    for keys, size, rate in (({}, params["batch_size"], params["learning_rate"]), (given, 7, 0.25)):
        model, loaders = build(params, ssl_training="pretrain", **keys)
        phase = training._Pretraining(model, loaders["train"])
        assert len(phase) == -(-len(phase.histories) // size)
        assert [group["lr"] for group in phase.optimizer.param_groups] == [rate]
        assert model.optimizer.param_groups[0]["lr"] == params["learning_rate"]


def test_every_epoch_says_how_many_steps_it_took(params):
    model, loaders = build(params, ssl_training="pretrain_joint", ssl_pretrain_epochs=1)
    pretraining, joint = fit(model, loaders, epochs=1)
    assert joint["steps"] == len(loaders["train"])
    assert pretraining["steps"] == len(training._Pretraining(model, loaders["train"]))


def test_pretraining_moves_the_tables_and_nothing_else_of_the_backbone(params):
    model, loaders = build(params, ssl_training="pretrain")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    run = training._Run(model, loaders["train"], loaders["valid"], 1, 10.0, None)
    with run.borrowed():
        run._begin_phase()
        with run._progress(run.phases[0]) as progress:
            run.pretraining.epoch(progress)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    backbone = {k for k in moved if not k.startswith("_self_supervision.")}
    layers = "embedding_layer.embedding_layers."
    wanted = ("item_id", "cate_id", "item_history", "cate_history")
    assert backbone == {f"{layers}{name}.weight" for name in wanted}


def test_pretraining_stops_on_the_held_out_loss_and_keeps_its_best(params, monkeypatch):
    model, loaders = build(params, ssl_training="pretrain", ssl_pretrain_epochs=50)
    losses = iter([3.0, 2.0, *[2.5] * 50])
    kept = []

    def held_out(self):
        kept.append([p.detach().clone() for p in model._self_supervision.trained(model)])
        return next(losses)

    monkeypatch.setattr(training._Pretraining, "_held_out_loss", held_out)
    monkeypatch.setattr(training._Run, "_label_epoch", lambda self, phase, progress: ({}, True))
    monkeypatch.setattr(training, "load", lambda path, data: model.state_dict())
    rows = fit(model, loaders, epochs=1)
    assert len(rows) == 2 + training.PRETRAIN_PATIENCE + 1
    assert all(map(torch.equal, model._self_supervision.trained(model), kept[1]))


def test_held_out_loss_is_the_same_when_nothing_changed(params):
    model, loaders = build(params, ssl_training="pretrain")
    phase = training._Pretraining(model, loaders["train"])
    draws = model._self_supervision.generator.get_state()
    assert phase._held_out_loss() == phase._held_out_loss()
    assert torch.equal(model._self_supervision.generator.get_state(), draws)


def test_frozen_tables_stand_still_and_are_free_again_afterwards(params):
    model, loaders = build(params, ssl_training="pretrain", ssl_pretrain_epochs=1,
                           ssl_embedding_lr_scale=0.0)  # fmt: skip
    seen = []
    step = type(model).train_step

    def spy(self, batch):
        seen.append(self.embedding_layer.embedding_layers["item_id"].weight.detach().clone())
        return step(self, batch)

    type(model).train_step = spy
    fit(model, loaders, epochs=1)
    assert all(torch.equal(each, seen[0]) for each in seen)
    assert all(p.requires_grad for p in model.parameters())


def test_scaled_tables_learn_at_their_own_rate_until_the_end_of_fit(params, monkeypatch):
    model, loaders = build(params, ssl_training="pretrain", ssl_pretrain_epochs=1,
                           ssl_embedding_lr_scale=0.1)  # fmt: skip
    table = model.embedding_layer.embedding_layers["item_id"].weight
    head = next(model.dnn.parameters())

    def rate(parameter):
        groups = model.optimizer.param_groups
        return next(g["lr"] for g in groups if any(p is parameter for p in g["params"]))

    during = []
    validate = training._Run._validate

    def spy(self):
        during.append((rate(table), rate(head)))
        return validate(self)

    monkeypatch.setattr(training._Run, "_validate", spy)
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
    save = training._Run._save

    def save_and_die(self):
        nonlocal epochs_done
        save(self)
        epochs_done += 1
        if epochs_done == stop_after:
            raise Killed

    training._Run._save = save_and_die
    try:
        with pytest.raises(Killed):
            fit(model, loaders, epochs=3)
    finally:
        training._Run._save = save
    model, loaders = build(params, **changes)
    rows = fit(model, loaders, epochs=3, resume=True)
    assert (model.evaluate(loaders["test"]), [_without_time(row) for row in rows]) == whole


def _without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


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
    """The real thing: SIGKILL to a process, then --resume in another one."""
    script = (
        "import sys, yaml, torch; torch.set_num_threads(1)\n"
        "from fuxictr_miss.experiment import run\n"
        "result = run(yaml.safe_load(open(sys.argv[1])), resume=sys.argv[2] == 'resume')\n"
        "for each in [result, *result['history']]: del each['seconds']\n"
        "print(result)\n"
    )
    settings = {**params, "model": "DIN_MISS", "ssl_training": "pretrain_joint", "epochs": 10,
                "early_stop_patience": 10, "ssl_pretrain_epochs": 10}  # fmt: skip
    results = []
    for name, kill in (("whole", False), ("killed", True)):
        settings["model_root"] = str(tmp_path / name)
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-c", script, str(config)]
        if kill:
            state = tmp_path / name / "small" / "DIN_small.state"
            process = subprocess.Popen([*command, "start"], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)  # fmt: skip
            while not state.exists() and process.poll() is None:
                pass
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert process.returncode == -signal.SIGKILL
        done = subprocess.run([*command, "resume"], capture_output=True, text=True, check=True)
        results.append(done.stdout.splitlines()[-1])
    assert results[0] == results[1]


def test_fit_without_validation_data_says_so(params):
    model, loaders = build(params)
    with pytest.raises(InputError, match="validation_data"):
        training.fit(model, loaders["train"], epochs=1)
