"""The phases before the labels: tables in closed form, and the contrastive loss alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn
from tqdm import tqdm

from fuxictr_miss.config.settings import read_settings
from fuxictr_miss.data.loader import on_device
from fuxictr_miss.distributed import processes
from fuxictr_miss.distributed.sharded_tables import (
    clip_gradients,
    groups_of,
    load_optimizer,
    own_rows,
    spread_as,
)
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.draws import by_count
from fuxictr_miss.methods.ppmi import PPMISettings, ppmi_svd
from fuxictr_miss.self_supervision import SelfSupervision
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.histories import Histories, Rows
from fuxictr_miss.training.means import Means, loss_columns

log = logging.getLogger(__name__)

MIN_HELD_OUT = 4  # users: fewer give each other hardly any negatives
MAX_HELD_OUT = 256  # users
HELD_OUT_SHARE = 0.05  # of the users: their loss stops a pretraining at a constant rate
MIN_DRAWS = 2**14  # an epoch that draws users by their pairs: few users have many histories
PRETRAIN_PATIENCE = 20  # epochs without a better held-out loss; plateaus of ten epochs occur
# Adam's ε in pretraining. At first all views agree to 1e-4, so the encoder's gradient is mostly
# rounding error, and with ε = 1e-8 Adam would amplify that to full steps.
PRETRAIN_EPSILON = 1e-6
_HELD_OUT_SEED = 15068  # the held-out pairs are the same in every epoch


class ClosedForm:
    """Tables that a formula gives, as those of PPMI or the start of a pretraining from its SVD.

    Args:
        loop: of the model, whose tables are overwritten.
        ssl: its self-supervised part.
        histories: of the training users.

    Raises:
        InputError: a table of a behavior is not a plain, trainable one, and the method is the
            formula. A start leaves such a table as it is.
    """

    name, epochs = "closed_form", 1

    def __init__(
        self, loop: FuxiCTRLoop, ssl: SelfSupervision, histories: Histories | Rows
    ) -> None:
        model = loop.model
        self.loop, self.histories = loop, histories
        self.tables = ssl.plain_tables(model)
        own = getattr(ssl.methods[0], "closed_form", None)
        if others := ssl.not_in(self.tables):
            if own is not None:
                raise InputError(
                    f"{type(model).__name__}: a closed form can only fill trainable tables, but "
                    f"{others[0]} is embedded by pretrained vectors: leave it out of "
                    "ssl_sequences."
                )
            for name in others:
                log.info(
                    "ssl_start: svd leaves %s as drawn: its rows are pretrained vectors.", name
                )
        keys = read_settings(PPMISettings, "ppmi_", ssl.arguments[1])
        self.formula = own or partial(
            ppmi_svd, power=keys.power, row_norm=keys.row_norm, max_distance=keys.max_distance
        )
        self.is_start = own is None  # of a pretraining

    def __len__(self) -> int:
        """Steps per epoch: one a table."""
        return len(self.tables)

    def epoch(self, number: int, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """Compute every table once."""
        for parts, names in self.tables:
            history = torch.cat([self.histories.column(name) for name in names]).long()
            size, dim = parts[0].num_embeddings, sum(part.embedding_dim for part in parts)
            held, own = zip(*(own_rows(part.weight.detach()) for part in parts), strict=True)
            rows = self.formula(history, size, dim)[own[0]].to(held[0])
            if self.is_start:  # an id that the SVD does not know keeps its drawn vector
                rows = rows.where(rows.any(dim=1, keepdim=True), torch.cat(held, dim=1))
            _write(parts, rows)
            progress.update()
        return {"steps": len(self)}, True

    def end(self) -> None:
        """Remember the start of the labels; the tables are written."""
        self.loop.remember_start()

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing: an interrupted closed form begins again."""


class Pretraining:
    """The contrastive loss alone, one history a user, until the held-out loss stops improving.

    Args:
        loop: of the model.
        ssl: the model's self-supervised part.
        histories: of the training users, or the rows; a share of them is held out.
        train: the training loader, for its batch size and seed.

    Raises:
        InputError: there are fewer than two users.
    """

    name = "pretrain"

    def __init__(
        self,
        loop: FuxiCTRLoop,
        ssl: SelfSupervision,
        histories: Histories | Rows,
        train: Any,
    ) -> None:
        settings = ssl.settings
        self.loop, self.model, self.ssl, self.histories = loop, loop.model, ssl, histories
        self.epochs = settings.pretrain_epochs
        self.batch_size = settings.pretrain_batch_size or train.batch_size
        self.generator = torch.Generator().manual_seed(train.generator.initial_seed())
        if len(histories) < 2:
            raise InputError(
                f"Pretraining needs two {histories.needs} or more, as each takes its negatives "
                f"from the others; the training split has {len(histories)}."
            )
        shuffled = torch.randperm(len(histories), generator=self.generator)
        held_out = min(round(len(shuffled) * HELD_OUT_SHARE), MAX_HELD_OUT)
        if held_out < MIN_HELD_OUT:
            log.info(
                "%d %s are too few to hold some out: pretraining runs all of its epochs and keeps "
                "the last weights.",
                len(shuffled),
                histories.unit,
            )
            held_out = 0
        self.held_out, self.users = shuffled[:held_out], shuffled[held_out:]
        drawn = settings.pretrain_sampling == "pairs"
        self.draws = max(len(self.users), MIN_DRAWS) if drawn else len(self.users)  # an epoch
        self.rate = settings.pretrain_learning_rate or self.model.optimizer.param_groups[0]["lr"]
        self.parameters = ssl.trained(self.model)
        fused = {"fused": True} if self.model.optimizer.defaults.get("fused") else {}
        groups = [{"params": each} for each in groups_of(self.parameters)]
        self.optimizer = type(self.model.optimizer)(groups, lr=self.rate, **fused)
        for group in self.optimizer.param_groups:
            if "betas" in group:  # Adam and its variants
                group["eps"] = max(group["eps"], PRETRAIN_EPSILON)
        self._loss: Callable[[dict[str, Tensor]], Tensor] | None = None
        self.best_loss, self.worse, self.best = float("inf"), 0, self._weights()
        if loop.start is None:  # else a closed form or a resume has set it
            loop.remember_start()

    def __len__(self) -> int:
        """Steps per epoch."""
        return -(-self.draws // self.batch_size)

    def epoch(self, number: int, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """Make one pass over the users; return the means and whether to stop."""
        self.model.train()
        sums = Means()
        for losses in self.steps(number):
            sums.add(losses)
            if self.loop.watch is not None:
                self.loop.watch.add(losses, self.optimizer.param_groups[0]["lr"])
            progress.update()
        held_out, over = self.judge()
        return {"steps": sums.steps, **sums.means(), **held_out}, over

    def steps(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Take the steps of an epoch; yield the losses of each by their column names."""
        with processes.sharing(None):  # every process draws all users
            self.ssl.begin_epoch()
            order = self._order()
        for step, users in enumerate(order.split(self.batch_size), number * len(self)):
            self._set_rate(step)
            yield self.step(users)

    def step(self, users: Tensor) -> dict[str, Tensor]:
        """Take one step on a history of each of these users; return its losses."""
        with processes.sharing(None):
            batch = self.histories.batch(users, self.generator)
        share = self.loop.share_of(len(users))
        if share is not None:
            batch = {name: column[share.own] for name, column in batch.items()}
        batch = {name: on_device(column, self.model.device) for name, column in batch.items()}
        if self._loss is None:
            self._loss = processes.synchronised(self._loss_of, groups_of(self.parameters)[0])
        with processes.sharing(share):
            loss = self._loss(batch)
            self.optimizer.zero_grad()
            loss.backward()
            columns = loss_columns(self._losses)
            losses = {name: processes.weighted(loss) for name, loss in columns.items()}
        clip_gradients(self.parameters, self.loop.max_gradient_norm)
        self.optimizer.step()
        return losses

    def _loss_of(self, batch: dict[str, Tensor]) -> Tensor:
        self._losses = self.ssl.losses(self.model, batch)
        return self.ssl.weighted(self._losses)

    def judge(self) -> tuple[dict[str, float], bool]:
        """Keep the weights if they are the best so far; return the held-out loss and "stop now".

        Of a falling learning rate it keeps the last ones and does not stop: they are worth more
        than the held-out loss says (Item2Vec, Beauty: validation AUC .840, and .829 by that loss).
        """
        if not len(self.held_out):
            self.best = self._weights()
            return {}, False
        with processes.sharing(None):
            held_out = self._held_out_loss()
        if held_out < self.best_loss or self.ssl.settings.pretrain_schedule == "linear":
            self.best_loss, self.worse, self.best = held_out, 0, self._weights()
        else:
            self.worse += 1
        return {"held_out_ssl": held_out}, self.worse >= PRETRAIN_PATIENCE

    def _order(self) -> Tensor:
        """The users of an epoch: each once, or drawn in proportion to their pairs' number."""
        if self.ssl.settings.pretrain_sampling == "users":
            return self.users[torch.randperm(len(self.users), generator=self.generator)]
        pairs = self.histories.pairs[self.users]
        if not pairs.any():  # the few users with a pair are held out
            pairs = pairs + 1
        return self.users[by_count(pairs.cumsum(dim=0), (self.draws,), self.generator)]

    def _set_rate(self, step: int) -> None:
        """Lower the learning rate linearly to 0 over all epochs, if the settings say so."""
        if self.ssl.settings.pretrain_schedule == "linear":
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * (1 - step / (self.epochs * len(self)))

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """α1 L_ssl + α2 L'_ssl of the held-out users, with the same random draws each time."""
        model, ssl = self.model, self.ssl
        before = ssl.generator.get_state()
        ssl.generator.manual_seed(_HELD_OUT_SEED)
        model.eval()
        rows = torch.Generator().manual_seed(_HELD_OUT_SEED)
        total = torch.zeros((), device=model.device)
        for users in self.held_out.split(self.batch_size):
            batch = self.histories.batch(users, rows)
            total += ssl.weighted(ssl.losses(model, batch)) * len(users)
        ssl.generator.set_state(before)
        model.train()
        return float(total) / len(self.held_out)

    def _weights(self) -> list[Tensor]:
        return [each.detach().clone() for each in self.parameters]

    def end(self) -> None:
        """Restore the weights with the best held-out loss, and set the rows' norms."""
        with torch.no_grad():
            for parameter, best in zip(self.parameters, self.best, strict=True):
                parameter.copy_(best)
        self.loop.remember_tables(self.parameters)
        set_row_norms(self.model, self.ssl, self.histories)

    def state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "order": self.generator.get_state(),
            "best": (self.best_loss, self.worse, self.best),
        }

    def restore(self, state: dict[str, Any]) -> None:
        load_optimizer(self.optimizer, state["optimizer"])
        self.generator.set_state(state["order"])
        self.best_loss, self.worse, best = state["best"]
        self.best = spread_as(best, self.parameters)


def set_row_norms(model: BaseModel, ssl: SelfSupervision, histories: Histories | Rows) -> None:
    """Scale the rows of pretrained tables by `ssl_row_norm`: to log(1 + count), 1 on average."""
    if ssl.settings.row_norm == "free":
        return
    tables = ssl.plain_tables(model)
    for name in ssl.not_in(tables):
        log.info(
            "ssl_row_norm leaves %s as trained: its rows are pretrained vectors, and only the "
            "layer behind them has learned.",
            name,
        )
    for parts, names in tables:
        columns = [histories.column(name).flatten() for name in names]
        count = torch.cat(columns).long().bincount(minlength=parts[0].num_embeddings)
        count[0] = 0  # padding
        norm = count.log1p().to(parts[0].weight.dtype)
        norm /= norm[count > 0].mean()  # 1 on average, as the tower's inputs should be
        norm, known = norm.to(parts[0].weight.device), (count > 0).to(parts[0].weight.device)
        held, own = zip(*(own_rows(part.weight.detach()) for part in parts), strict=True)
        rows = torch.cat(held, dim=1)
        scaled = nn.functional.normalize(rows) * norm[own[0], None]
        if ssl.warm:  # what an earlier training knew of ids without a history now
            scaled = scaled.where(known[own[0], None], rows)
        _write(parts, scaled)


def _write(parts: list[nn.Embedding], rows: Tensor) -> None:
    """Overwrite this process's rows of a table that stands in one or more parts, side by side."""
    with torch.no_grad():
        for part, columns in zip(
            parts, rows.split([p.embedding_dim for p in parts], 1), strict=True
        ):
            own_rows(part.weight.detach())[0].copy_(columns)
