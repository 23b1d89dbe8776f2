"""What does Adam cost with Alipay's tables, FuxiCTR's and ours?

    python benchmarks/large_tables.py

788,166 features of 10 dimensions (Table II), batches of 128 rows with three histories of 1 to 50
behaviors. Both optimizers take turns on the same batches in one process: trust the ratios. For
`optimizer: adam`, FuxiCTR uses torch's default Adam, we use its fused kernel. The limit is the time
that this machine's memory needs to move what Adam must: 28 bytes per weight, because it reads the
weight, the gradient and both moments, and writes all but the gradient.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from fuxictr.pytorch.models import BaseModel
from made_up import ALIPAY, DIM, MadeUp, seconds
from torch import Tensor

from fuxictr_miss.errors import run_command
from fuxictr_miss.training.optimizers import set_optimizer

ROWS = 128
DATA = MadeUp(ALIPAY, length=50)
WARM_UP = 3  # steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draw = torch.Generator().manual_seed(1)
    batches = [DATA.batch(ROWS, draw) for _ in range(options.steps + WARM_UP)]
    limit = 1e3 * 28 * sum(ALIPAY.values()) * DIM / _bandwidth()
    print(f"Adam moves 28 bytes a weight, which takes this memory {limit:.1f} ms.\n")
    print("| model | Adam | ms a step | FuxiCTR's / it | ms of Adam in it | times the limit |")
    print("|---|---|---:|---:|---:|---:|")
    for name in ("DIN", "DIN_MISS"):
        models = {"FuxiCTR's": DATA.model(name), "ours": DATA.model(name)}
        set_optimizer(models["ours"], "adam")
        steps, updates = _times(models, batches)
        for adam, step in steps.items():
            ratio, update = steps["FuxiCTR's"] / step, updates[adam]
            print(
                f"| {name} | {adam} | {step:.1f} | {ratio:.1f} | {update:.1f} "
                f"| {update / limit:.1f} |"
            )


def _times(
    models: dict[str, BaseModel], batches: list[dict[str, Tensor]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of a training step and of the optimizer's part, by optimizer."""
    steps: dict[str, list[float]] = {adam: [] for adam in models}
    updates: dict[str, list[float]] = {adam: [] for adam in models}
    for adam, model in models.items():
        _watch(model, updates[adam])
    for batch in batches:
        for adam, model in models.items():
            started = time.perf_counter()
            model.train_step(batch)
            steps[adam].append(time.perf_counter() - started)
    medians = (
        {adam: 1e3 * median(values[WARM_UP:]) for adam, values in times.items()}
        for times in (steps, updates)
    )
    return next(medians), next(medians)


def _watch(model: BaseModel, durations: list[float]) -> None:
    """Append the seconds of every step of the model's optimizer to `durations`."""
    begin: list[float] = []
    model.optimizer.register_step_pre_hook(lambda *_: begin.append(time.perf_counter()))
    model.optimizer.register_step_post_hook(
        lambda *_: durations.append(time.perf_counter() - begin.pop())
    )


def _bandwidth() -> float:
    """Peak memory bandwidth in bytes per second, from adding to 128 MiB in place."""
    total, term = torch.zeros(2**25), torch.ones(2**25)
    return 3 * total.nbytes / min(seconds(lambda: total.add_(term)) for _ in range(30))


if __name__ == "__main__":
    run_command(main)
