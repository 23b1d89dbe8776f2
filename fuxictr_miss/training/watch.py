"""When a run tells its tracker what: losses, similarities, rates and validation metrics by step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from fuxictr_miss.config import Config
from fuxictr_miss.outputs.run_files import TRACKER, read_run_file, write_run_file
from fuxictr_miss.outputs.trackers import TRACKERS, TrackedRun, Tracker, plain
from fuxictr_miss.training.means import LOSSES, Means

log = logging.getLogger(__name__)

EVERY = 100  # steps between two points within an epoch


class Watch:
    """The curves of a run at a tracker.

    A point has the means since the last one: every 100 steps, and at the end of an epoch. Steps are
    counted through all phases. A tracker that fails is reported once; the training goes on.

    Args:
        config: of the experiment, with a `tracker`.
    """

    def __init__(self, config: Config) -> None:
        self.kind, self.file = str(config.tracker), config.file(TRACKER)
        settings = plain({"model": config.model, **config.settings})
        folder = self.file.parent
        self.experiment = TrackedRun(config.model_id, config.dataset_id, folder, settings)
        self.tracker: Tracker | None = None
        self.step = self.at_epoch = 0  # steps so far, and those of finished epochs
        self.known = -1  # the last step that the tracker had before a resume
        self.means = Means()  # since the last point
        self.rate: float | None = None

    def begin(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Open the tracker's run.

        Args:
            rows: of the epochs before a resume, whose curves go on.
        """
        before = read_run_file(self.file) or {}
        if before.get("tracker") != self.kind:
            before = {}
        if before.get("finished"):
            return
        self.known = before.get("step", -1)
        self._guarded(self._open, before.get("run"))
        for row in rows:
            self.step += row["steps"]
            numbers = {k: v for k, v in row.items() if isinstance(v, float) and k != "seconds"}
            self._point(
                {f"{'train' if k in LOSSES else 'valid'}/{k}": v for k, v in numbers.items()}
            )
        self.at_epoch = self.step
        self._remember()

    def add(self, values: dict[str, Tensor], rate: float) -> None:
        """Count a step with its losses and the learning rate."""
        self.means.add(values)
        self.rate = rate
        self.step += 1
        if self.step % EVERY == 0:
            self._show()

    def add_uncounted(self, values: dict[str, Tensor]) -> None:
        """Add losses to the next point without counting a step."""
        self.means.add(values)

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Show the metrics of a validation."""
        self._point({f"valid/{name}": value for name, value in metrics.items()})

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show what an epoch ends with."""
        self.step = self.at_epoch = self.at_epoch + row["steps"]
        if "held_out_ssl" in row:
            self.validated({"held_out_ssl": row["held_out_ssl"]})
        self._show()

    def end(self, record: Mapping[str, Any]) -> None:
        """Show the final metrics, and what the run was."""
        metrics = {
            f"final/{split}_{name}": value
            for split, of_split in record["metrics"].items()
            for name, value in of_split.items()
        }
        facts = plain({k: record[k] for k in ("data", "parameters", "recipe")})
        facts.update({f"version_{name}": text for name, text in record["versions"].items()})
        if self.tracker is not None:
            self._guarded(self.tracker.finish, metrics, facts, self.step)
            self._remember(finished=True)

    def close(self, completed: bool) -> None:
        """Close the tracker's run."""
        if self.tracker is not None:
            self._guarded(self.tracker.close, completed)

    def _open(self, run: str | None) -> None:
        self.tracker = TRACKERS[self.kind](self.experiment, run)

    def _show(self) -> None:
        if self.rate is not None:
            losses = {f"train/{name}": value for name, value in self.means.means().items()}
            self._point({**losses, "train/learning_rate": self.rate})
            self.means, self.rate = Means(), None
        self._remember()

    def _point(self, values: Mapping[str, float]) -> None:
        if self.tracker is not None and values and self.step > self.known:
            self._guarded(self.tracker.log, values, self.step)

    def _remember(self, finished: bool = False) -> None:
        """Write down what the tracker has; a resumed run repeats steps to the bit."""
        if self.tracker is not None:
            step = max(self.step, self.known)
            state = {"tracker": self.kind, "run": self.tracker.run, "step": step}
            self._guarded(write_run_file, self.file, {**state, "finished": finished})

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call something of a tracker, which may fail in any way: a full disk, a lost network."""
        try:
            function(*arguments)
        except Exception as error:
            self.tracker = None
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning("%s has failed, the training goes on without it: %s", self.kind, reason)


@contextmanager
def watching(config: Config) -> Iterator[Watch | None]:
    """The `Watch` of a run, closed at its end; None without a tracker."""
    if config.tracker is None:
        yield None
        return
    watch = Watch(config)
    try:
        yield watch
    except BaseException:
        watch.close(completed=False)
        raise
    watch.close(completed=True)
