"""Metrics of a model on a split: FuxiCTR's, without its Python lists and its processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from fuxictr.pytorch.models import BaseModel
from torch import Tensor


def evaluate(model: BaseModel, loader: Any, metrics: Sequence[str]) -> dict[str, float]:
    """The values that FuxiCTR's `model.evaluate` gives.

    Rows of a trimming loader are predicted in the order of their histories' lengths, so that a
    batch is no longer than its rows; every metric sees them in the order of the file. A class that
    has an `evaluate` of its own, as multi-task models have, keeps it.

    Args:
        model: in any mode; it is left in `eval()`.
        loader: a `TensorDataLoader`, or any loader of FuxiCTR's.
        metrics: FuxiCTR's names: AUC, logloss, gAUC, avgAUC, MRR, NDCG(k).

    Raises:
        ValueError: a metric that FuxiCTR does not know.
    """
    if type(model).evaluate is not BaseModel.evaluate:
        values = model.evaluate(loader, metrics=list(metrics))
        return {name: float(value) for name, value in values.items()}
    order = loader.by_length() if hasattr(loader, "by_length") else None
    batches = loader if order is None else loader.batches(order, _MULTIPLE)
    y_pred, y_true, group = _predictions(model, batches)
    if order is not None:
        y_pred, y_true = _restored(y_pred, order), _restored(y_true, order)
        group = None if group is None else _restored(group, order)
    theirs = [name for name in metrics if name not in _WEIGHTS or group is None]
    values = dict(model.evaluate_metrics(y_true, y_pred, theirs, group)) if theirs else {}
    if group is not None:
        for name in set(metrics) - set(theirs):
            values[name] = _grouped_auc(y_true, y_pred, group, by_rows=_WEIGHTS[name])
    return {name: float(values[name]) for name in metrics}


# PyTorch sums several positions at a time: between multiples of their number, leaving padding out
# changes hardly a bit of a sum over positions, nor the order of any two rows. (A matrix product
# over positions would round otherwise.)
_MULTIPLE = 8
# FuxiCTR's means of the groups' AUC, and whether a group counts as its rows or once. Its own code
# hands every group to another process.
_WEIGHTS = {"gAUC": True, "avgAUC": False}


@torch.no_grad()
def _predictions(
    model: BaseModel, batches: Iterable[dict[str, Tensor]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Predictions, labels and, if the feature map has one, group ids: (rows,) each."""
    model.eval()
    y_pred, y_true, group = [], [], []
    for batch in batches:
        y_pred.append(model.forward(batch)["y_pred"].flatten())
        y_true.append(model.get_labels(batch).flatten())
        if model.feature_map.group_id is not None:
            group.append(model.get_group_id(batch).flatten())
    return (
        torch.cat(y_pred).double().cpu().numpy(),
        torch.cat(y_true).double().cpu().numpy(),
        torch.cat(group).cpu().numpy() if group else None,
    )


def _restored(values: np.ndarray, order: Tensor) -> np.ndarray:
    """Values of rows taken in an order, in the order of the file."""
    restored = np.empty_like(values)
    restored[order.numpy()] = values
    return restored


def _grouped_auc(y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray, by_rows: bool) -> float:
    """Mean over the groups that have both labels of the AUC in a group, by its rank sum."""
    order = np.lexsort((y_pred, group))
    y_true, y_pred, group = y_true[order], y_pred[order], group[order]
    new_group = np.append(True, group[1:] != group[:-1])
    new_value = new_group | np.append(True, y_pred[1:] != y_pred[:-1])
    start = np.flatnonzero(new_group)
    size = np.diff(np.append(start, len(group)))
    run = np.flatnonzero(new_value)  # rows of one group and one prediction share their mean rank
    run_size = np.diff(np.append(run, len(group)))
    rank = np.repeat(run + (run_size + 1) / 2, run_size) - np.repeat(start, size)  # from 1
    positives = np.add.reduceat(y_true, start)
    rank_sum = np.add.reduceat(rank * y_true, start)
    both = (positives > 0) & (positives < size)
    p, n = positives[both], (size - positives)[both]
    auc = (rank_sum[both] - p * (p + 1) / 2) / (p * n)
    return float(np.average(auc, weights=size[both] if by_rows else None))
