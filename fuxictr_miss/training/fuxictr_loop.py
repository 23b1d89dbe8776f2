"""What FuxiCTR's `fit` keeps on a model, its early stopping and its steps: touched here only."""

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

# Set by its `fit` and read by its `train_step` and early stopping; a trained model needs none.
_DURING_FIT = ("_max_gradient_norm", "_steps_per_epoch", "_total_steps", "_batch_index",
               "_epoch_index", "_best_metric", "_stopping_steps", "_stop_training")  # fmt: skip
_BETWEEN_EPOCHS = ("_best_metric", "_stopping_steps", "_stop_training", "_total_steps",
                   "_eval_steps")  # fmt: skip


class FuxiCTRLoop:
    """FuxiCTR's arithmetic on a model: its `train_step`, gradient clip and early stopping.

    Args:
        model: any FuxiCTR model.
        valid: batches for early stopping.
        data: digest of the encoded data, to be written into every checkpoint.
    """

    def __init__(self, model: BaseModel, valid: Any, data: str) -> None:
        self.model, self.valid, self.data = model, valid, data
        self.checkpoint = Path(model.checkpoint)
        self.verbose = model._verbose

    @contextmanager
    def during_fit(self, max_gradient_norm: float) -> Iterator[None]:
        """Leave the model as it came, but for what it has learned: `fit` may be called again."""
        model = self.model
        groups = [(g, list(g["params"]), g["lr"]) for g in model.optimizer.param_groups]
        trained = [(p, p.requires_grad) for p in model.parameters()]
        eval_steps = model._eval_steps
        model._verbose = 0  # the bars are ours
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
        """As FuxiCTR's `fit` begins."""
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
        """One `train_step`; the loss."""
        model = self.model
        model._epoch_index, model._batch_index = epoch, index
        model._total_steps += 1
        return model.train_step(batch).detach()

    @property
    def due(self) -> bool:
        """Whether it is time to validate."""
        return self.model._total_steps % self.model._eval_steps == 0

    @property
    def stopped(self) -> bool:
        """Whether validation has got no better for as long as the patience allows."""
        return self.model._stop_training

    def validate(self) -> dict[str, float]:
        """The validation metrics; keeps the weights if they are the best so far."""
        model = self.model
        wanted = [*model._monitor.get_metrics(), *model.validation_metrics]
        metrics = evaluate(model, self.valid, list(dict.fromkeys(wanted)))
        try:
            model.checkpoint_and_earlystop(metrics)
        except (OSError, RuntimeError) as error:
            raise write_error(self.checkpoint, error) from error
        return metrics

    def state(self) -> dict[str, Any]:
        """What has to survive between two epochs."""
        return {name: getattr(self.model, name, None) for name in _BETWEEN_EPOCHS}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self.model, name, value)


def _mark(module: Any, state: Any, prefix: str, metadata: dict[str, Any], data: str) -> None:
    """Say in a state_dict, where `load_state_dict` looks for no weights, what data it is of."""
    if not prefix:
        metadata["data"] = data
