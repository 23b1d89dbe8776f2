"""What a training step costs with Alipay's tables, and what `optimizer` makes of it.

    python benchmarks/large_tables.py

788,166 features of 10 dimensions (Table II), batches of 128 rows with three histories of 1 to 50
behaviors, all drawn evenly: no batch of real clicks touches more rows. The optimizers take turns
on the same batches in one process, so that only ratios count: dense is what FuxiCTR makes of
`optimizer: adam`, fused and sparse_adam are ours. The limit is the time in which this machine's
memory can move what Adam must: 28 bytes a weight, as it reads weight, gradient and both moments
and writes all but the gradient.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from fuxictr.pytorch.models import BaseModel
from made_up import ALIPAY, DIM, MadeUp, seconds
from torch import Tensor

from fuxictr_miss.optimizers import set_optimizer

FEATURES = sum(ALIPAY.values())
ROWS = 128
DATA = MadeUp(ALIPAY, length=50)
OPTIMIZERS = ("dense", "fused", "sparse_adam")
WARM_UP = 3  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draw = torch.Generator().manual_seed(1)
    batches = [DATA.batch(ROWS, draw) for _ in range(options.steps + WARM_UP)]
    distinct = [sum(len(torch.cat(each).unique()) for each in _lookups(b)) for b in batches]
    print(f"{median(distinct):.0f} of {FEATURES:,} rows in a batch, {options.threads} thread(s)\n")
    print("| model | optimizer | ms a step | dense / it | of it in the optimizer |")
    print("|---|---|---|---|---|")
    in_adam = {}
    for name in ("DIN", "DIN_MISS"):
        step, update = _times(name, batches)
        in_adam[name] = update
        for each in OPTIMIZERS:
            ratio = step["dense"] / step[each]
            print(f"| {name} | {each} | {step[each]:.1f} | {ratio:.1f} | {update[each]:.1f} |")
    speed = _bandwidth()
    limit = 28 * FEATURES * DIM / speed * 1e3
    print(f"\nmemory moves {speed / 1e9:.1f} GB/s, so that Adam takes {limit:.1f} ms at least: ")
    for each in OPTIMIZERS:
        print(f"  {each} takes {in_adam['DIN'][each] / limit:.2f} times as long")


def _times(name: str, batches: list[dict[str, Tensor]]) -> tuple[dict[str, float], ...]:
    """Median milliseconds of a training step and of the optimizer's part, by optimizer."""
    models = {each: _model(name, each) for each in OPTIMIZERS}
    steps: dict[str, list[float]] = {each: [] for each in OPTIMIZERS}
    updates: dict[str, list[float]] = {each: [] for each in OPTIMIZERS}
    for each, model in models.items():
        _watch(model, updates[each])
    for batch in batches:
        for each, model in models.items():
            started = time.perf_counter()
            model.train_step(batch)
            steps[each].append(time.perf_counter() - started)
    return tuple(
        {each: 1e3 * median(values[WARM_UP:]) for each, values in times.items()}
        for times in (steps, updates)
    )


def _watch(model: BaseModel, seconds: list[float]) -> None:
    """Append the duration of every step of the model's optimizer to `seconds`."""
    begin: list[float] = []
    model.optimizer.register_step_pre_hook(lambda *_: begin.append(time.perf_counter()))
    model.optimizer.register_step_post_hook(
        lambda *_: seconds.append(time.perf_counter() - begin.pop())
    )


def _model(name: str, optimizer: str) -> BaseModel:
    model = DATA.model(name)
    if optimizer != "dense":
        set_optimizer(model, {"fused": "adam"}.get(optimizer, optimizer))
    return model


def _lookups(batch: dict[str, Tensor]) -> list[list[Tensor]]:
    """The ids that each table is asked for."""
    shares = DATA.histories.items()
    return [
        [batch[feature], *(batch[h].flatten() for h, target in shares if target == feature)]
        for feature in ALIPAY
    ]


def _bandwidth() -> float:
    """Bytes a second that the memory moves at its best, adding to 128 MiB in place."""
    total, term = torch.zeros(2**25), torch.ones(2**25)
    return 3 * total.nbytes / min(seconds(lambda: total.add_(term)) for _ in range(30))


if __name__ == "__main__":
    main()
