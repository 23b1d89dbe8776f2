"""TensorBoard, Weights & Biases and MLflow, each as a class with `log`, `finish` and `close`."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fuxictr_miss.errors import InputError

_PROJECT = "fuxictr_miss"
_PARAMS_AT_ONCE = 100  # MLflow's limit
_LONGEST = 250  # characters of a setting that is no number or text


class TrackedRun(NamedTuple):
    """What a tracker is told about a run at its start."""

    name: str  # the model_id
    dataset: str  # the dataset_id
    folder: Path  # of the run's checkpoint and log
    settings: Mapping[str, Any]  # numbers, booleans and texts


class Tracker(Protocol):
    """A place where the curves of a run are shown."""

    run: str  # the tracker's name for the run, by which a resume finds it

    def __init__(self, experiment: TrackedRun, run: str | None) -> None: ...
    def log(self, values: Mapping[str, float], step: int) -> None: ...
    def finish(self, metrics: Mapping[str, float], facts: Mapping[str, Any], step: int) -> None: ...
    def close(self, completed: bool) -> None: ...


class TensorBoard:
    """Event files in `<folder>/tensorboard/<model_id>/<number>/`; each run has a new number."""

    def __init__(self, experiment: TrackedRun, run: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.settings = experiment.settings
        home = experiment.folder / "tensorboard" / experiment.name
        home.mkdir(parents=True, exist_ok=True)
        numbers = [int(each.name) for each in home.iterdir() if each.name.isdecimal()]
        self.run = run or str(max(numbers, default=0) + 1)
        self.writer = SummaryWriter(home / self.run)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self, metrics: Mapping[str, float], facts: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard.summary import hparams

        self.log(metrics, step)
        settings = {**self.settings, **facts}
        for summary in hparams(settings, dict(metrics)):  # `add_hparams` would open another run
            self.writer._get_file_writer().add_summary(summary)
        self.writer.flush()

    def close(self, completed: bool) -> None:
        self.writer.close()


class WandB:
    """A run of Weights & Biases, in the project `WANDB_PROJECT` or `fuxictr_miss`."""

    def __init__(self, experiment: TrackedRun, run: str | None) -> None:
        import wandb

        self.wandb = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            group=experiment.dataset,
            name=experiment.name,
            id=run,
            resume="allow" if run else None,
            reinit="create_new",  # a run that the caller has opened stays open
            dir=str(experiment.folder),
            config=dict(experiment.settings),
        )
        self.run = self.wandb.id
        self.wandb.define_metric("*", step_metric="step")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.wandb.log({**values, "step": step})

    def finish(self, metrics: Mapping[str, float], facts: Mapping[str, Any], step: int) -> None:
        self.wandb.summary.update({**metrics, **facts})

    def close(self, completed: bool) -> None:
        self.wandb.finish(exit_code=0 if completed else 1)


class MLflow:
    """A run of MLflow, in the experiment `MLFLOW_EXPERIMENT_NAME` or `fuxictr_miss`."""

    def __init__(self, experiment: TrackedRun, run: str | None) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient()
        if run is not None:
            self.run = run
            self.client.update_run(run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        known = self.client.get_experiment_by_name(name)
        home = known.experiment_id if known else self.client.create_experiment(name)
        tags = {"dataset": experiment.dataset}
        self.run = self.client.create_run(home, run_name=experiment.name, tags=tags).info.run_id
        self._describe(experiment.settings)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, _mlflow_name(name), value, step=step)

    def finish(self, metrics: Mapping[str, float], facts: Mapping[str, Any], step: int) -> None:
        self.log(metrics, step)
        self._describe(facts)

    def close(self, completed: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if completed else "FAILED")

    def _describe(self, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(_mlflow_name(name), str(value)) for name, value in settings.items()]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            self.client.log_batch(self.run, params=params[first : first + _PARAMS_AT_ONCE])


def _mlflow_name(name: str) -> str:
    """A name without what MLflow refuses: `valid/NDCG(10)` becomes `valid/NDCG_10`."""
    return re.sub(r"[^\w\-. :/]+", "_", name).rstrip("_")


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def check_tracker(name: str | None) -> None:
    """Whether a tracker's package, which has the tracker's name, is installed.

    Raises:
        InputError: it is not; says what to install.
    """
    if name is None:
        return
    reason = "it is not installed"
    try:
        if importlib.import_module(name).__file__ is not None:  # else a folder of that name
            return
    except ModuleNotFoundError:
        pass
    except Exception as error:  # a broken or misfit installation
        reason = " ".join(str(error).split())
    raise InputError(
        f"tracker {name} needs the package {name}, which cannot be imported ({reason}): "
        f"pip install {name}, or run without a tracker."
    )


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as all trackers take them: numbers, booleans and texts; all else as short JSON."""
    return {
        key: value
        if isinstance(value, bool | int | float | str)
        else json.dumps(value, default=str)[:_LONGEST]
        for key, value in settings.items()
    }
