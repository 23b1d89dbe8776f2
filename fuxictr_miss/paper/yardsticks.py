"""Yardsticks without a backbone: what the training histories alone say about a target item.

A CTR model that does not beat them has learned less than can be counted. They score the same rows
as every model, but give no probabilities, so only the AUC is defined for them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
import torch
from fuxictr.pytorch.models import BaseModel
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm import tqdm

from fuxictr_miss import experiment
from fuxictr_miss.behavior import Behavior
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.ppmi import ppmi_svd
from fuxictr_miss.self_supervision import self_supervision_of
from fuxictr_miss.training.checkpoint import data_of
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.histories import Histories
from fuxictr_miss.training.pretraining import Pretraining
from fuxictr_miss.training.training_data import inspect_training_data

BACKBONE = "DIN"  # whose data, behaviors and K they use
YARDSTICKS = ("Popularity", "ItemKNN", "PPMISVD", "SASRec")
# how SASRec, the Transformer of `_NextItem`, trains; until its held-out loss stops improving
SASREC = {
    "ssl_training": "pretrain",
    "ssl_pretrain_epochs": 60,
    "ssl_pretrain_learning_rate": 4e-3,
    "ssl_pretrain_sampling": "pairs",
}
_UNREAD = ("ssl_", "nextitem_")  # what belongs to models
_ROWS_AT_ONCE = 8192


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Score the validation and the test split; counterpart of `experiment.run`.

    Args:
        params: those of `BACKBONE` on the data set, with the yardstick's name as the model.

    Returns:
        `valid_AUC`, `test_AUC`, `epochs` (0 but for SASRec), `seconds`, `history` (empty).

    Raises:
        InputError: the data has no behavior sequence, or none that shares the target's table.
    """
    started = time.perf_counter()
    name = params["model"]
    read = {key: value for key, value in params.items() if not key.startswith(_UNREAD)}
    trained = SASREC if name == "SASRec" else {}
    method = "NextItem" if trained else "PPMI"
    model, loaders = experiment.build({**read, **trained, "model": f"{BACKBONE}_{method}"})
    ssl = self_supervision_of(model)
    assert ssl is not None
    source, features = ssl.sources[0], model.feature_map.features
    sequences = source.features if trained else source.features[:1]
    targets = [features[each].get("share_embedding") for each in sequences]
    if None in targets:
        raise InputError(
            f"{name} compares the target with {sequences[targets.index(None)]}, which shares the "
            "table of no target: set its share_embedding in the data set "
            f"{params['dataset_id']}."
        )
    train = loaders["train"]
    histories = Histories(train, [sequences], ssl.user, ssl.unknown_user)
    epochs = train_next_item(model, loaders, histories) if trained else 0
    label, item, sequence = model.feature_map.labels[0], targets[0], sequences[0]
    positive, vocab_size = train.column(label) == 1, features[sequence]["vocab_size"]
    users = None if ssl.user is None else train.column(ssl.user)[positive]
    held = user_items(
        histories, sequence, users, train.column(item)[positive], vocab_size, ssl.unknown_user
    )
    result: dict[str, Any] = {}
    for split in ("valid", "test"):
        if (loader := loaders[split]) is None:
            continue
        history, target = loader.column(sequence).long(), loader.column(item).long()
        if trained:
            columns = [[loader.column(each) for each in names] for names in (sequences, targets)]
            scores = next_item(model, *columns)
        elif name == "PPMISVD":
            past = histories.column(sequence).long()
            scores = ppmi_cosine(past, history, target, vocab_size, source.dim)
        elif name == "ItemKNN":
            scores = item_knn(held, history, target)
        else:
            scores = popularity(held, target)
        result[f"{split}_AUC"] = float(roc_auc_score(loader.column(label).numpy(), scores))
    result.update(epochs=epochs, seconds=round(time.perf_counter() - started, 1), history=[])
    return result


def user_items(
    histories: Histories,
    sequence: str,
    users: Tensor | None,
    targets: Tensor,
    vocab_size: int,
    unknown: int,
) -> scipy.sparse.csr_array:
    """The binary matrix (users, V) of who has which item in the training split.

    Args:
        histories: of the training users.
        sequence: the items in them.
        users: (n,) the users of the training rows with label 1; None: the data has no such column.
        targets: (n,) their target items.
        vocab_size: V.
        unknown: the id of users out of the vocabulary, which are different users.
    """
    past = histories.column(sequence).long()
    of_past = torch.repeat_interleave(torch.arange(len(histories)), histories.count)
    first = max(unknown, 0) + 1  # ids below are those of users
    of_past = histories.ids.where(histories.ids != unknown, first + of_past)
    of_target = first + len(histories) + torch.arange(len(targets))
    if users is not None:
        of_target = users.long().where(users != unknown, of_target)
    row, position = past.nonzero(as_tuple=True)
    user = torch.cat([of_past[row], of_target]).numpy()
    item = torch.cat([past[row, position], targets.long()]).numpy()
    shape = first + len(histories) + len(targets), vocab_size
    held = scipy.sparse.csr_array((np.ones(len(user)), (user, item)), shape=shape)
    held.sum_duplicates()  # scipy 1.13 does not by itself
    held.data[:] = 1  # however often
    return held


def popularity(held: scipy.sparse.csr_array, target: Tensor) -> np.ndarray:
    """How many users have the target, in their history or as a positive target: (B,) scores.

    Args:
        held: of `user_items`.
        target: (B,) ids.
    """
    return held.sum(axis=0)[target.numpy()]


def item_knn(held: scipy.sparse.csr_array, history: Tensor, target: Tensor) -> np.ndarray:
    """The mean over the history of the cosine between its item's users and the target's users.

    Args:
        held: of `user_items`.
        history: (B, L) ids; 0 is padding.
        target: (B,) ids.

    Returns:
        (B,) scores; 0 for an empty history.
    """
    length = np.sqrt(held.sum(axis=0))
    unit = held @ scipy.sparse.diags_array(1 / length.clip(min=1))  # columns of length 1
    by_item = scipy.sparse.csr_array(unit.T)  # (V, users)
    scores = []
    for ids, wanted in zip(history.split(_ROWS_AT_ONCE), target.split(_ROWS_AT_ONCE), strict=True):
        row, position = ids.nonzero(as_tuple=True)
        items = ids[row, position].numpy()
        shape = len(ids), held.shape[1]
        counts = scipy.sparse.csr_array((np.ones(len(items)), (row.numpy(), items)), shape=shape)
        profile = counts @ by_item  # (b, users), the sum of its items' vectors
        total = (profile * by_item[wanted.numpy()]).sum(axis=1)
        scores.append(total / counts.sum(axis=1).clip(min=1))
    return np.concatenate(scores) if scores else np.empty(0)


def ppmi_cosine(
    past: Tensor, history: Tensor, target: Tensor, vocab_size: int, dim: int
) -> np.ndarray:
    """The mean over the history of the cosine between the PPMI-SVD rows of its item and the target.

    Args:
        past: (rows, L) training histories; 0 is padding.
        history: (B, L) ids; 0 is padding.
        target: (B,) ids.
        vocab_size: V.
        dim: K.

    Returns:
        (B,) scores; 0 for an empty history.
    """
    table = ppmi_svd(past, vocab_size, dim, row_norm="unit", max_distance=None)
    scores = []
    for ids, wanted in zip(history.split(_ROWS_AT_ONCE), target.split(_ROWS_AT_ONCE), strict=True):
        mean = table[ids].sum(dim=1) / (ids != 0).sum(dim=1, keepdim=True).clamp(min=1)
        scores.append((mean * table[wanted]).sum(dim=1))
    return torch.cat(scores).numpy() if scores else np.empty(0)


def train_next_item(model: BaseModel, loaders: Mapping[str, Any], histories: Histories) -> int:
    """Train a model's `_NextItem` on the histories alone; return the number of epochs.

    Raises:
        InputError: the histories have no next behavior.
    """
    ssl = self_supervision_of(model)
    assert ssl is not None
    inspect_training_data(model, loaders["train"])
    loop = FuxiCTRLoop(model, loaders["valid"], data_of(model))
    with loop.during_fit(max_gradient_norm=10.0):
        phase = Pretraining(loop, ssl, histories, loaders["train"])
        number, over = 0, False
        while not over and number < phase.epochs:
            _, over = phase.epoch(number, tqdm(disable=True))
            number += 1
        phase.end()
    return number


def next_item(model: BaseModel, histories: list[Tensor], targets: list[Tensor]) -> np.ndarray:
    """The scores of the target items by the Transformer of a trained `_NextItem`.

    Args:
        model: of `train_next_item`.
        histories: J sequences, (B, L) ids each.
        targets: J columns, (B,) ids.

    Returns:
        (B,) scores; 0 for an empty history.
    """
    ssl = self_supervision_of(model)
    assert ssl is not None
    model.eval()
    method: Any = ssl.methods[0]
    tables, scores = ssl.sources[0].tables(model), []
    wanted = torch.stack(targets, dim=1).long()
    for *past, items in zip(*(x.split(_ROWS_AT_ONCE) for x in (*histories, wanted)), strict=True):
        behavior = Behavior([ids.to(model.device) for ids in past], tables)
        scores.append(method.scores(behavior, items.to(model.device)).cpu())
    return torch.cat(scores).numpy() if scores else np.empty(0)
