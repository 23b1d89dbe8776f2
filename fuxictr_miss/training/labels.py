"""The phases with labels: the label loss alone, or with the contrastive losses (Eq. 17)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from fuxictr.pytorch.models import BaseModel
from torch import Tensor
from tqdm import tqdm

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.distributed import processes
from fuxictr_miss.embeddings import id_tables
from fuxictr_miss.self_supervision import contrast_of
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.means import Means, check_finite, diverged, loss_columns

log = logging.getLogger(__name__)

TRIAL_PATIENCE = 1  # epochs of a thaw or a restart; few labels are memorised at once


class Labels:
    """Epochs over the labelled rows, as in FuxiCTR's `fit`, with the losses logged separately.

    Args:
        loop: runs FuxiCTR's training steps on the model.
        train: training batches.
        epochs: the maximum.
        name: "joint" for Eq. 17, "label" for the label loss alone.
        patience: epochs without a better validation metric until the stop; None: the config's.
    """

    def __init__(
        self, loop: FuxiCTRLoop, train: Any, epochs: int, name: str, patience: int | None = None
    ) -> None:
        self.loop, self.train, self.epochs, self.name = loop, train, epochs, name
        ssl = contrast_of(loop.model)
        if ssl is not None:
            ssl.active = name == "joint"
            if not ssl.active:  # else regularizers would still change the method
                ssl.methods.requires_grad_(False)
            self._set_table_rates(ssl.settings)
        loop.begin(len(train), patience)

    def _set_table_rates(self, settings: SSLSettings) -> None:
        """Keep the label loss from the tables; in a joint phase `SSLMixin.forward` does."""
        own = 1.0 if self.name == "joint" else settings.label_gradient
        set_table_rates(self.loop.model, own, settings.other_gradient)
        if self.name != "joint" and settings.label_learning_rate is not None:
            ratio = settings.label_learning_rate / self.loop.learning_rate
            for group in self.loop.model.optimizer.param_groups:
                group["lr"] *= ratio

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self.train)

    def epoch(self, number: int, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """Make one pass; return the means, the metrics, and whether to stop."""
        loop, means = self.loop, Means()
        metrics: dict[str, float] = {}
        ssl = contrast_of(loop.model)
        if ssl is not None and ssl.active:
            ssl.begin_epoch()
        loop.model.train()
        for index, (batch, share) in enumerate(self._batches()):
            with processes.sharing(share):
                losses = _split_losses(loop.model, self._step(batch, number, index))
                losses = {name: processes.weighted(loss) for name, loss in losses.items()}
            means.add(losses)
            if loop.watch is not None:
                loop.watch.add(losses, loop.model.optimizer.param_groups[0]["lr"])
            progress.update()
            if loop.due:
                metrics = self._validate(number)
                loop.model.train()
            if loop.stopped:
                break
        if number + 1 == self.epochs and not loop.validated:
            metrics = self._validate(number)  # eval_steps exceeds the steps of the run
        return {"steps": means.steps, **means.means(), **metrics}, loop.stopped

    def _batches(self) -> Iterator[tuple[dict[str, Tensor], processes.Share | None]]:
        """This process's rows of each batch."""
        if processes.world_size() == 1:
            return ((batch, None) for batch in self.train)
        return self.train.shares(self.loop.share_of)

    def _step(self, batch: dict[str, Tensor], number: int, index: int) -> Tensor:
        try:
            return self.loop.step(batch, number, index)
        except RuntimeError as error:  # torch's cross-entropy refuses NaN
            if "all elements of input should be between 0 and 1" not in str(error):
                raise
            raise diverged(self.name, number + 1, "a prediction", "nan") from error

    def _validate(self, number: int) -> dict[str, float]:
        metrics = self.loop.validate()
        check_finite({"phase": self.name, "epoch": number + 1, **metrics})
        return metrics

    def end(self) -> None:
        """Do nothing: the best weights are in the checkpoint."""

    def state(self) -> dict[str, Any]:
        return self.loop.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.loop.restore(state)


class _Trial(Labels):
    """Label epochs that are kept only if validation improves."""

    def _log(self, after: float, before: float) -> None:
        log.info(
            "%s: best validation %s %.6f, before %.6f: %s.",
            self.name, self.loop.monitor, after, before,
            "kept" if self.loop.best_metric != before else "not kept",
        )  # fmt: skip


class _AllTables(_Trial):
    """All tables train, until the first epoch that is no better."""

    def _set_table_rates(self, settings: SSLSettings) -> None:
        """Train everything."""


class _FromStart(_Trial):
    """A new tower. Early stopping looks at these epochs alone."""

    def end(self) -> None:
        """Keep the better weights, of these epochs or of all before; log which they are."""
        after, rival = self.loop.best_metric, self.loop.rival
        assert rival is not None  # set at the start, or by a resume
        self.loop.keep_the_better()
        self._log(after, rival["metric"])

    def state(self) -> dict[str, Any]:
        return {**super().state(), "rival": self.loop.rival}

    def restore(self, state: dict[str, Any]) -> None:
        self.loop.rival = state["rival"]
        super().restore({k: v for k, v in state.items() if k != "rival"})


class Thaw(_AllTables):
    """Label epochs in which all tables train, from the best weights of the frozen ones.

    What labels are too few to teach does no harm and costs an epoch.
    """

    def __init__(self, loop: FuxiCTRLoop, train: Any, epochs: int) -> None:
        loop.continue_from_best()
        super().__init__(loop, train, epochs, "thaw", TRIAL_PATIENCE)
        self.before = loop.best_metric

    def end(self) -> None:
        """Log what validation keeps."""
        self._log(self.loop.best_metric, self.before)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "before": self.before}

    def restore(self, state: dict[str, Any]) -> None:
        self.before = state["before"]
        super().restore({k: v for k, v in state.items() if k != "before"})


class Restart(_AllTables, _FromStart):
    """Label epochs in which all tables train, from the pretrained tables and a new tower.

    The tables have their own norms, as a user of pretrained embeddings would start the backbone.
    """

    def __init__(self, loop: FuxiCTRLoop, train: Any, epochs: int) -> None:
        loop.restart()
        super().__init__(loop, train, epochs, "restart", TRIAL_PATIENCE)


class Newest(_FromStart):
    """Label epochs on each user's newest rows, with frozen tables and a new tower.

    Where a user has many rows, the target of an older one stands in the history of a newer one, so
    the tables have already brought it close to its own history. A tower that learns from such rows
    trusts the tables too much.

    Args:
        loop: runs FuxiCTR's training steps on the model.
        train: the batches of these rows.
        epochs: the maximum.
        set_norms: gives the pretrained tables the norms of the label epochs.
    """

    def __init__(
        self, loop: FuxiCTRLoop, train: Any, epochs: int, set_norms: Callable[[], None]
    ) -> None:
        loop.restart()
        set_norms()
        super().__init__(loop, train, epochs, "newest")


def set_table_rates(model: BaseModel, own: float, other: float) -> None:
    """Train embedding tables at a share of the learning rate; 0 freezes them.

    Args:
        model: with the optimizer's groups of `compile`.
        own: share of what the contrastive loss trains: tables, and projections behind them.
        other: share of all other tables. Projections that no contrastive loss sees, and the
            weights of numeric features, belong to the tower: they train.
    """
    ssl = contrast_of(model)
    shares = {
        id(table.weight): other for _, table in id_tables(model) if table.weight.requires_grad
    }
    if ssl is not None:
        shares.update(dict.fromkeys(map(id, ssl.table_parameters(model)), own))
    for group in list(model.optimizer.param_groups):
        everything, rate = group["params"], group["lr"]
        group["params"] = [p for p in everything if shares.get(id(p), 1) == 1]
        for share in {own, other} - {1}:
            moved = [p for p in everything if shares.get(id(p), 1) == share]
            if share == 0:
                for parameter in moved:
                    parameter.requires_grad_(False)
            elif moved:
                new = {**group, "params": moved, "lr": rate * share}
                model.optimizer.add_param_group(new)


def _split_losses(model: BaseModel, loss: Tensor) -> dict[str, Tensor]:
    """Split a step's loss into the label loss (with regularizers) and the contrastive losses."""
    ssl = contrast_of(model)
    if ssl is None or not ssl.active or ssl.last is None:
        return {"label_loss": loss}
    term = ssl.weighted(ssl.last) * ssl.settings.every
    return {"label_loss": loss - term, **loss_columns(ssl.last)}
