"""Experiments on a Ray cluster: those of a lost machine run again on what is left."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fuxictr_miss.errors import InputError
from fuxictr_miss.paper import machines, worker
from fuxictr_miss.paper.plan import Experiment

_TRIES = 3  # of an experiment whose machine is lost each time
_LOOK_EVERY = 5.0  # seconds
_PATIENCE = 120.0  # seconds without a machine that could run an experiment


class Cluster:
    """The machines of a Ray cluster.

    Args:
        ray: the connected package.
        address: HOST:PORT, for the errors.
        gpus: one for each experiment at a time; -1 for the CPU, any other for any GPU.
        options: of the experiments, as in `worker.run`.
    """

    def __init__(
        self, ray: Any, address: str, gpus: Sequence[int], options: worker.Options
    ) -> None:
        self._ray, self._address, self._options = ray, address, options
        self._code = machines.code_here()
        self._needs = ["CPU", *(["GPU"] if max(gpus) >= 0 else [])]
        # a process that has used a GPU keeps some of its memory, so it runs one experiment only
        once = {"max_calls": 1} if max(gpus) >= 0 else {}
        self._task = ray.remote(num_cpus=1, max_retries=0, **once)(machines.run)
        self._data: dict[tuple[str, str], machines.Data | None] = {}
        self._losses: Counter[str] = Counter()

    def start(self, job: Experiment, gpu: int) -> Any:
        """Start an experiment where there is room; Ray shows it one GPU at most."""
        zoo = job.params.get("model_zoo_path")
        zoo = zoo if zoo is not None and Path(zoo).is_dir() else None
        data = self._data_of(job.params)
        task = self._task.options(num_gpus=1) if gpu >= 0 else self._task
        return task.remote(job, min(gpu, 0), os.getcwd(), self._options, self._code, data, zoo)

    def first_of(self, running: Sequence[Any]) -> Any:
        """Wait for the first that ends.

        Raises:
            InputError: no machine is left.
        """
        since = None  # when no machine was left
        while True:
            ready, _ = self._ray.wait(running, timeout=_LOOK_EVERY)
            if ready:
                return ready[0]
            resources = self._ray.cluster_resources()
            lacks = " and a ".join(name for name in self._needs if resources.get(name, 0) < 1)
            if not lacks:
                since = None
            elif since is None:
                since = time.monotonic()
                _say(f"No machine has a {lacks}: waiting for one.")
            elif time.monotonic() - since > _PATIENCE:
                raise InputError(
                    f"No machine of the cluster {self._address} has a {lacks} for an experiment. "
                    "Finished ones are in the results: add a machine with `ray start "
                    f"--address={self._address}`, and give the same command again."
                )

    def row(self, job: Experiment, reference: Any) -> dict[str, Any] | None:
        """The row of an experiment that has ended; None if it has to be started again.

        Raises:
            InputError: a machine has other code, or lacks data that cannot be sent.
        """
        errors = self._ray.exceptions
        lost = errors.NodeDiedError, errors.WorkerCrashedError, errors.ObjectLostError
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, machines.DataIsMissingError):
                self._send_data(job.params)
                return None
            raise self._unfit(error) from error
        except lost as error:
            self._losses[job.key] += 1
            if self._losses[job.key] < _TRIES:
                _say(f"{job.name}: the process or its machine was lost; it runs again.")
                return None
            return failed(job, f"its process or machine was lost {_TRIES} times", error)
        except errors.RayError as error:  # for example no memory was left
            return failed(job, "the worker died", error)

    def _data_of(self, params: Mapping[str, Any]) -> machines.Data | None:
        key = _folder(params)
        if key not in self._data:
            self._data[key] = machines.Data.of(params)
        return self._data[key]

    def _send_data(self, params: Mapping[str, Any]) -> None:
        """Put the data where the machines get it from, unless an earlier experiment asked."""
        data = self._data_of(params)
        if data is not None and not data.files:
            _say(f"A machine lacks the encoded data of {data.dataset}: it is sent.")
            self._data[_folder(params)] = data.packed(self._ray, params)

    def _unfit(self, error: Any) -> InputError:
        if isinstance(error.cause, InputError):
            return InputError(str(error.cause))
        reason = summary(error).partition(". This may be")[0]
        return InputError(
            f"A machine of {self._address} cannot run an experiment ({reason}): install "
            f"there what is installed here, or mount {machines.package().parent} under the same "
            "path."
        )


def failed(job: Experiment, what: str, error: Exception) -> dict[str, Any]:
    """The row of an experiment that Ray ended."""
    return {**job.row(), "status": "failed", "reason": f"{what}: {summary(error)}"}


def summary(error: Exception) -> str:
    """An error of Ray's, or what it wraps, in one line."""
    return " ".join(str(getattr(error, "cause", error)).split())[:300]


def _folder(params: Mapping[str, Any]) -> tuple[str, str]:
    return params["data_root"], params["dataset_id"]


def _say(sentence: str) -> None:
    tqdm.write(sentence, file=sys.stderr)
