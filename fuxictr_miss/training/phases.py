"""The phases of a run: contrastive loss alone, label loss alone, or both (Eq. 17).

A phase has a `name`, a maximum number of `epochs`, a length in steps per epoch, and

    epoch(number, progress) -> (the epoch's values, whether the phase is over)
    end()                      called after its last epoch
    state(), restore(state)    what --resume needs after an interruption
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from tqdm import tqdm

from fuxictr_miss.errors import InputError
from fuxictr_miss.self_supervision import self_supervision_of
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.histories import Histories
from fuxictr_miss.training.labels import Labels, Restart, Thaw
from fuxictr_miss.training.pretraining import ClosedForm, Pretraining


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
    ssl = self_supervision_of(loop.model)
    if ssl is None or not ssl.on:
        return [partial(Labels, loop, train, epochs, "label")]
    settings = ssl.settings
    in_closed_form = all(hasattr(method, "closed_form") for method in ssl.methods)

    def histories() -> Histories:
        behaviors = [source.sequences for source in ssl.sources]
        return Histories(train, behaviors, ssl.user, ssl.unknown_user)

    before: list[Callable[[], Phase]] = []
    if in_closed_form or settings.start == "svd":
        before.append(lambda: ClosedForm(loop, ssl, histories()))
    if settings.training != "joint" and not in_closed_form:
        before.append(lambda: Pretraining(loop, ssl, histories(), train))
    if before and not hasattr(train, "columns"):
        raise InputError(
            "Pretraining needs the training split in memory; pass a "
            "fuxictr_miss.data.TensorDataLoader, or set ssl_training: joint."
        )
    if settings.training != "pretrain" and not in_closed_form:
        return [*before, partial(Labels, loop, train, epochs, "joint")]
    frozen = min(settings.label_gradient, settings.other_gradient) < 1
    after = [Thaw, Restart] if settings.thaw and frozen else []
    trials = [partial(kind, loop, train, epochs) for kind in after]
    return [*before, partial(Labels, loop, train, epochs, "label"), *trials]
