"""A training run: one phase after another, with the full state saved after every epoch."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.pytorch.models import BaseModel
from torch import Tensor
from tqdm import tqdm

from fuxictr_miss.distributed import processes
from fuxictr_miss.distributed.sharded_tables import gathered, load_optimizer, spread_as
from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.root_logger import without_fuxictr_info
from fuxictr_miss.outputs.logs import forget_earlier
from fuxictr_miss.outputs.run_files import METRICS, TRACKER, remove_run_file
from fuxictr_miss.self_supervision import self_supervision_of
from fuxictr_miss.training.checkpoint import data_of, load, remove_own, save
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop, check_shareable
from fuxictr_miss.training.means import check_finite, log_line
from fuxictr_miss.training.phases import Phase, phases_of
from fuxictr_miss.training.training_data import inspect_training_data
from fuxictr_miss.training.watch import Watch

log = logging.getLogger(__name__)

STATE_FORMAT = 6  # version of the .state file that a resume reads


def fit(
    model: BaseModel,
    data_generator: Any,
    /,
    epochs: int = 1,
    validation_data: Any = None,
    max_gradient_norm: float = 10.0,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    **_: Any,
) -> list[dict[str, Any]]:
    """Train a model by its strategy and load its best weights; a resumable FuxiCTR `fit`.

    `joint` training and plain backbones use FuxiCTR's own `train_step`, gradient clipping and early
    stopping.

    Args:
        model: a FuxiCTR model, enhanced or not.
        data_generator: training batches; a `TensorDataLoader` for any kind of pretraining.
        epochs: maximum for the phase with labels; pretraining has `ssl_pretrain_epochs`.
        validation_data: batches for early stopping.
        max_gradient_norm: the norm to which FuxiCTR clips the gradients.
        resume: continue from the saved state of an earlier run, if there is one.
        settings: the run's settings; a resume is refused where they differ from the saved ones.
        watch: shows the curves at a tracker.

    Returns:
        One row per epoch: phase, epoch, steps, losses, similarity, validation metrics, seconds.

    Raises:
        InputError: there is no training or validation data, the contrastive losses have nothing to
            learn from, or the saved state belongs to another experiment.
        DivergedError: a loss or a metric is NaN or infinite.
    """
    if validation_data is None:
        raise InputError(
            "fit() needs validation_data, to stop early and to choose the best epoch: a data set's "
            "config names it by valid_data, or takes it from the training rows by valid_size."
        )
    if not len(data_generator):
        raise InputError("fit() needs training data, but data_generator has no rows.")
    if epochs < 1:
        raise InputError(f"epochs must be 1 or more, got {epochs}.")
    check_shareable(model, data_generator)
    run = Run(model, data_generator, validation_data, epochs, settings, watch)
    inspect_training_data(model, data_generator)
    with without_fuxictr_info(), run.loop.during_fit(max_gradient_norm):
        run.go(resume)
    return run.rows


class Run:
    """A run in progress.

    Args:
        model: the model to train.
        train: training batches.
        valid: batches for early stopping.
        epochs: maximum for the phase with labels.
        settings: as in `fit`.
        watch: as in `fit`.
    """

    def __init__(
        self,
        model: BaseModel,
        train: Any,
        valid: Any,
        epochs: int,
        settings: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.train, self.ssl = model, train, self_supervision_of(model)
        self.data = data_of(model)
        self.loop = FuxiCTRLoop(model, valid, self.data, watch)
        self.phase_factories = phases_of(self.loop, train, epochs)
        own = {"model": type(model).__name__, "data": self.data, "state_format": STATE_FORMAT}
        self.settings = {**own, **(settings or {})}
        self.path = Path(model.checkpoint).with_suffix(".state")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        self.number, self.epoch = 0, 0  # the next phase, and the next epoch in it
        self.phase: Phase | None = None

    def go(self, resume: bool) -> None:
        """Run the remaining epochs and load the best weights."""
        if not (resume and self._restore()):
            if processes.rank() == 0:
                remove_own(self.path)
                remove_own(self.loop.checkpoint)
                for ending in (METRICS, TRACKER):
                    remove_run_file(self.path.with_suffix(ending))
                forget_earlier(self.path.with_suffix(".log"))
            self._begin()
        watch = self.loop.watch
        if watch is not None:
            watch.begin(self.rows)
        if self.ssl is not None:
            # several processes would have to agree on it, and only rank 0 has a tracker
            self.ssl.watched = watch is not None and processes.world_size() == 1
        try:
            while self.phase is not None:
                with self._progress(self.phase) as progress:
                    while self._epoch(self.phase, progress):
                        pass
        finally:
            if self.ssl is not None:
                self.ssl.active, self.ssl.watched = True, False
        self.model.load_state_dict(load(self.loop.checkpoint, self.data))

    def _begin(self) -> None:
        """Start phase `self.number`; set `phase` to None after the last."""
        self.model.zero_grad(set_to_none=True)  # FuxiCTR's clipping would count old gradients
        self.epoch = 0
        phases_left = self.phase_factories[self.number :]
        self.phase = phases_left[0]() if phases_left else None

    def _epoch(self, phase: Phase, progress: tqdm) -> bool:
        """Run one epoch and save the state; return whether the phase continues."""
        started = time.perf_counter()
        if processes.world_size() > 1:
            processes.seed_epoch(self.train.generator.initial_seed(), len(self.rows))
        values, over = phase.epoch(self.epoch, progress)
        self.epoch += 1
        row = {"phase": phase.name, "epoch": self.epoch, **values}
        row["seconds"] = time.perf_counter() - started
        self.rows.append(row)
        log.info("%s", log_line(row))
        if self.loop.watch is not None:
            self.loop.watch.epoch(row)
        check_finite(row)
        over = over or self.epoch == phase.epochs
        if over:
            phase.end()
            self.number += 1
            self._begin()
        self._save()
        return not over

    def _progress(self, phase: Phase) -> tqdm:
        return tqdm(
            total=len(phase) * phase.epochs,
            initial=len(phase) * self.epoch,
            desc=phase.name,
            unit=" steps",
            disable=self.loop.verbose == 0 or processes.rank() > 0,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        )

    def _save(self) -> None:
        model = self.model
        state = gathered(
            {
                "settings": self.settings,
                "number": self.number,
                "epoch": self.epoch,
                "rows": self.rows,
                "model": model.state_dict(),
                "optimizer": model.optimizer.state_dict(),
                "phase": self.phase and self.phase.state(),
                "start": self.loop.start,
                "random": _random_state(self.model.device),
                "order": _generator_state(getattr(self.train, "generator", None)),
                "draws": _generator_state(getattr(self.ssl, "generator", None)),
            }
        )
        if processes.rank() == 0:  # the others' is the same
            save(self.path, state)

    def _restore(self) -> bool:
        """Continue from the saved state; False if there is none."""
        if not processes.first(self.path.exists):
            log.info("Nothing to resume at %s: starting from the beginning.", self.path)
            return False
        state = load(self.path, self.data)
        if "settings" not in state:
            raise InputError(f"{self.path} is a checkpoint, not the state of a run: move it away.")
        different = [
            f"{key} was {state['settings'].get(key)!r} and is {self.settings.get(key)!r}"
            for key in sorted({*state["settings"], *self.settings})
            if state["settings"].get(key) != self.settings.get(key)
        ]
        if different:
            raise InputError(
                f"{self.path} is the state of another experiment: {'; '.join(different[:5])}. "
                "Start without --resume, or use the settings of that run."
            )
        self.number, self.rows, self.loop.start = state["number"], state["rows"], state["start"]
        if self.loop.start is not None:
            names, values = zip(*self.model.state_dict().items(), strict=True)
            start = [self.loop.start[name] for name in names]
            self.loop.start = dict(zip(names, spread_as(start, values), strict=True))
        self._begin()
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        if self.phase is not None:  # a finished run trains no further
            load_optimizer(self.model.optimizer, state["optimizer"])
            self.phase.restore(state["phase"])
        _restore_random_state(state["random"], self.model.device)
        for generator, saved in (
            (getattr(self.train, "generator", None), state["order"]),
            (getattr(self.ssl, "generator", None), state["draws"]),
        ):
            if generator is not None and saved is not None:
                generator.set_state(saved)
        log.info("Resumed from %s after %d epochs.", self.path, len(self.rows))
        return True


def _random_state(device: torch.device) -> dict[str, Any]:
    """The global random states, in types that `torch.load(weights_only=True)` accepts."""
    numpy: Any = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (numpy[0], torch.from_numpy(numpy[1].astype(np.int64)), *numpy[2:]),
        "python": random.getstate(),
    }


def _restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":  # a resume may change the device
        torch.cuda.set_rng_state(state["cuda"], device)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])


def _generator_state(generator: torch.Generator | None) -> Tensor | None:
    return None if generator is None else generator.get_state()
