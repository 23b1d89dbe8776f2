"""Training strategies: joint (Eq. 17), pretrain, and pretrain_joint (Section IV.C, Table VIII).

A run is a list of phases. After every epoch the whole state goes to disk, so that a run killed at
any moment continues to the same final metrics.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel
from torch import Tensor
from tqdm import tqdm

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.checkpoint import data_of, load, remove_own, save, unwritable
from fuxictr_miss.errors import DivergedError, InputError
from fuxictr_miss.evaluation import evaluate
from fuxictr_miss.logs import without_fuxictr_info
from fuxictr_miss.self_supervision import part_of

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 65_536
FEWEST_HELD_OUT = 4  # users: fewer are hardly any negatives for each other
HELD_OUT_SHARE = 0.05  # of the users, whose histories stop the pretraining and never train it
PRETRAIN_PATIENCE = 20  # epochs without a better held-out loss, which may rest for ten of them
# Adam's ε in pretraining. At the start all views are alike to 1e-4, so the encoder's gradient is
# little more than float rounding, and with an ε of 1e-8 Adam takes whole steps by it.
PRETRAIN_EPSILON = 1e-6
_HELD_OUT_SEED = 15068  # the held-out pairs are the same in every epoch


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of a run."""

    name: str  # "pretrain": contrastive loss only; "joint": Eq. 17; "label": the label loss only
    epochs: int


def phases_of(model: BaseModel, epochs: int) -> list[Phase]:
    """The phases of a model's strategy; a plain backbone has one, "label"."""
    ssl = part_of(model)
    if ssl is None or not ssl.on:
        return [Phase("label", epochs)]
    strategy = ssl.settings.training
    if strategy == "joint":
        return [Phase("joint", epochs)]
    second = "label" if strategy == "pretrain" else "joint"
    return [Phase("pretrain", ssl.settings.pretrain_epochs), Phase(second, epochs)]


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
    if not len(data_generator):
        raise InputError("fit() needs training data, and there is no row in it.")
    if epochs < 1:
        raise InputError(f"fit() needs epochs of 1 or more, got {epochs}.")
    run = _Run(model, data_generator, validation_data, epochs, max_gradient_norm, settings)
    _look_at_the_data(model, data_generator)
    with without_fuxictr_info(), run.borrowed():
        run.go(resume)
    return run.rows


FEW_PAIRS = 0.1  # share of the training rows with a pair below which the log warns


def _look_at_the_data(model: BaseModel, train: Any) -> None:
    """Say what the contrastive losses learn from, and let the method see it if it asks to.

    Raises:
        InputError: they have nothing to learn from.
    """
    ssl = part_of(model)
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
        if share < FEW_PAIRS:
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
        self.ssl = part_of(model)
        self.phases = phases_of(model, epochs)
        self.data = data_of(model)
        self.settings = {"model": type(model).__name__, "data": self.data, **(settings or {})}
        self.checkpoint = Path(model.checkpoint)
        self.path = self.checkpoint.with_suffix(".state")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        self.phase, self.epoch = 0, 0  # the next to run
        self.pretraining: _Pretraining | None = None
        self.verbose = model._verbose
        self.max_gradient_norm = max_gradient_norm

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Leave the model as it came, but for what it has learned: `fit` may be called again."""
        model = self.model
        groups = [(group, list(group["params"]), group["lr"]) for group in self._groups()]
        trained = [(p, p.requires_grad) for p in model.parameters()]
        eval_steps = model._eval_steps
        model._verbose = 0  # the bars are ours
        model._max_gradient_norm = self.max_gradient_norm
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
            if self.ssl is not None:
                self.ssl.active = True

    def _groups(self) -> list[dict[str, Any]]:
        return self.model.optimizer.param_groups

    def go(self, resume: bool) -> None:
        if not (resume and self._restore()):
            remove_own(self.path)
            remove_own(self.checkpoint)
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
                    _check_finite(row)
                    finished = finished or self.epoch == phase.epochs
                    if finished:
                        self._end_phase(phase)
                    self._save()
        self.model.load_state_dict(load(self.checkpoint, self.data))

    def _run_epoch(self, phase: Phase, progress: tqdm) -> tuple[dict[str, Any], bool]:
        row = {"phase": phase.name, "epoch": self.epoch + 1}
        if self.pretraining is not None:
            values, finished = self.pretraining.epoch(progress)
        else:
            values, finished = self._label_epoch(phase, progress)
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
        if self.ssl is not None:
            self.ssl.active = phase.name == "joint"
            if not self.ssl.active:  # a regularizer would move it and fill the clip
                self.ssl.methods.requires_grad_(False)
            if len(self.phases) > 1:
                _scale_embedding_rate(model, self.ssl.settings.embedding_lr_scale)
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

    def _label_epoch(self, phase: Phase, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """One pass over the instances; FuxiCTR's `train_epoch`, with the losses taken apart."""
        model = self.model
        model.train()
        model._epoch_index = self.epoch
        sums = _Means()
        metrics: dict[str, float] = {}
        for index, batch in enumerate(self.train):
            model._batch_index = index
            model._total_steps += 1
            sums.add(_losses_apart(model, self._step(batch)))
            progress.update()
            if model._total_steps % model._eval_steps == 0:
                metrics = self._validate()
                model.train()
            if model._stop_training:
                break
        if self.epoch + 1 == phase.epochs and not self.checkpoint.exists():
            metrics = self._validate()  # eval_steps is more than the whole run has
        return {"steps": sums.steps, **sums.means(), **metrics}, model._stop_training

    def _step(self, batch: dict[str, Tensor]) -> Tensor:
        try:
            return self.model.train_step(batch).detach()
        except RuntimeError as error:  # of torch's cross-entropy, which takes no NaN
            if "all elements of input should be between 0 and 1" not in str(error):
                raise
            phase = self.phases[self.phase].name
            raise _diverged(phase, self.epoch + 1, "a prediction", "nan") from error

    def _validate(self) -> dict[str, float]:
        model = self.model
        wanted = [*model._monitor.get_metrics(), *model.validation_metrics]
        metrics = evaluate(model, self.valid, list(dict.fromkeys(wanted)))
        _check_finite({"phase": "validation of", "epoch": self.epoch + 1, **metrics})
        try:
            model.checkpoint_and_earlystop(metrics)
        except (OSError, RuntimeError) as error:
            raise unwritable(self.checkpoint, error) from error
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
                "draws": _generator_state(getattr(self.ssl, "generator", None)),
            },
        )

    def _restore(self) -> bool:
        """Continue from the saved state; False if there is none."""
        if not self.path.exists():
            log.info("Nothing to resume at %s: starting from the beginning.", self.path)
            return False
        state = load(self.path, self.data)
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
            (getattr(self.ssl, "generator", None), state["draws"]),
        ):
            if generator is not None and saved is not None:
                generator.set_state(saved)
        log.info("Resumed from %s after %d epochs.", self.path, len(self.rows))
        return True


def _scale_embedding_rate(model: BaseModel, scale: float) -> None:
    """Train all embedding tables at `scale` times their learning rate; 0 freezes them."""
    if scale == 1:
        return
    tables = {
        id(p)
        for module in model.modules()
        if isinstance(module, FeatureEmbeddingDict)
        for p in module.parameters()
    }
    for group in list(model.optimizer.param_groups):
        moved = [p for p in group["params"] if id(p) in tables and p.requires_grad]
        stay = {id(p) for p in group["params"]} - {id(p) for p in moved}
        group["params"] = [p for p in group["params"] if id(p) in stay]
        if scale == 0:
            for parameter in moved:
                parameter.requires_grad_(False)
        elif moved:
            model.optimizer.add_param_group({**group, "params": moved, "lr": group["lr"] * scale})


def _mark(module: Any, state: Any, prefix: str, metadata: dict[str, Any], data: str) -> None:
    """Say in a state_dict, where `load_state_dict` looks for no weights, what data it is of."""
    if not prefix:
        metadata["data"] = data


def _check_finite(row: Mapping[str, Any]) -> None:
    """Refuse an epoch with a number that is none.

    Raises:
        DivergedError: names the phase, the epoch and the number.
    """
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _diverged(row["phase"], row["epoch"], name, str(value))


def _diverged(phase: str, epoch: int, name: str, value: str) -> DivergedError:
    rate = "ssl_pretrain_learning_rate" if phase == "pretrain" else "learning_rate"
    return DivergedError(
        f"{phase} epoch {epoch}: {name} is {value}. The training has diverged and has no result: "
        f"lower {rate}, or look for extreme values in the numeric features."
    )


# What its train_step and early stopping look for, and a model that has been trained need not keep.
_DURING_FIT = ("_max_gradient_norm", "_steps_per_epoch", "_total_steps", "_batch_index",
               "_epoch_index", "_best_metric", "_stopping_steps", "_stop_training")  # fmt: skip
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
        ssl = part_of(model)
        assert ssl is not None  # phases_of asks for a pretraining only where there is one
        self.model, self.ssl = model, ssl
        self.batch_size = ssl.settings.pretrain_batch_size or train.batch_size
        names = [source.sequences for source in ssl.sources]
        columns = {name: train.column(name).cpu() for group in names for name in group}
        self.slices = _slices({name: column.shape[1] for name, column in columns.items()})
        self.groups = names
        histories = torch.cat(list(columns.values()), dim=1).unique(dim=0)  # (users, ΣL)
        self.generator = torch.Generator().manual_seed(train.generator.initial_seed())
        shuffled = histories[torch.randperm(len(histories), generator=self.generator)]
        held_out = round(len(shuffled) * HELD_OUT_SHARE)
        if held_out < FEWEST_HELD_OUT:
            log.info(
                "%d distinct histories are too few to hold some out: pretraining takes all of its "
                "epochs and keeps the last.",
                len(shuffled),
            )
            held_out = 0
        if len(shuffled) < 2:
            raise InputError(
                "Pretraining needs the histories of two users or more, since one's negatives are "
                f"the others'; the training split has {len(shuffled)} distinct ones."
            )
        self.held_out, self.histories = shuffled[:held_out], shuffled[held_out:]
        rate = ssl.settings.pretrain_learning_rate or model.optimizer.param_groups[0]["lr"]
        self.parameters = ssl.trained(model)
        self.optimizer = type(model.optimizer)(self.parameters, lr=rate)
        for group in self.optimizer.param_groups:
            if "betas" in group:  # Adam and its like
                group["eps"] = max(group["eps"], PRETRAIN_EPSILON)
        self.best_loss, self.worse, self.best = float("inf"), 0, self._weights()

    def __len__(self) -> int:
        """Steps an epoch."""
        return -(-len(self.histories) // self.batch_size)

    def epoch(self, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """One pass over the histories; returns the means, and whether to stop."""
        model, ssl = self.model, self.ssl
        model.train()
        order = torch.randperm(len(self.histories), generator=self.generator)
        sums = _Means()
        for rows in order.split(self.batch_size):
            losses = ssl.losses(model, self._batch(self.histories[rows]))
            self.optimizer.zero_grad()
            ssl.weighted(losses).backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, model._max_gradient_norm)
            self.optimizer.step()
            sums.add(_named(losses))
            progress.update()
        means = {"steps": sums.steps, **sums.means()}
        if not len(self.held_out):
            self.best = self._weights()
            return means, False
        held_out = self._held_out_loss()
        if held_out < self.best_loss:
            self.best_loss, self.worse, self.best = held_out, 0, self._weights()
        else:
            self.worse += 1
        return {**means, "held_out_ssl": held_out}, self.worse >= PRETRAIN_PATIENCE

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """α1 L_ssl + α2 L'_ssl of the held-out histories, with the same draws every time."""
        model, ssl = self.model, self.ssl
        before = ssl.generator.get_state()
        ssl.generator.manual_seed(_HELD_OUT_SEED)
        model.eval()
        total = torch.zeros((), device=model.device)
        for histories in self.held_out.split(self.batch_size):
            total += ssl.weighted(ssl.losses(model, self._batch(histories))) * len(histories)
        ssl.generator.set_state(before)
        return float(total) / len(self.held_out)

    def _batch(self, histories: Tensor) -> dict[str, Tensor]:
        """The columns of some histories, each cut to where its behavior has any id."""
        batch = {}
        for group in self.groups:
            columns = [histories[:, self.slices[name]] for name in group]
            used = torch.stack([(ids != 0).any(dim=0) for ids in columns]).any(dim=0).nonzero()
            first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
            batch.update({n: ids[:, first:last] for n, ids in zip(group, columns, strict=True)})
        return batch

    def _weights(self) -> list[Tensor]:
        return [each.detach().clone() for each in self.parameters]

    def keep_best(self) -> None:
        """Go back to the weights of the best held-out loss."""
        with torch.no_grad():
            for parameter, best in zip(self.parameters, self.best, strict=True):
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


def _slices(widths: Mapping[str, int]) -> dict[str, slice]:
    """Where each column stands in all of them side by side."""
    ends = list(itertools.accumulate(widths.values()))
    return {n: slice(end - widths[n], end) for n, end in zip(widths, ends, strict=True)}


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
    ssl = part_of(model)
    if ssl is None or not ssl.active or ssl.last is None:
        return {"label_loss": loss}
    term = ssl.weighted(ssl.last) * ssl.settings.every
    return {"label_loss": loss - term, **_named(ssl.last)}


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
    """In types that a file may hold without holding code."""
    numpy: Any = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (numpy[0], torch.from_numpy(numpy[1].astype(np.int64)), *numpy[2:]),
        "python": random.getstate(),
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])


def _generator_state(generator: torch.Generator | None) -> Tensor | None:
    return None if generator is None else generator.get_state()
