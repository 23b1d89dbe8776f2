"""Which user a row belongs to, and what the methods see of it."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from torch import Tensor

from fuxictr_miss import experiment
from fuxictr_miss.methods.miss import MISS
from fuxictr_miss.training.histories import Histories


def test_users_out_of_the_vocabulary_are_each_alone(params, monkeypatch):
    model, loaders = experiment.build({**params, "model": "DIN_MISS"})
    ssl = model._self_supervision
    assert ssl.user == "user_id"
    batch = dict(next(iter(loaders["train"])))
    unknown = model.feature_map.features["user_id"]["vocab_size"] - 1
    assert ssl.unknown_user == unknown
    batch["user_id"] = batch["user_id"].clone()
    batch["user_id"][:4] = unknown
    batch["user_id"][4:6] = 2
    groups: list[Tensor] = []
    forward = MISS.forward
    monkeypatch.setattr(
        MISS, "forward", lambda self, each: groups.append(each.group) or forward(self, each)
    )
    ssl.losses(model, batch)
    (group,) = groups
    assert len(set(group[:4].tolist())) == 4
    assert not set(group[:4].tolist()) & set(group[4:].tolist())
    assert group[4:6].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("changes", "user"),
    [({}, "user_id"), ({"ssl_user": "item_id"}, "item_id"), ({"group_id": "cate_id"}, "cate_id")],
)
def test_the_user_is_the_given_column_or_the_group_or_one_of_its_usual_names(params, changes, user):
    model, _ = experiment.build({**params, "model": "DIN_MISS", **changes})
    assert model._self_supervision.user == user


@pytest.mark.parametrize("remap", [True, False])
def test_the_user_may_be_a_meta_column_as_in_fuxictrs_benchmark(params, monkeypatch, remap):
    """It has no table; its ids tell rows apart, jointly and in pretraining."""
    for split in ("train", "valid", "test"):
        frame = pl.read_parquet(params[f"{split}_data"])
        params[f"{split}_data"] = f"{params['data_root']}_{split}.parquet"
        numbers = pl.col("user_id").str.slice(1).cast(pl.Int64)
        frame.with_columns(user_id=numbers).write_parquet(params[f"{split}_data"])
    user = {"name": "user_id", "active": True, "dtype": "int", "type": "meta", "remap": remap}
    items, *sequences = params["feature_cols"]
    columns = [user, {**items, "name": ["item_id", "cate_id"]}, *sequences]
    changes = {"feature_cols": columns, "ssl_training": "pretrain", "ssl_pretrain_epochs": 1}
    params.update(changes, metrics=["AUC", "gAUC"], group_id="user_id", epochs=1)
    model, loaders = experiment.build({**params, "model": "DIN_MISS"})
    ssl, groups = model._self_supervision, []
    forward = ssl.methods[0].forward
    monkeypatch.setattr(
        ssl.methods[0], "forward", lambda each: groups.append(each.group) or forward(each)
    )
    batch = next(iter(loaders["train"]))
    ssl.losses(model, batch)
    assert torch.equal(groups[0], batch["user_id"].long())
    histories = Histories(loaders["train"], [["item_history"]], ssl.user, ssl.unknown_user)
    assert len(histories) == len(loaders["train"].column("user_id").unique())
    assert 0 < experiment.run({**params, "model": "DIN_MISS"})["test_gAUC"] <= 1


def test_a_user_that_is_no_feature_is_refused_with_the_closest(params):
    with pytest.raises(ValueError, match=r"Unknown ssl_user 'user_ids'.*'user_id'"):
        experiment.build({**params, "model": "DIN_MISS", "ssl_user": "user_ids"})
