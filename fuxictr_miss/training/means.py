"""The values of an epoch: means over its steps, their log line, and the check for NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fuxictr_miss.distributed import processes
from fuxictr_miss.errors import DivergedError

LOSSES = ("label_loss", "ssl_loss", "ssl_feature_loss", "similarity", "negative_similarity")


class Means:
    """Means of scalar tensors over steps, without synchronising the GPU at each step."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}  # how many steps had each value
        self.steps = 0

    def add(self, values: dict[str, Tensor]) -> None:
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        totals = {name: processes.mean(each) for name, each in self.sums.items()}
        return {name: float(total) / self.counts[name] for name, total in totals.items()}


def loss_columns(losses: Any) -> dict[str, Tensor]:
    """A method's losses under their column names in the history."""
    columns = {
        "ssl_loss": losses.ssl.detach(),
        "ssl_feature_loss": losses.feature.detach(),
        "similarity": losses.similarity.detach(),
    }
    if losses.negative_similarity is not None:
        columns["negative_similarity"] = losses.negative_similarity.detach()
    return columns


def log_line(row: Mapping[str, Any]) -> str:
    """The log line of an epoch."""
    numbers = [f"{k} {v:.4f}" for k, v in row.items() if isinstance(v, float) and k != "seconds"]
    return f"{row['phase']} epoch {row['epoch']}: {' | '.join(numbers)} | {row['seconds']:.1f} s"


def check_finite(row: Mapping[str, Any]) -> None:
    """Refuse an epoch with a NaN or infinite value.

    Raises:
        DivergedError: names the phase, the epoch and the value.
    """
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise diverged(row["phase"], row["epoch"], name, str(value))


def diverged(phase: str, epoch: int, name: str, value: str) -> DivergedError:
    """The error for a NaN or infinite value."""
    rate = "ssl_pretrain_learning_rate" if phase == "pretrain" else "learning_rate"
    return DivergedError(
        f"{phase} epoch {epoch}: {name} is {value}. The training has diverged and has no result: "
        f"lower {rate}, or check the numeric features for extreme values."
    )
