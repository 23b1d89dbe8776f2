"""The only code that touches the private state of FuxiCTR's `fit`: its steps and early stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.distributed import processes
from fuxictr_miss.distributed.batch_norm import synchronised_batch_norm
from fuxictr_miss.distributed.sharded_tables import clip_gradients, gathered, groups_of
from fuxictr_miss.errors import InputError
from fuxictr_miss.self_supervision import contrast_of
from fuxictr_miss.training.checkpoint import load, save, write_error
from fuxictr_miss.training.evaluation import evaluate
from fuxictr_miss.training.watch import Watch

# FuxiCTR's `fit` sets these for its `train_step` and early stopping; a trained model needs none.
_DURING_FIT = ("_max_gradient_norm", "_steps_per_epoch", "_total_steps", "_batch_index",
               "_epoch_index", "_best_metric", "_stopping_steps", "_stop_training")  # fmt: skip
_BETWEEN_EPOCHS = ("_best_metric", "_stopping_steps", "_stop_training", "_total_steps",
                   "_eval_steps")  # fmt: skip


class FuxiCTRLoop:
    """Drive a model's own `train_step`, gradient clipping and early stopping.

    Args:
        model: any FuxiCTR model.
        valid: batches for early stopping.
        data: digest of the encoded data, written into every checkpoint.
        watch: shows the curves at a tracker, or None.
    """

    def __init__(self, model: BaseModel, valid: Any, data: str, watch: Watch | None = None) -> None:
        self.model, self.valid, self.data, self.watch = model, valid, data, watch
        self.checkpoint = Path(model.checkpoint)
        self.verbose, self.patience = model._verbose, model._early_stop_patience
        self.eval_steps = model._eval_steps  # None: at the end of an epoch
        self.start: dict[str, Any] | None = None  # weights before any label
        self.rival: dict[str, Any] | None = None  # the best before a restart: metric and weights
        self._loss: Callable[[Any], Tensor] | None = None  # of this phase, if processes share it

    @contextmanager
    def during_fit(self, max_gradient_norm: float) -> Iterator[None]:
        """Set what a training needs; restore it afterwards, so that `fit` can be called again."""
        model = self.model
        self._groups = [(g, list(g["params"]), g["lr"]) for g in model.optimizer.param_groups]
        self._trained = [(p, p.requires_grad) for p in model.parameters()]
        model._verbose = 0  # we show our own progress bar
        model._max_gradient_norm = max_gradient_norm
        hook = model.register_state_dict_post_hook(partial(_mark, data=self.data))
        if processes.world_size() > 1:
            model.save_weights = partial(_save_weights, model)
        try:
            with synchronised_batch_norm(model):
                yield
        finally:
            hook.remove()
            vars(model).pop("save_weights", None)
            for name in _DURING_FIT:
                vars(model).pop(name, None)
            model._verbose, model._eval_steps = self.verbose, self.eval_steps
            model._early_stop_patience = self.patience
            self.train_everything()

    def train_everything(self) -> None:
        """Undo what a phase froze: the parameters and rates as they were before `during_fit`."""
        self.model.optimizer.param_groups[:] = [group for group, *_ in self._groups]
        for group, params, rate in self._groups:
            group["params"], group["lr"] = list(params), rate
        for parameter, trains in self._trained:
            parameter.requires_grad_(trains)

    @property
    def max_gradient_norm(self) -> float:
        return self.model._max_gradient_norm

    def begin(self, steps_per_epoch: int, patience: int | None = None) -> None:
        """Set the counters as FuxiCTR's `fit` does at its start, and how early it stops."""
        model = self.model
        self._loss = None  # a phase may freeze other parameters
        model._early_stop_patience = self.patience if patience is None else patience
        if getattr(model, "_best_metric", None) is None:
            model._best_metric = np.inf if model._monitor_mode == "min" else -np.inf
        model._stopping_steps = 0
        model._stop_training = False
        model._steps_per_epoch = steps_per_epoch
        model._total_steps = 0
        model._batch_index = 0
        model._epoch_index = 0
        model._eval_steps = self.eval_steps or steps_per_epoch

    def continue_from_best(self) -> None:
        """Load the best weights so far, and let every parameter train again."""
        self.train_everything()
        self.model.load_state_dict(load(self.checkpoint, self.data))

    def remember_start(self) -> None:
        """Keep the weights with which the labels begin."""
        self.start = {name: value.clone() for name, value in self.model.state_dict().items()}

    def remember_tables(self, parameters: list[nn.Parameter]) -> None:
        """Put the present values of some parameters into the remembered start."""
        assert self.start is not None
        chosen = {id(each) for each in parameters}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if id(parameter) in chosen:
                self.start[name] = parameter.detach().clone()

    def restart(self) -> None:
        """Load the weights with which the labels began, and let every parameter train.

        The best weights so far are set aside until `keep_the_better`.
        """
        assert self.start is not None  # a phase before the labels has set it
        if self.validated:  # else a resume restores the rival
            best = load(self.checkpoint, self.data) if processes.rank() == 0 else None
            self.rival = {"metric": self.best_metric, "weights": best}
        self.train_everything()
        self.model.optimizer.state.clear()
        self.model.load_state_dict(self.start)
        self.model._best_metric = None

    def keep_the_better(self) -> None:
        """Restore the checkpoint from before the restart, unless the restart is better."""
        assert self.rival is not None  # `restart` has set it
        better = max if self.model._monitor_mode == "max" else min
        if better(self.rival["metric"], self.best_metric) == self.rival["metric"]:
            if processes.rank() == 0:
                save(self.checkpoint, self.rival["weights"])
            processes.barrier()
            self.model._best_metric = self.rival["metric"]
        self.rival = None

    def step(self, batch: dict[str, Tensor], epoch: int, index: int) -> Tensor:
        """Take one `train_step` and return its loss, a scalar."""
        model = self.model
        model._epoch_index, model._batch_index = epoch, index
        model._total_steps += 1
        if processes.world_size() > 1:
            return self._shared_step(batch)
        return model.train_step(batch).detach()

    def share_of(self, rows: int) -> processes.Share | None:
        """This process's share of a batch."""
        ssl = contrast_of(self.model)
        if ssl is None:
            return processes.share_of(rows)
        return processes.share_of(rows, ssl.settings.block_size, ssl.settings.gather_negatives)

    def _shared_step(self, batch: dict[str, Tensor]) -> Tensor:
        """FuxiCTR's `train_step` on a share of a batch: the same, but for who computes the loss."""
        model = self.model
        if self._loss is None:
            trained = [each for each in model.parameters() if each.requires_grad]
            self._loss = processes.synchronised(self._loss_of, groups_of(trained)[0])
        model.optimizer.zero_grad()
        self._loss(batch).backward()
        clip_gradients(model.parameters(), self.max_gradient_norm)
        model.optimizer.step()
        return self._own_loss

    def _loss_of(self, batch: dict[str, Tensor]) -> Tensor:
        model = self.model
        loss = model.compute_loss(model.forward(batch), model.get_labels(batch))
        self._own_loss = loss.detach()
        return loss

    @property
    def due(self) -> bool:
        """Whether it is time to validate."""
        return self.model._total_steps % self.model._eval_steps == 0

    @property
    def learning_rate(self) -> float:
        """The optimizer's rate before any phase changed it."""
        return self._groups[0][2]

    @property
    def best_metric(self) -> float:
        """The monitored validation metric of the checkpoint."""
        return float(self.model._best_metric)

    @property
    def monitor(self) -> str:
        """What is monitored, as AUC, or AUC + -1 logloss for a weighted sum."""
        weights = self.model._monitor.kv_pairs.items()
        return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights)

    @property
    def validated(self) -> bool:
        """Whether this phase has validated, and so has a checkpoint."""
        best = getattr(self.model, "_best_metric", None)
        return best is not None and bool(np.isfinite(best))

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the training."""
        return self.model._stop_training

    def validate(self) -> dict[str, float]:
        """Return the validation metrics; save the checkpoint if they are the best so far.

        Raises:
            InputError: a metric cannot be computed, or the checkpoint cannot be written.
        """
        model = self.model
        wanted = [*model._monitor.get_metrics(), *model.validation_metrics]
        metrics = evaluate(model, self.valid, list(dict.fromkeys(wanted)))
        if self.watch is not None:
            self.watch.validated(metrics)
        try:
            model.checkpoint_and_earlystop(metrics)
        except (OSError, RuntimeError) as error:
            raise write_error(self.checkpoint, error) from error
        processes.barrier()  # the others may read it now
        return metrics

    def state(self) -> dict[str, Any]:
        """The early-stopping state to save after an epoch."""
        return {name: getattr(self.model, name, None) for name in _BETWEEN_EPOCHS}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self.model, name, value)


def check_shareable(model: BaseModel, train: Any) -> None:
    """Refuse what several processes cannot train.

    Raises:
        InputError: the class has a `train_step` of its own, or the loader is not ours.
    """
    if processes.world_size() == 1:
        return
    if type(model).train_step is not BaseModel.train_step:
        raise InputError(
            f"{type(model).__name__} has a train_step of its own, which several processes cannot "
            "share: train it without torchrun."
        )
    if not hasattr(train, "shares"):
        raise InputError(
            "Several processes share batches of a fuxictr_miss.data.TensorDataLoader only: pass "
            "one to fit()."
        )


def _save_weights(model: BaseModel, path: str) -> None:
    """FuxiCTR's `save_weights`, for which rank 0 needs the other ranks' rows of sharded tables."""
    state = gathered(model.state_dict())
    if processes.rank() == 0:
        torch.save(state, path)


def _mark(module: Any, state: Any, prefix: str, metadata: dict[str, Any], data: str) -> None:
    """Store the data digest in a state_dict's metadata, which `load_state_dict` ignores."""
    if not prefix:
        metadata["data"] = data
