"""What the contrastive losses learn from: said in the log before a run, and refused if nothing."""

from __future__ import annotations

import logging
from typing import Any

from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.errors import InputError
from fuxictr_miss.self_supervision import self_supervision_of

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 65_536
MIN_PAIR_SHARE = 0.1  # share of the training rows with a pair below which the log warns


def inspect_training_data(model: BaseModel, train: Any) -> None:
    """Say what the contrastive losses learn from, and let the method see it if it asks to.

    Raises:
        InputError: they have nothing to learn from.
    """
    ssl = self_supervision_of(model)
    if ssl is None or not ssl.on:
        return
    methods: list[Any] = list(ssl.methods)
    for source, method in zip(ssl.sources, methods, strict=True):
        name = " + ".join(source.sequences)
        if not source.parameters(model):
            raise InputError(
                f"{type(model).__name__}: the tables of {name} are frozen (freeze_emb) and nothing "
                "behind them trains, so the contrastive losses have nothing to teach. Leave the "
                "sequence out of ssl_sequences, or let its table train."
            )
        tables = source.described(model)
        if not hasattr(train, "columns"):
            log.info("Learns from the behavior %s, embedded by %s.", name, tables)
            continue
        columns = {each: train.column(each) for each in source.sequences}
        share = _share_with_a_pair(list(columns.values()), method)
        log.info(
            "Learns from the behavior %s, embedded by %s: %.1f%% of the training rows have a pair.",
            name, tables, 100 * share,
        )  # fmt: skip
        if share == 0:
            raise InputError(
                f"{type(model).__name__}: no training row has a positive pair of the behavior "
                f"{name}: a history needs two behaviors in which every one of these sequences has "
                "a value. Name what belongs together in ssl_sequences (a list of lists gives "
                "several behaviors)."
            )
        if share < MIN_PAIR_SHARE:
            log.warning(
                "Only %.1f%% of the training rows have a pair of the behavior %s. Are its "
                "sequences attributes of one behavior? ssl_sequences names others.",
                100 * share, name,
            )  # fmt: skip
        if hasattr(method, "prepare"):
            method.prepare(columns)
    if not hasattr(train, "columns") and any(hasattr(each, "prepare") for each in methods):
        log.warning(
            "%s cannot see the training split in memory, which its self-supervised method asks "
            "for; pass a fuxictr_miss.data.TensorDataLoader.",
            type(model).__name__,
        )


def _share_with_a_pair(columns: list[Tensor], method: Any) -> float:
    """Of rows with J (rows, L) columns of ids; methods differ in what a pair takes."""
    enough = getattr(method, "behaviors_of_a_pair", 2)
    with_pair = total = 0
    for rows in zip(*(column.split(_ROWS_AT_ONCE) for column in columns), strict=True):
        with_pair += int((Behavior(rows, []).length >= enough).sum())
        total += len(rows[0])
    return with_pair / max(total, 1)
