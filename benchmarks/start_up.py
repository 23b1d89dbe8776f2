"""How long is it from the command to the first training step, on encoded data?

    python benchmarks/start_up.py

Starts new Python processes, and prints when each has imported, built and taken its first step, in
seconds of wall time and of processor time, medians of all processes. Limit: 5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from fuxictr_miss.errors import run_command

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("imports", "build", "first step")
PROGRAM = """
import gc, json, os, sys, tempfile, time
from fuxictr_miss.config import load_config
from fuxictr_miss.errors import run_command

def now():
    return time.time() - float(sys.argv[2]), time.process_time()

def main():
    params = {**load_config("config", sys.argv[1]).params, "gpu": -1, "verbose": 0}
    gc.disable()  # as commands/train.py
    from fuxictr_miss import experiment
    gc.freeze()
    gc.enable()
    stages = [now()]
    with tempfile.TemporaryDirectory() as params["model_root"]:
        model, loaders = experiment.build(params)
        stages.append(now())

        def report(*_):
            stages.append(now())
            print(json.dumps(stages), flush=True)
            os._exit(0)

        from torch.optim.optimizer import register_optimizer_step_post_hook
        register_optimizer_step_post_hook(report)
        from fuxictr_miss.training import fit
        fit(model, loaders["train"], validation_data=loaders["valid"])

run_command(main)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--expid", default="DIN_MISS_amazonbeauty")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    runs = [_run(arguments.expid) for _ in range(arguments.runs)]
    print(f"{arguments.expid}, {len(runs)} processes:")
    print("| until the end of | wall time | processor time |")
    print("|---|---:|---:|")
    for stage, times in zip(STAGES, zip(*runs, strict=True), strict=True):
        wall, cpu = (statistics.median(each) for each in zip(*times, strict=True))
        print(f"| {stage} | {wall:.2f} s | {cpu:.2f} s |")


def _run(expid: str) -> list[list[float]]:
    command = [sys.executable, "-c", PROGRAM, expid, str(time.time())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:  # it has said why
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    run_command(main)
