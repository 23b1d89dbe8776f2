"""Both losses of Eq. 17 in one phase, where the tables belong to the contrastive loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from tqdm import tqdm

from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.labels import Labels
from fuxictr_miss.training.means import Means
from fuxictr_miss.training.pretraining import Pretraining

NEVER = 10**9  # epochs
# Label epochs beside the contrastive steps: in more, the tower learns the training rows by heart
# while the tables still move.
JOINT_EPOCHS = 4


class Alternating(Labels):
    """Label steps on the rest of the model between contrastive steps on the tables.

    With `ssl_label_gradient: 0` the two losses share no weight that both train, so each can have
    batches of its own: the contrastive steps draw histories, lower their rate and end as those of a
    pretraining, spread evenly over a few label epochs. Then the labels go on alone, and only from
    there on does early stopping count.

    Args:
        loop: runs FuxiCTR's training steps on the model.
        train: training batches.
        epochs: the maximum after the last contrastive step.
        contrast: the contrastive steps.
    """

    def __init__(self, loop: FuxiCTRLoop, train: Any, epochs: int, contrast: Pretraining) -> None:
        super().__init__(loop, train, epochs, "label", NEVER)
        self.name = "joint"
        self.contrast: Pretraining | None = contrast
        steps = contrast.epochs * len(contrast)
        rounds = max(1, round(steps / len(train)))  # label epochs with as many steps
        self.rounds = min(rounds, contrast.epochs, JOINT_EPOCHS)  # epochs with both
        self.epochs = self.rounds + epochs

    def epoch(self, number: int, progress: tqdm) -> tuple[dict[str, Any], bool]:
        """Make one pass over the labels, with a share of the contrastive epochs in between."""
        contrast = self.contrast
        if contrast is None:
            return super().epoch(number, progress)
        first, last = (round(n * contrast.epochs / self.rounds) for n in (number, number + 1))
        self.means = Means()
        self.steps = self._contrastive_steps(contrast, range(first, last))
        self.per_label_step = (last - first) * len(contrast) / len(self)
        values, _ = super().epoch(number, progress)
        for _ in self.steps:  # none is left, but the last contrastive epoch ends
            pass
        if self.over or number + 1 == self.rounds:
            with _trainable(contrast.parameters):
                contrast.end()
            self.contrast = None
            self.loop.begin(len(self))
        return {**values, **self.means.means(), **self.held_out}, False

    def _step(self, batch: dict[str, Tensor], number: int, index: int) -> Tensor:
        loss = super()._step(batch, number, index)
        if self.contrast is not None:
            first, last = (round(n * self.per_label_step) for n in (index, index + 1))
            with _trainable(self.contrast.parameters):
                for _ in itertools.islice(self.steps, last - first):
                    pass
        return loss

    def _contrastive_steps(self, contrast: Pretraining, epochs: range) -> Iterator[None]:
        """Take a contrastive step each time that one is asked for."""
        for number in epochs:
            for losses in contrast.steps(number):
                self.means.add(losses)
                if self.loop.watch is not None:
                    self.loop.watch.add_uncounted(losses)
                yield
            self.held_out, self.over = contrast.judge()
            if self.over:
                return

    def state(self) -> dict[str, Any]:
        return {**super().state(), "contrast": self.contrast and self.contrast.state()}

    def restore(self, state: dict[str, Any]) -> None:
        if state["contrast"] is None:
            self.contrast = None
            self.loop.begin(len(self))
        elif self.contrast is not None:
            self.contrast.restore(state["contrast"])
        super().restore({k: v for k, v in state.items() if k != "contrast"})


@contextmanager
def _trainable(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Let parameters train that the label steps leave alone."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    yield
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None  # FuxiCTR's clipping would count it
