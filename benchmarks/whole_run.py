"""How long is a whole run, from the command to the test metrics, on encoded data?

    python benchmarks/whole_run.py

Runs each experiment with `run_expid.py` in a process of its own, one at a time on one thread, and
prints its wall time, its processor time and its test AUC. Limits on an idle machine: DIN_MISS 50 s,
PNN_MISS 35 s.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fuxictr_miss.errors import InputError, run_command

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("DIN", "PNN", "DIN_PPMI", "PNN_PPMI", "DIN_S3Rec", "PNN_S3Rec", "DIN_MISS", "PNN_MISS")
DATASETS = ("amazonbeauty", "amazoncds_subset")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--dataset", nargs="+", default=DATASETS)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| experiment | wall time | processor time | test AUC |")
    print("|---|---:|---:|---:|")
    for dataset in arguments.dataset:
        for model in arguments.model:
            wall, cpu, auc = _run(f"{model}_{dataset}", arguments.seed)
            print(f"| {model}_{dataset} | {wall:.1f} s | {cpu:.1f} s | {auc} |", flush=True)


def _run(expid: str, seed: int) -> tuple[float, float, str]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(ROOT / "run_expid.py"),
            "--expid",
            expid,
            "--seed",
            str(seed),
        ]
        command += ["--set", f"model_root={folder}", "--set", f"data_root={ROOT / 'data/encoded'}"]
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.splitlines() or [f"{expid} ended with code {done.returncode}."]
            raise InputError(said[-1].removeprefix("error: "))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = re.search(r"\[test\] AUC: ([0-9.]+)", done.stdout)
    return time.perf_counter() - started, cpu, found[1] if found else "–"


if __name__ == "__main__":
    run_command(main)
