"""Training strategies: joint (Eq. 17), pretrain, and pretrain_joint (Section IV.C, Table VIII).

A run is a list of phases. After every epoch the whole state goes to disk, so that a run killed at
any moment continues to the same final metrics.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.pytorch.models import BaseModel
from torch import Tensor
from tqdm import tqdm

from fuxictr_miss.checkpoint import load, save, unwritable
from fuxictr_miss.errors import InputError
from fuxictr_miss.evaluation import evaluate
from fuxictr_miss.logs import without_fuxictr_info

log = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.05  # of the users, whose histories stop the pretraining and never train it
PRETRAIN_PATIENCE = 20  # epochs without a better held-out loss, which may rest for ten of them
_HELD_OUT_SEED = 15068  # the held-out pairs are the same in every epoch


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of a run."""

    name: str  # "pretrain": contrastive loss only; "joint": Eq. 17; "label": the label loss only
    epochs: int


def phases_of(model: BaseModel, epochs: int) -> list[Phase]:
    """The phases of a model's strategy; a plain backbone has one, "label"."""
    ssl = getattr(model, "ssl", None)
    if ssl is None or not any(ssl.alpha):
        return [Phase("label", epochs)]
    if ssl.training == "joint":
        return [Phase("joint", epochs)]
    second = "label" if ssl.training == "pretrain" else "joint"
    return [Phase("pretrain", ssl.pretrain_epochs), Phase(second, epochs)]


def fit(
    model: BaseModel,
    data_generator: Any,
    /,
    epochs: int = 1,
    validation_data: Any = None,
    max_gradient_norm: float = 10.0,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    **_: Any,
) -> list[dict[str, Any]]:
    """Train a model by its strategy and load its best weights; FuxiCTR's `fit`, and resumable.

    With `joint` or a plain backbone the arithmetic is FuxiCTR's own: its `train_step`, its
    gradient clip, its early stopping.

    Args:
        model: a FuxiCTR model, enhanced or not.
        data_generator: training batches; a `TensorDataLoader` for any kind of pretraining.
        epochs: of the phase with labels, at most.
        validation_data: batches for early stopping.
        max_gradient_norm: of FuxiCTR's global clip.
        resume: go on from the state of an earlier run, if there is one.
        settings: what must be equal for a resume to be one of the same experiment.

    Returns:
        One row an epoch: phase, epoch, steps, losses, similarity, validation metrics, seconds.

    Raises:
        InputError: there is no validation data, or the state is one of another experiment.
    """
    if validation_data is None:
        raise InputError("fit() needs validation_data: it decides when to stop and what to keep.")
    run = _Run(model, data_generator, validation_data, epochs, max_gradient_norm, settings)
    _prepare_method(model, data_generator)
    with without_fuxictr_info():
        run.go(resume)
    return run.rows


def _prepare_method(model: BaseModel, train: Any) -> None:
    """Let a method that asks for it see the training split's sequences."""
    prepare = getattr(getattr(model, "ssl_method", None), "prepare", None)
    if prepare is None or not any(model.ssl.alpha):
        return
    if hasattr(train, "columns"):
        prepare({name: train.column(name) for name in model.behavior_source.sequences})
    else:
        log.warning(
            "%s cannot see the training split in memory, which its self-supervised method asks "
            "for; pass a fuxictr_miss.data.TensorDataLoader.",
            type(model).__name__,
        )


class _Run:
    """A run in progress: everything that has to survive a kill is in `state`."""

    def __init__(
        self,
        model: BaseModel,
        train: Any,
        valid: Any,
        epochs: int,
        max_gradient_norm: float,
        settings: Mapping[str, Any] | None,
    ) -> None:
        self.model, self.train, self.valid = model, train, valid
        self.phases = phases_of(model, epochs)
        self.settings = {"model": type(model).__name__, **(settings or {})}
        self.path = Path(model.checkpoint).with_suffix(".state")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        self.phase, self.epoch = 0, 0  # the next to run
        self.pretraining: _Pretraining | None = None
        self.frozen: list[Tensor] = []
        self.verbose, model._verbose = model._verbose, 0  # the bars are ours
        model._max_gradient_norm = max_gradient_norm
        model.valid_gen = valid

    def go(self, resume: bool) -> None:
        if not (resume and self._restore()):
            self.path.unlink(missing_ok=True)
            self._begin_phase()
        while self.phase < len(self.phases):
            phase = self.phases[self.phase]
            finished = False
            with self._progress(phase) as progress:
                while self.epoch < phase.epochs and not finished:
                    started = time.perf_counter()
                    row, finished = self._run_epoch(phase, progress)
                    row["seconds"] = time.perf_counter() - started
                    self.rows.append(row)
                    self.epoch += 1
                    log.info("%s", describe(row))
                    finished = finished or self.epoch == phase.epochs
                    if finished:
                        self._end_phase(phase)
                    self._save()
        self.model.load_weights(self.model.checkpoint)
        for parameter in self.frozen:
            parameter.requires_grad_(True)

    def _run_epoch(self, phase: Phase, progress: tqdm) -> tuple[dict[str, Any], bool]:
        row = {"phase": phase.name, "epoch": self.epoch + 1}
        if self.pretraining is not None:
            values, finished = self.pretraining.epoch(progress)
        else:
            values, finished = self._label_epoch(progress)
        return {**row, **values}, finished

    def _begin_phase(self) -> None:
        """Set up the phase at `self.phase`, as FuxiCTR's `fit` does for a label phase."""
        model, phase = self.model, self.phases[self.phase]
        self.epoch = 0
        self.pretraining = None
        model.zero_grad(set_to_none=True)  # FuxiCTR's clip counts every gradient it finds
        if phase.name == "pretrain":
            self.pretraining = _Pretraining(model, self.train)
            return
        if hasattr(model, "ssl"):
            model.ssl_active = phase.name == "joint"
            if len(self.phases) > 1:
                self.frozen = model.scale_embedding_rate()
        model._best_metric = np.inf if model._monitor_mode == "min" else -np.inf
        model._stopping_steps = 0
        model._stop_training = False
        model._steps_per_epoch = len(self.train)
        model._total_steps = 0
        model._batch_index = 0
        model._epoch_index = 0
        if model._eval_steps is None:
            model._eval_steps = model._steps_per_epoch

    def _end_phase(self, phase: Phase) -> None:
        if self.pretraining is not None:
            self.pretraining.keep_best()
        self.phase += 1
        if self.phase < len(self.phases):
            self._begin_phase()

    def _label_epoch(self, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """One pass over the instances; FuxiCTR's `train_epoch`, with the losses taken apart."""
        model = self.model
        model.train()
        model._epoch_index = self.epoch
        sums = _Means()
        metrics: dict[str, float] = {}
        for index, batch in enumerate(self.train):
            model._batch_index = index
            model._total_steps += 1
            sums.add(_losses_apart(model, model.train_step(batch).detach()))
            progress.update()
            if model._total_steps % model._eval_steps == 0:
                metrics = self._validate()
                model.train()
            if model._stop_training:
                break
        return {"steps": sums.steps, **sums.means(), **metrics}, model._stop_training

    def _validate(self) -> dict[str, float]:
        model = self.model
        wanted = [*model._monitor.get_metrics(), *model.validation_metrics]
        metrics = evaluate(model, self.valid, list(dict.fromkeys(wanted)))
        try:
            model.checkpoint_and_earlystop(metrics)
        except (OSError, RuntimeError) as error:
            raise unwritable(Path(model.checkpoint), error) from error
        return metrics

    @contextmanager
    def _progress(self, phase: Phase) -> Iterator[tqdm]:
        steps = len(self.train) if self.pretraining is None else len(self.pretraining)
        with tqdm(
            total=steps * phase.epochs,
            initial=steps * self.epoch,
            desc=phase.name,
            unit=" steps",
            disable=self.verbose == 0,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        ) as progress:
            yield progress

    def _save(self) -> None:
        model = self.model
        generator = getattr(model, "ssl_generator", None)
        save(
            self.path,
            {
                "settings": self.settings,
                "phase": self.phase,
                "epoch": self.epoch,
                "rows": self.rows,
                "model": model.state_dict(),
                "optimizer": model.optimizer.state_dict(),
                "training": {name: getattr(model, name, None) for name in _FUXICTR_STATE},
                "pretraining": self.pretraining and self.pretraining.state(),
                "random": _random_state(),
                "order": _generator_state(getattr(self.train, "generator", None)),
                "draws": _generator_state(generator),
            },
        )

    def _restore(self) -> bool:
        """Continue from the saved state; False if there is none."""
        if not self.path.exists():
            log.info("Nothing to resume at %s: starting from the beginning.", self.path)
            return False
        state = load(self.path)
        different = [
            f"{key} was {state['settings'].get(key)!r} and is {self.settings.get(key)!r}"
            for key in sorted({*state["settings"], *self.settings})
            if state["settings"].get(key) != self.settings.get(key)
        ]
        if different:
            raise InputError(
                f"{self.path} is the state of another experiment: {'; '.join(different[:5])}. "
                "Start without --resume, or with the settings of that run."
            )
        model = self.model
        self.phase, self.rows = state["phase"], state["rows"]
        if self.phase < len(self.phases):
            self._begin_phase()
        self.epoch = state["epoch"]
        model.load_state_dict(state["model"])
        if self.phase < len(self.phases):  # a finished run has no step to take
            model.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["training"].items():
            setattr(model, name, value)
        if self.pretraining is not None and state["pretraining"]:
            self.pretraining.restore(state["pretraining"])
        _restore_random_state(state["random"])
        for generator, saved in (
            (getattr(self.train, "generator", None), state["order"]),
            (getattr(model, "ssl_generator", None), state["draws"]),
        ):
            if generator is not None and saved is not None:
                generator.set_state(saved)
        log.info("Resumed from %s after %d epochs.", self.path, len(self.rows))
        return True


# What FuxiCTR's fit keeps on the model between epochs.
_FUXICTR_STATE = (
    "_best_metric",
    "_stopping_steps",
    "_stop_training",
    "_total_steps",
    "_eval_steps",
)


class _Pretraining:
    """The contrastive loss alone, on one history a user, until held-out users get no better."""

    def __init__(self, model: BaseModel, train: Any) -> None:
        if not hasattr(train, "columns"):
            raise InputError(
                "ssl_training: pretrain needs the training split in memory; "
                "pass a fuxictr_miss.data.TensorDataLoader."
            )
        self.model = model
        self.batch_size = model.ssl.pretrain_batch_size or train.batch_size
        self.sequences = model.behavior_source.sequences
        histories = torch.stack([train.column(name) for name in self.sequences], dim=1)
        histories = histories.cpu().unique(dim=0)  # (users, J, L); a batch of them is soon sent
        self.generator = torch.Generator().manual_seed(train.generator.initial_seed())
        shuffled = histories[torch.randperm(len(histories), generator=self.generator)]
        held_out = max(1, round(len(shuffled) * HELD_OUT_SHARE))
        self.held_out, self.histories = shuffled[:held_out], shuffled[held_out:]
        rate = model.ssl.pretrain_learning_rate or model.optimizer.param_groups[0]["lr"]
        self.optimizer = type(model.optimizer)(model.ssl_parameters(), lr=rate)
        self.best_loss, self.worse, self.best = float("inf"), 0, self._weights()

    def __len__(self) -> int:
        """Steps an epoch."""
        return -(-len(self.histories) // self.batch_size)

    def epoch(self, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """One pass over the histories; returns the means, and whether to stop."""
        model = self.model
        model.train()
        order = torch.randperm(len(self.histories), generator=self.generator)
        sums = _Means()
        for rows in order.split(self.batch_size):
            losses = model.ssl_losses(self._batch(self.histories[rows]))
            self.optimizer.zero_grad()
            model.weighted_ssl(losses).backward()
            torch.nn.utils.clip_grad_norm_(model.ssl_parameters(), model._max_gradient_norm)
            self.optimizer.step()
            sums.add(_named(losses))
            progress.update()
        held_out = self._held_out_loss()
        if held_out < self.best_loss:
            self.best_loss, self.worse, self.best = held_out, 0, self._weights()
        else:
            self.worse += 1
        means = {"steps": sums.steps, **sums.means(), "held_out_ssl": held_out}
        return means, self.worse >= PRETRAIN_PATIENCE

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """α1 L_ssl + α2 L'_ssl of the held-out histories, with the same draws every time."""
        draws = self.model.ssl_generator
        before = draws.get_state()
        draws.manual_seed(_HELD_OUT_SEED)
        self.model.eval()
        total = torch.zeros((), device=self.model.device)
        for histories in self.held_out.split(self.batch_size):
            losses = self.model.ssl_losses(self._batch(histories))
            total += self.model.weighted_ssl(losses) * len(histories)
        draws.set_state(before)
        return float(total) / len(self.held_out)

    def _batch(self, histories: Tensor) -> dict[str, Tensor]:
        used = (histories != 0).any(dim=1).any(dim=0).nonzero()
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        return {name: histories[:, j, first:last] for j, name in enumerate(self.sequences)}

    def _weights(self) -> list[Tensor]:
        return [each.detach().clone() for each in self.model.ssl_parameters()]

    def keep_best(self) -> None:
        """Go back to the weights of the best held-out loss."""
        with torch.no_grad():
            for parameter, best in zip(self.model.ssl_parameters(), self.best, strict=True):
                parameter.copy_(best)

    def state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "order": self.generator.get_state(),
            "best": (self.best_loss, self.worse, self.best),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["order"])
        self.best_loss, self.worse, self.best = state["best"]


class _Means:
    """Means of scalar tensors over steps, without a synchronisation a step."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}  # of the steps that had each
        self.steps = 0

    def add(self, values: dict[str, Tensor]) -> None:
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}


def _losses_apart(model: BaseModel, loss: Tensor) -> dict[str, Tensor]:
    """The step's label loss (with regularizers) and, if there are any, the contrastive losses."""
    if not getattr(model, "ssl_active", False) or model.last_ssl is None:
        return {"label_loss": loss}
    term = model.weighted_ssl(model.last_ssl) * model.ssl.every
    return {"label_loss": loss - term, **_named(model.last_ssl)}


def _named(losses: Any) -> dict[str, Tensor]:
    return {
        "ssl_loss": losses.ssl.detach(),
        "ssl_feature_loss": losses.feature.detach(),
        "similarity": losses.similarity.detach(),
    }


def describe(row: Mapping[str, Any]) -> str:
    """The log line of an epoch."""
    numbers = [f"{k} {v:.4f}" for k, v in row.items() if isinstance(v, float) and k != "seconds"]
    return f"{row['phase']} epoch {row['epoch']}: {' | '.join(numbers)} | {row['seconds']:.1f} s"


def _random_state() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


def _generator_state(generator: torch.Generator | None) -> Tensor | None:
    return None if generator is None else generator.get_state()
