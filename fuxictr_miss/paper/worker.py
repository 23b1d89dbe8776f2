"""Run one experiment inside a worker process and return its row of the results file."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fuxictr_miss import experiment
from fuxictr_miss.data.digest import stamped_digest
from fuxictr_miss.errors import DivergedError, InputError
from fuxictr_miss.outputs.run_files import versions
from fuxictr_miss.paper import yardsticks
from fuxictr_miss.paper.plan import Experiment

# beside the config's, whose metrics belong to a run's digest
_EXTRA_METRICS = ("ECE",)


class Options(NamedTuple):
    """How the experiments of a command run."""

    model_root: str  # the folder of checkpoints, states, logs and curves
    resume: bool = False  # an interrupted run of the same settings in this folder
    keep_checkpoints: bool = False  # and states, when a run has ended


def run(job: Experiment, gpu: int, folder: str, options: Options) -> dict[str, Any]:
    """Train and evaluate one experiment on one thread; a failure is reported in the row.

    Args:
        job: the experiment; a trial of a search never sees the test split.
        gpu: -1 for the CPU.
        folder: the working directory.
        options: where its files are, and which of them count and stay.

    Returns:
        The row: key, dataset, model, purpose, seed, status ("ok", "diverged", "failed"), reason,
        digest, params, `valid_<metric>`, `test_<metric>` (not of a trial), epochs, seconds,
        processor_seconds (not on a GPU, nor of a resumed run), peak_memory_mb, curve, data,
        versions, host, finished.
    """
    os.chdir(folder)
    torch.set_num_threads(1)
    if job.model in yardsticks.YARDSTICKS:  # they count, on the CPU
        gpu = -1
    params = {**job.params, "seed": job.seed, "model_id": job.name}
    params.update(model_root=options.model_root, gpu=gpu, verbose=0)
    started, computed = time.perf_counter(), time.process_time()
    with contextlib.suppress(OSError):  # forget the peak of earlier experiments in this process
        Path("/proc/self/clear_refs").write_text("5")
    row: dict[str, Any] = {**job.row(), "versions": versions(), "host": _host(params["gpu"])}
    try:
        if job.model in yardsticks.YARDSTICKS:
            result = yardsticks.run(params)
        else:
            test = job.purpose != "search"
            result = experiment.run(params, options.resume, extra_metrics=_EXTRA_METRICS, test=test)
        row.update(_outcome(result))
        whole = row["seconds"] == result["seconds"]  # else an earlier process did a part of it
        if whole and gpu < 0:
            row["processor_seconds"] = round(time.process_time() - computed, 1)
    except Exception as error:  # a failed experiment must not stop the others
        row["status"] = "diverged" if isinstance(error, DivergedError) else "failed"
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        row["reason"] = f"{kind}{' '.join(str(error).split())}"[:300]
    row.setdefault("seconds", round(time.perf_counter() - started, 1))
    row["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    row["finished"] = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    row["data"] = stamped_digest(params)
    if not options.keep_checkpoints:
        for ending in (".model", ".state"):
            path = Path(options.model_root) / params["dataset_id"] / (params["model_id"] + ending)
            path.unlink(missing_ok=True)
    return row


def _outcome(result: Mapping[str, Any]) -> dict[str, Any]:
    trained = sum(epoch["seconds"] for epoch in result["history"])  # also before a resume
    return {
        "status": "ok",
        **{key: value for key, value in result.items() if key.startswith(("valid_", "test_"))},
        "epochs": result["epochs"],
        "seconds": round(max(result["seconds"], trained), 1),
        "curve": _similarities(result["history"]),
    }


def _similarities(history: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Mean similarity of the views per epoch, and the epoch's last training step, for Fig. 5."""
    curve: dict[str, list[float]] = {"training step": [], "similarity": []}
    step = 0
    for epoch in history:
        step += epoch["steps"]
        if "similarity" in epoch:
            curve["training step"].append(step)
            curve["similarity"].append(round(epoch["similarity"], 5))
    return curve


def _host(gpu: int) -> str:
    """The processor and one thread, or the GPU."""
    if 0 <= gpu < torch.cuda.device_count():
        return torch.cuda.get_device_name(gpu)
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return f"{model[1] if model else platform.machine()}, 1 thread"
