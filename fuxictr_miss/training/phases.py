"""The phases of a run: contrastive loss alone, label loss alone, or both (Eq. 17).

A phase has a `name`, a maximum number of `epochs`, a length in steps per epoch, and

    epoch(number, progress) -> (the epoch's values, whether the phase is over)
    end()                      called after its last epoch
    state(), restore(state)    what --resume needs after an interruption
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from tqdm import tqdm

from fuxictr_miss.data.loader import TensorDataLoader
from fuxictr_miss.errors import InputError
from fuxictr_miss.self_supervision import SelfSupervision, contrast_of
from fuxictr_miss.training.alternating import Alternating
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.histories import Histories, Rows, newest_rows
from fuxictr_miss.training.labels import Labels, Newest, Restart, Thaw
from fuxictr_miss.training.pretraining import ClosedForm, Pretraining, set_row_norms

log = logging.getLogger(__name__)


class Phase(Protocol):
    """One stretch of a run."""

    name: str
    epochs: int

    def __len__(self) -> int: ...
    def epoch(self, number: int, progress: tqdm) -> tuple[dict[str, Any], bool]: ...
    def end(self) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


def phases_of(loop: FuxiCTRLoop, train: Any, epochs: int) -> list[Callable[[], Phase]]:
    """One constructor per phase of the model's strategy; a plain backbone has only "label"."""
    ssl = contrast_of(loop.model)

    def labels(name: str) -> Callable[[], Phase]:
        return partial(Labels, loop, train, epochs, name)

    if ssl is None:
        return [labels("label")]
    settings = ssl.settings
    closed_form = all(hasattr(method, "closed_form") for method in ssl.methods)
    strategy = "pretrain" if closed_form else settings.training
    own_tables = strategy != "pretrain" and settings.label_gradient == 0
    starts_from_svd = settings.start == "svd" and _has_svd(ssl)
    if strategy == "joint" and not starts_from_svd and not own_tables:
        return [labels("joint")]
    if not hasattr(train, "columns"):
        raise InputError(
            "Contrastive steps of their own need the training split in memory; pass a "
            "fuxictr_miss.data.TensorDataLoader, or set ssl_training: joint, ssl_start: tables and "
            "an ssl_label_gradient above 0."
        )

    def histories() -> Histories | Rows:
        features = [source.features for source in ssl.sources]
        if ssl.reads_fields:
            return Rows(train, features[0])
        enough = getattr(ssl.methods[0], "behaviors_of_a_pair", 2)
        return Histories(train, features, ssl.user, ssl.unknown_user, enough)

    def pretraining() -> Pretraining:
        return Pretraining(loop, ssl, histories(), train)

    phases: list[Callable[[], Phase]] = []
    if closed_form or starts_from_svd:
        phases.append(lambda: ClosedForm(loop, ssl, histories()))
    if strategy != "joint" and not closed_form:
        phases.append(pretraining)
    if own_tables:
        phases.append(lambda: Alternating(loop, train, epochs, pretraining()))
    else:
        phases.append(labels("label" if strategy == "pretrain" else "joint"))
    frozen = min(settings.label_gradient, settings.other_gradient) < 1
    if settings.thaw and frozen and (own_tables or strategy == "pretrain"):
        phases += [partial(trial, loop, train, epochs) for trial in (Thaw, Restart)]
        newest = _newest(ssl, train)
        if newest is not None:

            def set_norms() -> None:
                if not closed_form:
                    set_row_norms(loop.model, ssl, histories())

            phases.append(partial(Newest, loop, newest, epochs, set_norms))
    return phases


def _has_svd(ssl: SelfSupervision) -> bool:
    """Whether tables can start from the histories' PPMI-SVD; the log says why, if not."""
    if ssl.reads_fields:
        log.info("ssl_start: svd is left out: the method reads no history.")
    elif ssl.warm:
        log.info("ssl_start: svd is left out: --init-from has given the tables their start.")
    else:
        return True
    return False


def _newest(ssl: SelfSupervision, train: TensorDataLoader) -> TensorDataLoader | None:
    """The rows whose targets no pretraining has seen; None if they are most rows, or unknown."""
    if ssl.user is None or ssl.reads_fields or ssl.settings.label_gradient > 0:
        return None
    behaviors = [source.features for source in ssl.sources]
    rows = newest_rows(train, behaviors, ssl.user, ssl.unknown_user)
    return train.of_rows(rows) if 0 < 2 * len(rows) < train.num_samples else None
