"""Run one experiment inside a worker process and return its row of the results file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import resource
import time
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import fuxictr_miss
from fuxictr_miss import experiment
from fuxictr_miss.errors import DivergedError
from fuxictr_miss.paper.plan import Experiment

_MB = 1024  # KiB


def run(job: Experiment, model_root: str, resume: bool, keep_checkpoints: bool) -> dict[str, Any]:
    """Train and evaluate one experiment; a failure is reported in the row.

    Args:
        job: the experiment.
        model_root: folder for its checkpoint, state, log and curves.
        resume: continue an interrupted run of the same settings in the same `model_root`.
        keep_checkpoints: keep the checkpoint and state after the run.

    Returns:
        The row: key, dataset, model, purpose, seed, status ("ok", "diverged", "failed"), reason,
        digest, params, `valid_<metric>`, `test_<metric>` (not for search trials, which must
        not see the test split), epochs, seconds, peak_memory_mb, curve, data, versions, host,
        finished.
    """
    params = {**job.params, "seed": job.seed, "model_id": f"{job.model}_{job.key}"}
    params.update(model_root=model_root, gpu=-1, verbose=0)
    started = time.perf_counter()
    _reset_peak_memory()
    row: dict[str, Any] = {**row_of(job), "versions": _versions(), "host": _host()}
    try:
        result = experiment.run(params, resume=resume)
        row.update(_outcome(job, result))
    except Exception as error:  # a failed experiment must not stop the others
        row.update(_failure(error))
    row.setdefault("seconds", round(time.perf_counter() - started, 1))
    row["peak_memory_mb"] = _peak_memory_mb()
    row["finished"] = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    row["data"] = data_digest(params)
    if not keep_checkpoints:
        for ending in (".model", ".state"):
            path = Path(model_root) / params["dataset_id"] / (params["model_id"] + ending)
            path.unlink(missing_ok=True)
    return row


def row_of(job: Experiment) -> dict[str, Any]:
    """The columns of a row that are known before the run."""
    return {
        "key": job.key,
        "dataset": job.dataset,
        "model": job.model,
        "purpose": job.purpose,
        "seed": job.seed,
        "digest": job.digest,
        "params": dict(job.overrides),
    }


def data_digest(params: Mapping[str, Any]) -> str:
    """Digest of the encoded data, to recognise rows of other data under the same name."""
    stamp = Path(params["data_root"]) / params["dataset_id"] / "build.json"
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))["content"]
    except (OSError, ValueError, KeyError):
        return ""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _outcome(job: Experiment, result: Mapping[str, Any]) -> dict[str, Any]:
    history = result["history"]
    metrics = {k: v for k, v in result.items() if k.startswith(("valid_", "test_"))}
    if job.purpose == "search":
        metrics = {k: v for k, v in metrics.items() if k.startswith("valid_")}
    trained = sum(epoch["seconds"] for epoch in history)  # includes time before a resume
    return {
        "status": "ok",
        **metrics,
        "epochs": result["epochs"],
        "seconds": round(max(result["seconds"], trained), 1),
        "curve": _similarities(history),
    }


def _failure(error: Exception) -> dict[str, Any]:
    message = " ".join(str(error).split())
    return {
        "status": "diverged" if isinstance(error, DivergedError) else "failed",
        "reason": f"{type(error).__name__}: {message}"[:300],
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


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fuxictr": version("fuxictr"),
        "fuxictr_miss": fuxictr_miss.__version__,
    }


def _host() -> str:
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} thread"


def _reset_peak_memory() -> None:
    """Forget the peak of earlier experiments in this process (only on Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mb() -> float:
    """The peak resident memory of this process in MiB, including Python and torch."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return round(int(line.split()[1]) / _MB, 1)
    except OSError:
        pass
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MB, 1)
