"""Yardsticks without a backbone, against plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.ppmi import ppmi_svd
from fuxictr_miss.paper import worker, yardsticks
from fuxictr_miss.paper.plan import Experiment
from fuxictr_miss.training.histories import Histories

ITEMS = 6  # of them 0 is padding
UNKNOWN = 9  # the id of users out of the vocabulary


class Train:
    """A training split in memory."""

    def __init__(self, **columns: Any) -> None:
        self.columns = {name: torch.tensor(values) for name, values in columns.items()}

    def column(self, name: str) -> torch.Tensor:
        return self.columns[name]


def held_of(rows: list[tuple[int, list[int], int]]) -> tuple[Any, list[set[int]]]:
    """The matrix of rows (user, history, positive target), and the same in sets of items."""
    width = max(len(history) for _, history, _ in rows)
    padded = [history + [0] * (width - len(history)) for _, history, _ in rows]
    users = [user for user, _, _ in rows]
    train = Train(user=users, past=padded)
    histories = Histories(train, [["past"]], "user", UNKNOWN)
    targets = torch.tensor([target for _, _, target in rows])
    held = yardsticks.user_items(histories, "past", torch.tensor(users), targets, ITEMS, UNKNOWN)
    sets: dict[Any, set[int]] = {}
    for number, (user, history, target) in enumerate(rows):
        if user == UNKNOWN:
            if any(history):
                sets.setdefault(tuple(history), set()).update(history)
            sets.setdefault(number, set()).add(target)
        else:
            sets.setdefault(user, set()).update(history, {target})
    return held, [each for key, each in sets.items() if each]


a_user = st.tuples(
    st.lists(st.integers(1, ITEMS - 1), min_size=1, max_size=4), st.integers(1, ITEMS - 1)
)


@settings(deadline=None, max_examples=50)
@given(st.lists(a_user, min_size=1, max_size=6), st.data())
def test_popularity_and_item_knn_are_those_of_plain_loops(of_users, data):
    rows = [(user, history, target) for user, (history, target) in enumerate(of_users, start=1)]
    held, users = held_of(rows)
    histories = data.draw(st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=3, max_size=3),
                                   min_size=1, max_size=4))  # fmt: skip
    target = data.draw(st.lists(st.integers(1, ITEMS - 1), min_size=len(histories),
                                max_size=len(histories)))  # fmt: skip

    def of(item: int) -> set[int]:
        return {number for number, items in enumerate(users) if item in items}

    def cosine(one: int, other: int) -> float:
        both = len(of(one)) * len(of(other))
        return len(of(one) & of(other)) / math.sqrt(both) if both else 0.0

    wanted = torch.tensor(target)
    assert yardsticks.popularity(held, wanted).tolist() == [len(of(item)) for item in target]
    expected = []
    for history, item in zip(histories, target, strict=True):
        past = [each for each in history if each]
        expected.append(sum(cosine(each, item) for each in past) / max(len(past), 1))
    found = yardsticks.item_knn(held, torch.tensor(histories), wanted)
    assert found == pytest.approx(expected, abs=1e-12)


def test_an_item_counts_once_a_user_in_however_many_rows_and_windows():
    # every prefix is a row, then two windows of a long sequence
    held, _ = held_of([(1, [1], 2), (1, [1, 2], 3), (2, [1, 2], 4), (2, [2, 4], 5)])
    assert yardsticks.popularity(held, torch.arange(ITEMS)).tolist() == [0, 2, 2, 1, 1, 1]


def test_users_out_of_the_vocabulary_are_not_one_user():
    held, users = held_of([(UNKNOWN, [1, 2], 3), (UNKNOWN, [1, 4], 3)])
    assert yardsticks.popularity(held, torch.arange(ITEMS)).tolist() == [0, 2, 1, 2, 1, 0]
    assert len(users) == 4


def test_ppmi_svd_by_itself_is_the_mean_cosine_with_the_target():
    past = torch.tensor([[1, 2, 3], [1, 2, 0], [4, 5, 0], [4, 5, 3]])
    history, target = torch.tensor([[1, 2, 0], [0, 0, 0], [0, 4, 1]]), torch.tensor([2, 3, 5])
    table = ppmi_svd(past, ITEMS, 2, max_distance=None).double().numpy()
    expected = []
    for ids, item in zip(history.tolist(), target.tolist(), strict=True):
        cosines = [table[i] @ table[item] / np.linalg.norm(table[i]) / np.linalg.norm(table[item])
                   for i in ids if i]  # fmt: skip
        expected.append(sum(cosines) / max(len(cosines), 1))
    found = yardsticks.ppmi_cosine(past, history, target, ITEMS, 2)
    assert found == pytest.approx(expected, abs=1e-6)


def test_scores_of_a_split_do_not_depend_on_how_it_is_cut(monkeypatch):
    held, _ = held_of([(1, [1, 2], 3), (2, [2, 3], 4), (3, [4, 5], 1)])
    history, target = torch.randint(0, ITEMS, (11, 4)), torch.randint(1, ITEMS, (11,))
    whole = yardsticks.item_knn(held, history, target)
    monkeypatch.setattr(yardsticks, "_ROWS_AT_ONCE", 3)
    assert yardsticks.item_knn(held, history, target).tolist() == whole.tolist()
    assert not len(yardsticks.item_knn(held, history[:0], target[:0]))


@pytest.mark.parametrize("name", yardsticks.YARDSTICKS)
def test_a_yardstick_scores_both_splits_and_never_reads_their_labels(
    params, splits, name, monkeypatch
):
    monkeypatch.setitem(yardsticks.SASREC, "ssl_pretrain_epochs", 2)
    keys = {"ssl_weight": 0.0, "nextitem_layers": 7}  # of models
    found = yardsticks.run({**params, "model": name, **keys})
    assert {key for key in found if key.endswith("_AUC")} == {"valid_AUC", "test_AUC"}
    assert (found["epochs"], found["history"]) == (2 if name == "SASRec" else 0, [])
    assert found == {**yardsticks.run({**params, "model": name}), "seconds": found["seconds"]}
    if name == "Popularity":
        train, test = (pl.read_parquet(splits / f"{s}.parquet") for s in ("train", "test"))
        pairs = {
            (user, item)
            for label, user, target, past in train.select(
                "label", "user_id", "item_id", "item_history"
            ).iter_rows()
            for item in [*past.split("^"), *([target] if label else [])]
        }
        count = [sum(each == item for _, each in pairs) for item in test["item_id"]]
        assert found["test_AUC"] == pytest.approx(roc_auc_score(test["label"], count))


@pytest.mark.parametrize("name", yardsticks.YARDSTICKS)
def test_a_yardstick_counts_on_the_cpu_whatever_gpu_is_free(params, tmp_path, monkeypatch, name):
    seen = []
    monkeypatch.setattr(yardsticks, "run", lambda params: seen.append(params["gpu"]) or {})
    monkeypatch.chdir(tmp_path)
    job = Experiment(name, "small", 1, "final", {}, {**params, "model": name})
    worker.run(job, 0, str(tmp_path), worker.Options(str(tmp_path)))
    assert seen == [-1]


@pytest.mark.parametrize("name", yardsticks.YARDSTICKS)
def test_without_a_target_of_the_same_table_it_is_refused(params, name):
    for column in params["feature_cols"]:
        column.pop("share_embedding", None)
    with pytest.raises(InputError, match=f"{name} compares the target with item_history"):
        yardsticks.run({**params, "model": name})


def test_sasrec_scores_the_target_by_the_state_after_the_history_and_is_trained(params):
    keys = {**yardsticks.SASREC, "model": "DIN_NextItem", "ssl_pretrain_epochs": 2}
    model, loaders = experiment.build({**params, **keys})
    ssl = model._self_supervision
    before = [p.clone() for p in ssl.trained(model)]
    histories = Histories(loaders["train"], [ssl.sources[0].features], ssl.user, ssl.unknown_user)
    assert yardsticks.train_next_item(model, loaders, histories) == 2
    assert not any(torch.equal(p, b) for p, b in zip(ssl.trained(model), before, strict=True))
    past, target = (
        [loaders["test"].column(f"{name}_{kind}")[:4].long() for name in ("item", "cate")]
        for kind in ("history", "id")
    )
    found = yardsticks.next_item(model, past, target)
    tables = ssl.sources[0].tables(model)
    for b, score in enumerate(found):
        e = [table(ids[b][ids[b] != 0]) for table, ids in zip(tables, past, strict=True)]
        x = torch.cat(e, dim=1).unsqueeze(0)
        h = ssl.methods[0].encoder(x, torch.tensor([x.shape[1]]))[0]
        e = torch.cat([table(ids[b]) for table, ids in zip(tables, target, strict=True)])
        assert score == pytest.approx((h @ e).item(), abs=1e-5)


def test_sasrec_without_a_next_behavior_is_refused_in_one_sentence(params, monkeypatch):
    def of_one_behavior(*arguments):
        model, loaders = experiment_build(*arguments)
        for name in ("item_history", "cate_history"):
            loaders["train"].columns[name][:, 1:] = 0
        return model, loaders

    experiment_build = experiment.build
    monkeypatch.setattr(experiment, "build", of_one_behavior)
    with pytest.raises(InputError, match="no training row has a positive pair"):
        yardsticks.run({**params, "model": "SASRec"})
