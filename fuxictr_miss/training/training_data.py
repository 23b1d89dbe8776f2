"""Log what the contrastive losses learn from before a run; refuse data without positive pairs."""

from __future__ import annotations

import logging
from typing import Any

from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.behavior import in_parts
from fuxictr_miss.errors import InputError
from fuxictr_miss.self_supervision import contrast_of

log = logging.getLogger(__name__)

MIN_PAIR_SHARE = 0.1  # share of the training rows with a pair; the log warns below it


def inspect_training_data(model: BaseModel, train: Any) -> None:
    """Log the behaviors and their share of rows with a pair; call the method's `prepare`.

    Args:
        model: enhanced; a plain backbone is skipped.
        train: the training loader. Only a `TensorDataLoader` gives access to its columns.

    Raises:
        InputError: the embedding tables are frozen, or no training row has a positive pair.
    """
    ssl = contrast_of(model)
    if ssl is None:
        return
    methods: list[Any] = list(ssl.methods)
    for source, method in zip(ssl.sources, methods, strict=True):
        name, tables = " + ".join(source.features), source.described(model)
        if not source.parameters(model):
            raise InputError(
                f"{type(model).__name__}: the tables of {name} are frozen (freeze_emb) and no "
                "layer after them is trainable, so the contrastive losses have nothing to train. "
                "Leave the sequence out of ssl_sequences, or set freeze_emb: False."
            )
        if ssl.reads_fields or not hasattr(train, "columns"):
            kind = "features" if ssl.reads_fields else "behavior"
            log.info("Learns from the %s %s, embedded by %s.", kind, name, tables)
        if not hasattr(train, "columns"):
            continue
        columns = {each: train.column(each) for each in source.features}
        if not ssl.reads_fields:
            enough = getattr(method, "behaviors_of_a_pair", 2)
            _check_pairs(type(model).__name__, name, tables, list(columns.values()), enough)
        if _prepares(method):
            method.prepare(columns)
    if not hasattr(train, "columns") and any(map(_prepares, methods)):
        log.warning(
            "%s: the self-supervised method needs the training split in memory; pass a "
            "fuxictr_miss.data.TensorDataLoader.",
            type(model).__name__,
        )


def _prepares(method: Any) -> bool:
    return hasattr(method, "prepare") and getattr(method, "prepares", True)


def _check_pairs(model: str, name: str, tables: str, columns: list[Tensor], enough: int) -> None:
    """Log the share of rows with a pair of a behavior; refuse it if there is none."""
    share = _share_with_a_pair(columns, enough)
    log.info(
        "Learns from the behavior %s, embedded by %s: %.1f%% of the training rows have a pair.",
        name, tables, 100 * share,
    )  # fmt: skip
    if share == 0:
        raise InputError(
            f"{model}: no training row has a positive pair of the behavior {name}: a history needs "
            f"at least {enough} with a value in every one of these sequences. List the sequences "
            "of one behavior in ssl_sequences (a list of lists gives several behaviors)."
        )
    if share < MIN_PAIR_SHARE:
        log.warning(
            "Only %.1f%% of the training rows have a pair of the behavior %s. Are its sequences "
            "attributes of one behavior? Set ssl_sequences to change them.",
            100 * share, name,
        )  # fmt: skip


def _share_with_a_pair(columns: list[Tensor], enough: int) -> float:
    """The share of rows long enough for a pair; `columns` are J id columns (rows, L)."""
    with_pair = total = 0
    for behavior in in_parts(columns):
        with_pair += int((behavior.length >= enough).sum())
        total += len(behavior.length)
    return with_pair / max(total, 1)
