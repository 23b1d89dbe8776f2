"""FuxiCTR's metrics and ECE on a split, computed without its Python lists and worker processes."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.metrics import MRR, NDCG
from fuxictr.pytorch.models import BaseModel
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor

from fuxictr_miss.data.encoded import unknown_id
from fuxictr_miss.distributed import processes
from fuxictr_miss.distributed.sharded_tables import is_sharded
from fuxictr_miss.errors import DivergedError, InputError, unknown

log = logging.getLogger(__name__)

Predicted = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # predictions, labels, group ids


def evaluate(model: BaseModel, loader: Any, metrics: Sequence[str]) -> dict[str, float]:
    """Evaluate a model; same values as FuxiCTR's `model.evaluate`.

    A loader that trims histories predicts rows sorted by history length, so that batches contain
    little padding; the metrics see them in the order of the file. A class with its own `evaluate`,
    such as a multi-task model, or its own `evaluate_metrics` keeps it.

    Several processes predict some of the batches each, and rank 0 measures all rows, each counted
    once. With a class's own `evaluate`, or a loader of another kind, each predicts all rows.

    Args:
        model: in any mode; it is left in `eval()` mode.
        loader: a `TensorDataLoader`, or any loader of FuxiCTR's.
        metrics: FuxiCTR's names: AUC, logloss, gAUC, avgAUC, MRR, NDCG(k); and ECE.

    Returns:
        The metrics by name.

    Raises:
        InputError: a metric is unknown or not defined for these rows.
        DivergedError: a prediction is NaN or infinite.
    """
    where = f"the {split} split" if (split := getattr(loader, "split", None)) else "these rows"
    if type(model).evaluate is not BaseModel.evaluate:
        own = processes.together(lambda: model.evaluate(loader, metrics=list(metrics)))[0]
        model.eval()
        return _finite({name: float(value) for name, value in own.items()}, where)
    for name in () if _evaluates_itself(model) else metrics:
        _check_known(name)
    order = loader.by_length() if hasattr(loader, "by_length") else None
    shared = hasattr(loader, "by_length") and len(loader) >= processes.world_size() > 1
    if shared:
        every = slice(processes.rank(), None, processes.world_size())
        multiple = 1 if order is None else _MULTIPLE
        batches: Iterable[dict[str, Tensor]] = loader.batches(order, multiple, every)
        if is_sharded(model) and processes.rank() >= len(loader) % processes.world_size() > 0:
            batches = itertools.chain(batches, loader.batches(order, multiple, slice(1)))
        predicted = _of_all_processes(_predictions(model, batches), loader)
    else:
        batches = loader if order is None else loader.batches(order, _MULTIPLE)
        predicted = _predictions(model, batches)
    return processes.first(lambda: _measured(model, metrics, predicted, order, where))


def _measured(
    model: BaseModel, metrics: Sequence[str], predicted: Predicted, order: Tensor | None, where: str
) -> dict[str, float]:
    y_pred, y_true, group = predicted
    _check_predictions(y_pred, where)
    if order is not None:
        y_pred, y_true = _restored(y_pred, order), _restored(y_true, order)
        group = None if group is None else _restored(group, order)
    if _evaluates_itself(model):
        values = model.evaluate_metrics(y_true, y_pred, list(metrics), group)
        return _finite({name: float(values[name]) for name in metrics}, where)
    return _finite({name: _value(name, y_true, y_pred, group, where) for name in metrics}, where)


def _of_all_processes(predicted: Predicted, loader: Any) -> Predicted:
    """Put together what the processes predict, each every W-th batch."""
    joined: list[Any] = []
    for values in predicted:
        if values is None:
            joined.append(None)
            continue
        parts = processes.gather_any(torch.from_numpy(values))
        batches = [each.split(loader.batch_size) for each in parts]
        each = (batches[n % len(parts)][n // len(parts)] for n in range(len(loader)))
        joined.append(torch.cat(list(each)).numpy())
    return joined[0], joined[1], joined[2]


def check_defined(model: BaseModel, loader: Any, metrics: Sequence[str]) -> None:
    """Check before training that the metrics of a split are defined for its labels and groups.

    Args:
        model: gives the label and the group column.
        loader: a `TensorDataLoader` of the split.
        metrics: as in `evaluate`.

    Raises:
        InputError: a metric is unknown or not defined for these rows.
    """
    if _evaluates_itself(model):
        return
    feature_map = model.feature_map
    group = None
    if feature_map.group_id is not None:
        group = loader.column(feature_map.group_id).cpu().numpy()
        _report_unknown(feature_map, group, metrics, loader.split)
    y_true = loader.column(feature_map.labels[0]).double().cpu().numpy()
    for name in metrics:
        _check_known(name)
        _check_defined(name, y_true, group, f"the {loader.split} split")


def _report_unknown(
    feature_map: FeatureMap, group: np.ndarray, metrics: Sequence[str], split: str
) -> None:
    """Warn that ids out of the vocabulary are one group, whoever they are."""
    name = feature_map.group_id
    share = float((group == unknown_id(feature_map.features[name])).mean())
    grouped = [each for each in metrics if each not in _WITHOUT_GROUPS]
    if share and grouped:
        log.warning(
            "%s of the %s split takes the %.1f%% of its rows whose %s is out of the vocabulary for "
            "one group: set group_id to a column of type meta, which knows them all.",
            ", ".join(grouped), split, 100 * share, name,
        )  # fmt: skip


def _evaluates_itself(model: BaseModel) -> bool:
    own = (type(model).evaluate, type(model).evaluate_metrics)
    return own != (BaseModel.evaluate, BaseModel.evaluate_metrics)


# PyTorch sums several positions at a time. Trimming padding to multiples of that number hardly
# changes a sum over positions, and not the order of any two rows. (A matrix product over positions
# would round differently.)
_MULTIPLE = 8
# FuxiCTR's grouped AUCs, and whether a group is weighted by its rows. FuxiCTR's own code computes
# each group in another process.
_WEIGHTS = {"gAUC": True, "avgAUC": False}
_LOGLOSS = ("logloss", "binary_crossentropy")
_NDCG = re.compile(r"NDCG\((?:k=)?(\d+)\)")
_WITHOUT_GROUPS = ("AUC", "ECE", *_LOGLOSS)
_KNOWN = (*_WITHOUT_GROUPS, *_WEIGHTS, "MRR", "NDCG(k)")


def _check_known(metric: str) -> None:
    if metric not in _KNOWN[:-1] and not _NDCG.fullmatch(metric):
        raise unknown("metric", metric, _KNOWN)


def _check_predictions(y_pred: np.ndarray, where: str) -> None:
    if not len(y_pred):
        raise InputError(f"There is nothing to evaluate: {where} has no rows.")
    bad = int((~np.isfinite(y_pred)).sum())
    if bad:
        kind = "NaN" if np.isnan(y_pred).any() else "infinite"
        raise DivergedError(
            f"{bad} of {len(y_pred)} predictions of {where} are {kind}: the model has diverged; "
            "lower learning_rate or raise the regularizers."
        )


def _finite(values: dict[str, float], where: str) -> dict[str, float]:
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(
                f"{name} of {where} is {value}: the predictions have diverged, or the labels are "
                "all the same."
            )
    return values


def _check_defined(name: str, y_true: np.ndarray, group: np.ndarray | None, where: str) -> None:
    """Refuse a metric that is undefined for these labels and groups, whatever the predictions."""
    ranked = name == "MRR" or name.startswith("NDCG")
    if group is None and (ranked or name in _WEIGHTS):
        raise InputError(
            f"{name} needs groups: set group_id in the data set's config to the column that holds "
            "the group of a row, for example user_id."
        )
    if ranked:
        return
    if (other := y_true[~np.isin(y_true, (0, 1))]).size:
        raise InputError(f"{name} needs labels 0 and 1; {where} holds {other[0]:g}.")
    if name == "AUC" and (y_true == y_true[0]).all():
        raise InputError(
            f"AUC of {where} is not defined: all {len(y_true)} labels are {y_true[0]:g}. It needs "
            "rows of both labels: split the data anew or set metrics: [logloss]."
        )
    mixed = group is None or np.isin(group[y_true == 1], group[y_true == 0]).any()
    if name in _WEIGHTS and not mixed:
        raise InputError(
            f"{name} of {where} is not defined: no group has rows of both labels; set another "
            "group_id or other metrics."
        )


def _value(
    name: str, y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray | None, where: str
) -> float:
    """Compute a metric; the predictions must be finite.

    Args:
        name: the metric.
        y_true: labels (rows,).
        y_pred: predictions (rows,).
        group: group ids (rows,), for grouped metrics.
        where: how an error message calls the rows.
    """
    _check_defined(name, y_true, group, where)
    if name == "ECE" or name in _LOGLOSS:
        if y_pred.min() < 0 or y_pred.max() > 1:
            raise InputError(f"{name} needs predictions from 0 to 1; {where} has others.")
        if name == "ECE":
            return _calibration_error(y_true, y_pred)
        return float(log_loss(y_true, y_pred, labels=[0, 1]))
    if name == "AUC":
        return float(roc_auc_score(y_true, y_pred))
    assert group is not None
    if name in _WEIGHTS:
        return _grouped_auc(y_true, y_pred, group, by_rows=_WEIGHTS[name])
    match = _NDCG.fullmatch(name)
    metric = NDCG(int(match[1])) if match else MRR
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return float(np.mean([metric(y_true[rows], y_pred[rows]) for rows in groups]))


def _calibration_error(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """The expected calibration error over 15 bins of equal mass (Nguyen and O'Connor 2015).

    The mean over all rows of the distance between the mean label and the mean prediction of the
    row's bin. Equal predictions share a bin.
    """
    edges = np.quantile(y_pred, np.linspace(0, 1, 16)[1:-1])
    excess = np.bincount(np.searchsorted(edges, y_pred), weights=y_pred - y_true)
    return float(np.abs(excess).sum() / len(y_pred))


@torch.no_grad()
def _predictions(model: BaseModel, batches: Iterable[dict[str, Tensor]]) -> Predicted:
    """Predictions, labels and, if the feature map has one, group ids: (rows,) each."""
    model.eval()
    y_pred, y_true, group = [], [], []
    for batch in batches:
        y_pred.append(model.forward(batch)["y_pred"].flatten())
        y_true.append(model.get_labels(batch).flatten())
        if model.feature_map.group_id is not None:
            group.append(model.get_group_id(batch).flatten())
    if not y_pred:
        return np.empty(0), np.empty(0), None
    return (
        torch.cat(y_pred).double().cpu().numpy(),
        torch.cat(y_true).double().cpu().numpy(),
        torch.cat(group).cpu().numpy() if group else None,
    )


def _restored(values: np.ndarray, order: Tensor) -> np.ndarray:
    """Undo a reordering: return the values (rows,) in the order of the file."""
    restored = np.empty_like(values)
    restored[order.numpy()] = values
    return restored


def _grouped_auc(y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray, by_rows: bool) -> float:
    """The mean AUC of the groups that have both labels, each computed from its rank sum."""
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
