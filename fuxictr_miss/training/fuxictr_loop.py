"""The only code that touches the private state of FuxiCTR's `fit`: its steps and early stopping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.checkpoint import write_error
from fuxictr_miss.evaluation import evaluate

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
    """

    def __init__(self, model: BaseModel, valid: Any, data: str) -> None:
        self.model, self.valid, self.data = model, valid, data
        self.checkpoint = Path(model.checkpoint)
        self.verbose = model._verbose

    @contextmanager
    def during_fit(self, max_gradient_norm: float) -> Iterator[None]:
        """Set what a training needs; restore it afterwards, so that `fit` can be called again."""
        model = self.model
        groups = [(g, list(g["params"]), g["lr"]) for g in model.optimizer.param_groups]
        trained = [(p, p.requires_grad) for p in model.parameters()]
        eval_steps = model._eval_steps
        model._verbose = 0  # we show our own progress bar
        model._max_gradient_norm = max_gradient_norm
        hook = model.register_state_dict_post_hook(partial(_mark, data=self.data))
        try:
            yield
        finally:
            hook.remove()
            for name in _DURING_FIT:
                vars(model).pop(name, None)
            model._verbose, model._eval_steps = self.verbose, eval_steps
            model.optimizer.param_groups[:] = [group for group, *_ in groups]
            for group, params, rate in groups:
                group["params"][:], group["lr"] = params, rate
            for parameter, trains in trained:
                parameter.requires_grad_(trains)

    @property
    def max_gradient_norm(self) -> float:
        return self.model._max_gradient_norm

    def begin(self, steps_per_epoch: int) -> None:
        """Set the counters as FuxiCTR's `fit` does at its start."""
        model = self.model
        model._best_metric = np.inf if model._monitor_mode == "min" else -np.inf
        model._stopping_steps = 0
        model._stop_training = False
        model._steps_per_epoch = steps_per_epoch
        model._total_steps = 0
        model._batch_index = 0
        model._epoch_index = 0
        if model._eval_steps is None:
            model._eval_steps = steps_per_epoch

    def step(self, batch: dict[str, Tensor], epoch: int, index: int) -> Tensor:
        """Take one `train_step` and return its loss, a scalar."""
        model = self.model
        model._epoch_index, model._batch_index = epoch, index
        model._total_steps += 1
        return model.train_step(batch).detach()

    @property
    def due(self) -> bool:
        """Whether it is time to validate."""
        return self.model._total_steps % self.model._eval_steps == 0

    @property
    def validated(self) -> bool:
        """Whether this phase has validated, and so has a checkpoint."""
        return bool(np.isfinite(self.model._best_metric))

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
        try:
            model.checkpoint_and_earlystop(metrics)
        except (OSError, RuntimeError) as error:
            raise write_error(self.checkpoint, error) from error
        return metrics

    def state(self) -> dict[str, Any]:
        """The early-stopping state to save after an epoch."""
        return {name: getattr(self.model, name, None) for name in _BETWEEN_EPOCHS}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self.model, name, value)


def _mark(module: Any, state: Any, prefix: str, metadata: dict[str, Any], data: str) -> None:
    """Store the data digest in a state_dict's metadata, which `load_state_dict` ignores."""
    if not prefix:
        metadata["data"] = data
