"""Pretraining: which users an epoch meets, at which rate, and how the tables end."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import chisquare
from tqdm import tqdm

from fuxictr_miss import experiment
from fuxictr_miss.training import fit, pretraining
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.histories import Histories
from fuxictr_miss.training.pretraining import Pretraining

pytestmark = pytest.mark.trained_number

REJECT = 1e-3  # the seeds are fixed
QUIET = tqdm(disable=True)
TABLES = ("item_id", "cate_id")  # each shared with a history


def build(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, Any]]:
    changes = {"ssl_training": "pretrain", "ssl_pretrain_epochs": 2, **changes}
    return experiment.build({**params, "model": "DIN_MISS", **changes})


def pretraining_of(model: Any, loaders: dict[str, Any]) -> Pretraining:
    ssl, train = model._self_supervision, loaders["train"]
    histories = Histories(train, [s.features for s in ssl.sources], ssl.user, ssl.unknown_user)
    loop = FuxiCTRLoop(model, loaders["valid"], "")
    loop.model._max_gradient_norm = 10.0
    return Pretraining(loop, ssl, histories, train)


def weights(model: Any, name: str) -> torch.Tensor:
    return model.embedding_layer.embedding_layers[name].weight.detach()


def test_users_are_drawn_in_proportion_to_their_pairs(params, monkeypatch):
    monkeypatch.setattr(pretraining, "MIN_DRAWS", 20_000)
    model, loaders = build(params, ssl_pretrain_sampling="pairs")
    phase = pretraining_of(model, loaders)
    order = phase._order()
    assert len(order) == 20_000
    assert len(phase) == -(-20_000 // params["batch_size"])
    pairs = phase.histories.pairs[phase.users]
    counts = Counter(order.tolist())
    assert set(counts) == set(phase.users[pairs > 0].tolist())
    drawn = torch.tensor([counts[int(user)] for user in phase.users]).double()[pairs > 0]
    expected = pairs[pairs > 0].double()
    assert chisquare(drawn, expected * drawn.sum() / expected.sum()).pvalue > REJECT


def test_users_are_drawn_evenly_if_all_with_a_pair_are_held_out(params):
    phase = pretraining_of(*build(params, ssl_pretrain_sampling="pairs"))
    phase.histories.pairs[phase.users] = 0
    assert set(phase._order().tolist()) == set(phase.users.tolist())


@pytest.mark.parametrize("sampling", ["users", "pairs"])
def test_users_that_are_held_out_are_trained_on_under_no_prefix(params, sampling, tmp_path,
                                                                monkeypatch):  # fmt: skip
    frame = pl.read_parquet(params["train_data"])
    shorter = frame.with_columns(
        *(
            pl.col(f"{c}_history").str.split("^").list.head(1).list.join("^")
            for c in ("item", "cate")
        )
    )
    pl.concat([frame, shorter]).write_parquet(tmp_path / "train.parquet")
    params = {**params, "train_data": str(tmp_path / "train.parquet")}
    monkeypatch.setattr(pretraining, "MIN_DRAWS", 300)
    model, loaders = build(params, ssl_pretrain_sampling=sampling)
    phase = pretraining_of(model, loaders)
    losses, seen = type(model._self_supervision).losses, []

    def spy(self, model, inputs):
        seen.append(inputs["user_id"].long())
        return losses(self, model, inputs)

    monkeypatch.setattr(type(model._self_supervision), "losses", spy)
    monkeypatch.setattr(phase, "_held_out_loss", lambda: 1.0)
    with phase.loop.during_fit(10.0):
        for epoch in range(3):
            phase.epoch(epoch, QUIET)
    held_out = phase.histories.ids[phase.histories.first[phase.held_out]]
    assert len(held_out) >= pretraining.MIN_HELD_OUT
    assert not torch.isin(torch.cat(seen), held_out).any()


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_linear_schedule_ends_at_nothing(params, schedule):
    model, loaders = build(params, ssl_pretrain_schedule=schedule)
    phase = pretraining_of(model, loaders)
    rates = []
    step = phase.optimizer.step

    def spy(*args, **kwargs):
        rates.append(phase.optimizer.param_groups[0]["lr"])
        return step(*args, **kwargs)

    phase.optimizer.step = spy
    with phase.loop.during_fit(10.0):
        for epoch in range(phase.epochs):
            phase.epoch(epoch, QUIET)
    steps = phase.epochs * len(phase)
    falling = [phase.rate * (1 - step / steps) for step in range(steps)]
    assert rates == pytest.approx(falling if schedule == "linear" else [phase.rate] * steps)
    assert steps > 5
    if schedule == "linear":
        assert rates[-1] == pytest.approx(phase.rate / steps)


@pytest.mark.parametrize("warm", [False, True])
def test_row_norms_are_set_where_the_table_is(warm):
    """Histories stay on the CPU; meta stands for a GPU."""
    table = torch.nn.Embedding(6, 4, device="meta")
    ssl = SimpleNamespace(
        settings=SimpleNamespace(row_norm="log_count"), warm=warm, not_in=lambda tables: [],
        plain_tables=lambda model: [([table], ["item_history"])],
    )  # fmt: skip
    histories = SimpleNamespace(column=lambda name: torch.tensor([[1, 2, 0]]))
    pretraining.set_row_norms(None, ssl, histories)


def test_row_norms_are_as_log_counts_after_the_pretraining_and_1_on_average(params):
    model, loaders = build(params, ssl_row_norm="log_count")
    phase = pretraining_of(model, loaders)
    free = {name: weights(model, name).clone() for name in TABLES}
    phase.end()
    for name, history in zip(TABLES, ("item_history", "cate_history"), strict=True):
        table, counts = (
            weights(model, name),
            Counter(phase.histories.column(history).flatten().tolist()),
        )
        seen = [math.log(1 + count) for i, count in counts.items() if i]
        mean = sum(seen) / len(seen)
        for i, row in enumerate(table):
            count = counts[i] if i else 0
            expected = math.log(1 + count) / mean
            assert float(row.norm()) == pytest.approx(expected, abs=1e-5)
            if count:
                assert float(torch.cosine_similarity(row, free[name][i], dim=0)) == pytest.approx(1)


def test_free_rows_stay_as_trained(params):
    model, loaders = build(params)
    phase = pretraining_of(model, loaders)
    before = {name: weights(model, name).clone() for name in TABLES}
    phase.end()
    assert all(torch.equal(weights(model, name), before[name]) for name in TABLES)


@pytest.mark.parametrize("keys", [{}, {"ppmi_max_distance": 1, "ppmi_row_norm": "unit"}])
def test_a_start_from_the_svd_is_that_of_ppmi(params, monkeypatch, keys):
    params.update(keys)
    start, _ = experiment.build({**params, "model": "DIN_PPMI", "ssl_label_gradient": 0.0})
    ppmi, loaders = experiment.build({**params, "model": "DIN_PPMI", "ssl_label_gradient": 0.0})
    fit(ppmi, loaders["train"], epochs=1, validation_data=loaders["valid"])
    model, loaders = build(params, ssl_start="svd")
    first = []
    epoch = Pretraining.epoch

    def spy(self, number, progress):
        first.append({name: weights(self.model, name).clone() for name in TABLES})
        return epoch(self, number, progress)

    monkeypatch.setattr(Pretraining, "epoch", spy)
    rows = fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert [row["phase"] for row in rows] == ["closed_form", "pretrain", "pretrain", "label"]
    for name in TABLES:
        svd, drawn = weights(ppmi, name), weights(start, name)
        known = svd.any(dim=1, keepdim=True)
        assert torch.equal(first[0][name], svd.where(known, drawn))
        assert drawn[~known.flatten()].any()  # an id out of all histories keeps what was drawn


ITEMS, INTERESTS, STYLES = 96, 6, 8


@pytest.fixture
def videos(params, tmp_path) -> dict[str, Any]:
    """MicroVideo's form: frozen vectors of the candidate and of the history, each behind a layer.

    A user clicks videos of one interest; the vectors mostly show a style, which tells nothing.
    """
    rng = np.random.default_rng(4)
    items = np.arange(ITEMS)
    interest = np.eye(INTERESTS)[items % INTERESTS]
    style = 3 * np.eye(STYLES)[rng.integers(0, STYLES, ITEMS)]
    vectors = np.concatenate([interest, style], axis=1)
    np.savez(tmp_path / "vectors.npz", key=[f"i{item}" for item in items], value=vectors)
    for split, users in (("train", 400), ("valid", 60), ("test", 60)):
        rows = []
        for user in range(users):
            mine = rng.choice(items[items % INTERESTS == user % INTERESTS], 8, replace=False)
            for label, target in ((1.0, mine[-1]), (0.0, rng.integers(ITEMS))):
                history = "^".join(f"i{item}" for item in mine[:-1])
                rows.append((label, f"{split}{user}", f"i{target}", history))
        names = ["label", "user_id", "item_id", "item_history"]
        pl.DataFrame(rows, names, orient="row").write_parquet(tmp_path / f"{split}.parquet")
    width = INTERESTS + STYLES
    known = {"pretrained_emb": str(tmp_path / "vectors.npz"), "dtype": "str", "active": True}
    sequence = {"type": "sequence", "splitter": "^", "max_len": 7}
    layer = f"nn.Linear({width}, {width}, bias=False)"
    return {
        **params,
        **{f"{split}_data": str(tmp_path / f"{split}.parquet") for split in ("train", "valid")},
        "test_data": str(tmp_path / "test.parquet"),
        "feature_cols": [
            {"name": "user_id", "active": True, "dtype": "str", "type": "meta"},
            {"name": "item_id", "type": "categorical", **known},
            {"name": "item_history", **sequence, **known},
        ],
        "feature_specs": [{"name": ["item_id", "item_history"], "feature_encoder": [layer]}],
        "embedding_dim": width,
        "din_target_field": ["item_id"],
        "din_sequence_field": ["item_history"],
        "model": "DIN_MISS",
        "ssl_recipe": "recommended",
        "ssl_start": "svd",
        "ssl_pretrain_epochs": 3,
        "ssl_pretrain_batch_size": 32,
        "ssl_thaw": False,
    }


def test_a_projection_of_frozen_vectors_learns_what_belongs_together(videos, caplog):
    """By the recommended recipe; labels train the candidate's projection, nothing the vectors."""
    model, loaders = experiment.build(videos)
    layer = model.embedding_layer
    candidate = layer.feature_encoders["item_id"][0].weight
    vectors = layer.embedding_layers["item_history"].pretrain_embedding.weight
    vocabulary = json.loads((Path(model.feature_map.data_dir) / "feature_vocab.json").read_text())[
        "item_history"
    ]
    ids = torch.tensor([vocabulary[f"i{item}"] for item in range(ITEMS)])
    interest = torch.arange(ITEMS) % INTERESTS

    def together() -> float:
        """The cosine of two items of one interest, less that of items of two."""
        (table,) = model._self_supervision.sources[0].tables(model)
        rows = torch.nn.functional.normalize(table(ids).detach())
        same = interest[:, None] == interest
        return float((rows @ rows.T)[same].mean() - (rows @ rows.T)[~same].mean())

    before = together(), candidate.detach().clone(), vectors.clone()
    caplog.set_level("INFO")
    fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert before[0] < 0.2
    assert together() > before[0] + 0.4
    assert not torch.equal(candidate, before[1])
    assert torch.equal(vectors, before[2])
    assert "ssl_row_norm leaves item_history as trained" in caplog.text
    assert "ssl_start: svd leaves item_history as drawn" in caplog.text
