"""Run experiments in parallel on Ray. Only this process writes the results file."""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.paper import worker
from fuxictr_miss.paper.cluster import Cluster, failed, summary
from fuxictr_miss.paper.plan import Experiment
from fuxictr_miss.paper.results import Results

ROOT = Path(__file__).resolve().parents[2]
MODEL_ROOT = "./checkpoints/benchmark"
# One thread per worker, so that results do not depend on the number of threads.
_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_OF_INIT = ConnectionError, RuntimeError, ValueError  # what ray.init raises


def missing(
    experiments: Iterable[Experiment], results: Results, data: Mapping[str, str], retry_failed: bool
) -> list[Experiment]:
    """The experiments that still have to run.

    Args:
        experiments: the planned experiments.
        results: the finished ones.
        data: digest of the encoded data, by data set; results on other data are ignored.
        retry_failed: also ignore results of failed and diverged runs.
    """
    left = []
    for each in experiments:
        row = results.rows.get(each.key)
        stale = row and data.get(each.dataset) and row.get("data") != data[each.dataset]
        if row is None or stale or (retry_failed and row["status"] != "ok"):
            left.append(each)
    return left


def estimate(experiment: Experiment, rows: Iterable[Mapping[str, Any]]) -> float | None:
    """Estimate the seconds that an experiment takes; None without any finished run.

    This is the median of the same model on the same data set, else of the same model, else of all.
    """
    timed = [row for row in rows if row["status"] == "ok"]
    model = [row for row in timed if row["model"] == experiment.model]
    same = [row for row in model if row["dataset"] == experiment.dataset]
    for like in (same, model, timed):
        if like:
            return statistics.median(row["seconds"] for row in like)
    return None


def run_all(
    experiments: Sequence[Experiment],
    results: Results,
    gpus: Sequence[int],
    address: str | None = None,
    keep_checkpoints: bool = False,
) -> None:
    """Run experiments, the longest first, and add the row of each when it ends.

    Args:
        experiments: the experiments to run.
        results: the results file to add to.
        gpus: one worker each, -1 for the CPU; on a cluster any other number is any GPU of it.
        address: HOST:PORT of a Ray cluster that this machine belongs to; None runs on this machine.
        keep_checkpoints: keep the checkpoint of a run after its end.

    Raises:
        InputError: Ray cannot be started or reached; on a cluster, a machine has other code or
            lacks data that cannot be sent, or no machine is left. Rows so far are in the file.
    """
    known = list(results.rows.values())
    # stable sort; unknown durations first, as they might be long
    queue = sorted(experiments, key=lambda e: -(estimate(e, known) or float("inf")))
    for _ in run_each(queue, len(queue), results, gpus, address, MODEL_ROOT, keep_checkpoints):
        pass


def run_each(
    experiments: Iterable[Experiment],
    number: int,
    results: Results,
    gpus: Sequence[int],
    address: str | None,
    model_root: str,
    keep_checkpoints: bool = False,
) -> Iterator[dict[str, Any]]:
    """Run experiments in this order, and yield the row of each after it has been added.

    Args:
        experiments: the next is asked for when a worker is free and all rows so far are yielded.
        number: how many there will be, for the progress bar; 0 starts nothing.
        results: the results file to add to.
        gpus: as in `run_all`.
        address: as in `run_all`.
        model_root: folder for checkpoints, states, logs and curves.
        keep_checkpoints: as in `run_all`.

    Raises:
        InputError: as in `run_all`.
    """
    if not number:
        return
    commit = commit_of(ROOT, results.path.parent)
    # an interrupted run is only resumed by the same commit
    resume = not commit.endswith("-dirty")
    options = worker.Options(f"{model_root}/{commit}", resume, keep_checkpoints)
    with (
        _ray(len(gpus), address) as ray,
        tqdm(total=number, unit=" runs", smoothing=0, file=sys.stderr) as progress,
    ):
        place = Cluster(ray, address, gpus, options) if address else _Here(ray, gpus, options)
        for row in _rows(iter(experiments), gpus, place):
            results.add({**row, "commit": commit})
            name = f"{row['model']} {row['dataset']} seed {row['seed']}"
            if row["status"] != "ok":
                settings = f" with {row['params']}" if row["params"] else ""
                outcome = f"{name}{settings}: {row['status']}: {row['reason']}"
                progress.write(outcome, file=sys.stderr)
            progress.set_postfix_str(name, False)
            progress.update()
            yield row


def commit_of(code: Path, results: Path) -> str:
    """The commit of the code, with "-dirty" if tracked files outside the results have changed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(code), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    inside = code in results.resolve().parents
    paths = [".", f":(exclude){results.resolve()}"] if inside else ["."]
    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *paths)
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class _Here:
    """The processes of this machine. If one dies, only its experiment fails."""

    def __init__(self, ray: Any, gpus: Sequence[int], options: worker.Options) -> None:
        self._ray, self._options = ray, options
        # a process that has used a GPU keeps some of its memory, so it runs one experiment only
        once = {"max_calls": 1} if max(gpus) >= 0 else {}
        self._task = ray.remote(num_cpus=1, max_retries=0, **once)(worker.run)

    def start(self, job: Experiment, gpu: int) -> Any:
        return self._task.remote(job, gpu, os.getcwd(), self._options)

    def first_of(self, running: Sequence[Any]) -> Any:
        return self._ray.wait(running)[0][0]

    def row(self, job: Experiment, reference: Any) -> dict[str, Any]:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return failed(job, "the worker died", error)


def _rows(
    waiting: Iterator[Experiment], gpus: Sequence[int], place: _Here | Cluster
) -> Iterator[dict[str, Any]]:
    """Yield the rows as experiments end."""
    free = list(gpus)
    again: list[Experiment] = []  # those whose machine was lost
    running: dict[Any, tuple[Experiment, int]] = {}
    while True:
        while free and (job := again.pop(0) if again else next(waiting, None)) is not None:
            gpu = free.pop(0)
            running[place.start(job, gpu)] = job, gpu
        if not running:
            return
        ready = place.first_of(list(running))
        job, gpu = running.pop(ready)
        free.append(gpu)
        row = place.row(job, ready)
        if row is None:
            again.append(job)
        else:
            yield row


@contextmanager
def _ray(workers: int, address: str | None) -> Iterator[Any]:
    """Start Ray without its log output, or join a cluster; stop or leave it at the end.

    SIGTERM, at which Ray would abort this process, does in between what Ctrl-C does.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    before = signal.getsignal(signal.SIGTERM)
    of_signals = threading.current_thread() is threading.main_thread()
    try:
        _join(ray, address) if address else _start(ray, workers)
        if of_signals:
            signal.signal(signal.SIGTERM, _interrupt)
        yield ray
    finally:
        ray.shutdown()
        if of_signals:
            signal.signal(signal.SIGTERM, before)


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def _start(ray: Any, workers: int) -> None:
    with explained(_OF_INIT, "Ray does not start", "try again"):
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **_options())


def _join(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:  # Ray itself would wait and abort
        with explained(
            OSError,
            f"There is no Ray cluster at {address}",
            "start one by `ray start --head`, and give the address that it prints",
        ):
            socket.create_connection((host, int(port)), timeout=10).close()
    try:
        ray.init(address=address, **_options())
    except (*_OF_INIT, ray.exceptions.AuthenticationError) as error:
        if "AuthenticationError" in f"{type(error)} {error.__cause__}":
            raise InputError(
                f"The Ray cluster {address} asks for a token: set RAY_AUTH_MODE=token here, and "
                "copy ~/.ray/auth_token from the machine that started it."
            ) from error
        raise InputError(
            f"The Ray cluster {address} cannot be joined ({summary(error)}): this machine has to "
            f"belong to it (`ray start --address={address}`), and all machines need ray "
            f"{ray.__version__} and Python {platform.python_version()}."
        ) from error


def _options() -> dict[str, Any]:
    # ours first: FuxiCTR's wheel has its own top-level `model_zoo`
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        "runtime_env": {"env_vars": {**_THREADS, "PYTHONPATH": path}},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
