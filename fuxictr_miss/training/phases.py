"""The phases of a run: contrastive loss alone, label loss alone, or both (Eq. 17).

A phase has a `name`, a maximum number of `epochs`, a length in steps per epoch, and

    epoch(number, progress) -> (the epoch's values, whether the phase is over)
    end()                      called after its last epoch
    state(), restore(state)    what --resume needs after an interruption
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel
from torch import Tensor
from tqdm import tqdm

from fuxictr_miss.errors import InputError
from fuxictr_miss.self_supervision import self_supervision_of
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.means import Means, check_finite, diverged, loss_columns

log = logging.getLogger(__name__)

MIN_HELD_OUT = 4  # users: fewer give each other hardly any negatives
HELD_OUT_SHARE = 0.05  # of the users: their histories only decide when the pretraining stops
PRETRAIN_PATIENCE = 20  # epochs without a better held-out loss; plateaus of ten epochs occur
# Adam's ε in pretraining. At first all views agree to 1e-4, so the encoder's gradient is mostly
# rounding error, and with ε = 1e-8 Adam would amplify that to full steps.
PRETRAIN_EPSILON = 1e-6
_HELD_OUT_SEED = 15068  # the held-out pairs are the same in every epoch


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

    def pretrain() -> Phase:
        return Pretraining(loop, train, ssl.settings.pretrain_epochs)  # type: ignore[union-attr]

    def labels(name: str, scale: float = 1) -> Callable[[], Phase]:
        return lambda: Labels(loop, train, epochs, name, scale)

    if ssl is None or not ssl.on:
        return [labels("label")]
    if ssl.settings.training == "joint":
        return [labels("joint")]
    second = "label" if ssl.settings.training == "pretrain" else "joint"
    return [pretrain, labels(second, ssl.settings.embedding_lr_scale)]


class Pretraining:
    """The contrastive loss alone, one history per user, until the held-out loss stops improving.

    Raises:
        InputError: the training split is not in memory, or has fewer than two distinct histories.
    """

    name = "pretrain"

    def __init__(self, loop: FuxiCTRLoop, train: Any, epochs: int) -> None:
        model = loop.model
        if not hasattr(train, "columns"):
            raise InputError(
                "ssl_training: pretrain needs the training split in memory; "
                "pass a fuxictr_miss.data.TensorDataLoader."
            )
        ssl = self_supervision_of(model)
        assert ssl is not None  # phases_of pretrains enhanced models only
        self.loop, self.model, self.ssl, self.epochs = loop, model, ssl, epochs
        self.batch_size = ssl.settings.pretrain_batch_size or train.batch_size
        names = [source.sequences for source in ssl.sources]
        columns = {name: train.column(name).cpu() for group in names for name in group}
        self.slices = _slices({name: column.shape[1] for name, column in columns.items()})
        self.groups = names
        histories = torch.cat(list(columns.values()), dim=1).unique(dim=0)  # (users, ΣL)
        self.generator = torch.Generator().manual_seed(train.generator.initial_seed())
        shuffled = histories[torch.randperm(len(histories), generator=self.generator)]
        held_out = round(len(shuffled) * HELD_OUT_SHARE)
        if held_out < MIN_HELD_OUT:
            log.info(
                "%d distinct histories are too few to hold some out: pretraining runs all of its "
                "epochs and keeps the last weights.",
                len(shuffled),
            )
            held_out = 0
        if len(shuffled) < 2:
            raise InputError(
                "Pretraining needs two distinct histories or more, as each takes its negatives "
                f"from the others; the training split has {len(shuffled)}."
            )
        self.held_out, self.histories = shuffled[:held_out], shuffled[held_out:]
        rate = ssl.settings.pretrain_learning_rate or model.optimizer.param_groups[0]["lr"]
        self.parameters = ssl.trained(model)
        fused = {"fused": True} if model.optimizer.defaults.get("fused") else {}
        self.optimizer = type(model.optimizer)(self.parameters, lr=rate, **fused)
        for group in self.optimizer.param_groups:
            if "betas" in group:  # Adam and its variants
                group["eps"] = max(group["eps"], PRETRAIN_EPSILON)
        self.best_loss, self.worse, self.best = float("inf"), 0, self._weights()

    def __len__(self) -> int:
        """Steps per epoch."""
        return -(-len(self.histories) // self.batch_size)

    def epoch(self, number: int, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """Make one pass over the histories; return the means and whether to stop."""
        model, ssl = self.model, self.ssl
        model.train()
        order = torch.randperm(len(self.histories), generator=self.generator)
        sums = Means()
        for rows in order.split(self.batch_size):
            losses = ssl.losses(model, self._batch(self.histories[rows]))
            self.optimizer.zero_grad()
            ssl.weighted(losses).backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.loop.max_gradient_norm)
            self.optimizer.step()
            sums.add(loss_columns(losses))
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
        """α1 L_ssl + α2 L'_ssl of the held-out histories, with the same random draws each time."""
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
        """The columns of histories (B, ΣL), each trimmed to where its behavior has ids."""
        batch = {}
        for group in self.groups:
            columns = [histories[:, self.slices[name]] for name in group]
            used = torch.stack([(ids != 0).any(dim=0) for ids in columns]).any(dim=0).nonzero()
            first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
            batch.update({n: ids[:, first:last] for n, ids in zip(group, columns, strict=True)})
        return batch

    def _weights(self) -> list[Tensor]:
        return [each.detach().clone() for each in self.parameters]

    def end(self) -> None:
        """Restore the weights with the best held-out loss."""
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


class Labels:
    """Epochs over the labelled rows, as in FuxiCTR's `fit`, with the losses logged separately.

    Args:
        loop: runs FuxiCTR's training steps on the model.
        train: training batches.
        epochs: the maximum.
        name: "joint" for Eq. 17, "label" for the label loss alone.
        table_rate: factor on the embedding tables' learning rate; 0 freezes them.
    """

    def __init__(
        self, loop: FuxiCTRLoop, train: Any, epochs: int, name: str, table_rate: float
    ) -> None:
        self.loop, self.train, self.epochs, self.name = loop, train, epochs, name
        ssl = self_supervision_of(loop.model)
        if ssl is not None:
            ssl.active = name == "joint"
            if not ssl.active:  # else regularizers would still change the method
                ssl.methods.requires_grad_(False)
        scale_table_rate(loop.model, table_rate)
        loop.begin(len(train))

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self.train)

    def epoch(self, number: int, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """Make one pass; return the means, the metrics, and whether to stop."""
        loop, means = self.loop, Means()
        metrics: dict[str, float] = {}
        loop.model.train()
        for index, batch in enumerate(self.train):
            means.add(_split_losses(loop.model, self._step(batch, number, index)))
            progress.update()
            if loop.due:
                metrics = self._validate(number)
                loop.model.train()
            if loop.stopped:
                break
        if number + 1 == self.epochs and not loop.validated:
            metrics = self._validate(number)  # eval_steps exceeds the steps of the run
        return {"steps": means.steps, **means.means(), **metrics}, loop.stopped

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


def scale_table_rate(model: BaseModel, scale: float) -> None:
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


def _slices(widths: Mapping[str, int]) -> dict[str, slice]:
    """The slice of each column in their concatenation."""
    ends = list(itertools.accumulate(widths.values()))
    return {n: slice(end - widths[n], end) for n, end in zip(widths, ends, strict=True)}


def _split_losses(model: BaseModel, loss: Tensor) -> dict[str, Tensor]:
    """Split a step's loss into the label loss (with regularizers) and the contrastive losses."""
    ssl = self_supervision_of(model)
    if ssl is None or not ssl.active or ssl.last is None:
        return {"label_loss": loss}
    term = ssl.weighted(ssl.last) * ssl.settings.every
    return {"label_loss": loss - term, **loss_columns(ssl.last)}
