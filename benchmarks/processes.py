"""What do more processes of torchrun gain in a training step, and what do they communicate?

    python -m torch.distributed.run --standalone --nproc-per-node 2 benchmarks/processes.py

Steps of DIN and DIN_MISS as `fit` takes them, joint training (Eq. 17) at a global batch of 4,096,
with one thread a process, on synthetic data of Amazon-Cds' size. Each round times some steps that
all processes share, then as many of one process alone, and then as many whole ones of every process
at the same time, which shows what the memory that they share costs. Bytes are those that a process
gives away in a step: the gradients of the parameters, and what else the step needs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from made_up import CDS, MadeUp

from fuxictr_miss.distributed import processes
from fuxictr_miss.distributed.batch_norm import synchronised_batch_norm
from fuxictr_miss.errors import run_command
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.optimizers import set_optimizer

COLLECTIVES = ("all_reduce", "all_gather")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4096, help="of a global batch")
    parser.add_argument("--models", nargs="+", default=["DIN", "DIN_MISS"])
    parser.add_argument("--blocks", type=int, nargs="+", default=[128, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with processes.session():
        say("| model | `ssl_block_size` | ms, one process | each its own | processes | ms, shared "
            "| times the samples | gradients, MB | other, KB |")  # fmt: skip
        say("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        for name in options.models:
            for block in options.blocks if "_" in name else options.blocks[:1]:
                measure(name, block, options)


def measure(name: str, block: int, options: argparse.Namespace) -> None:
    data = MadeUp(CDS, length=50)
    batch = data.batch(options.rows, torch.Generator().manual_seed(1))
    model = data.model(name, ssl_block_size=block)
    set_optimizer(model, "adam")
    model._total_steps, model._max_gradient_norm = 0, 10.0
    loop = FuxiCTRLoop(model, None, "")
    share = loop.share_of(options.rows)
    own = batch if share is None else {n: column[share.own] for n, column in batch.items()}

    def together() -> None:
        with processes.sharing(share):
            loop.step(own, 0, 0)

    def whole() -> None:
        model._total_steps += 1
        model.train_step(batch)

    with synchronised_batch_norm(model):
        for _ in range(2):
            together()
        with counted() as sent:
            together()
        times: dict[str, list[float]] = {"one": [], "all": [], "shared": []}
        for _ in range(options.rounds):
            times["shared"].append(timed(together, options.steps))
            times["all"].append(timed(whole, options.steps))
            times["one"].append(timed(whole, options.steps if processes.rank() == 0 else 0))
    one, each, shared = (1e3 * median(times[kind]) for kind in ("one", "all", "shared"))
    gradients = sum(p.nbytes for p in model.parameters() if p.grad is not None)
    say(f"| {name} | {block} | {one:.0f} | {each:.0f} | {processes.world_size()} | {shared:.0f} "
        f"| {median(a / b for a, b in zip(times['one'], times['shared'], strict=True)):.2f} "
        f"| {gradients / 1e6:.1f} | {sum(sent) / 1e3:.1f} |")  # fmt: skip


def timed(work: Callable[[], None], steps: int) -> float:
    """Seconds of a step on the slowest process."""
    processes.barrier()
    started = time.perf_counter()
    for _ in range(steps):
        work()
    spent = (time.perf_counter() - started) / max(1, steps)
    return max(processes.together(lambda: spent))


@contextmanager
def counted() -> Iterator[list[int]]:
    """Bytes handed to the collectives of a step, but for those of DistributedDataParallel."""
    sent: list[int] = []
    before = {name: getattr(dist, name) for name in COLLECTIVES}

    def counting(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keys: Any) -> Any:
            tensor = next(each for each in reversed(arguments) if isinstance(each, torch.Tensor))
            sent.append(tensor.nbytes)
            return before[name](*arguments, **keys)

        return call

    for name in COLLECTIVES:
        setattr(dist, name, counting(name))
    try:
        yield sent
    finally:
        for name, call in before.items():
            setattr(dist, name, call)


def say(line: str) -> None:
    if processes.rank() == 0:
        print(line, flush=True)


if __name__ == "__main__":
    run_command(main)
