"""How many samples per second does a GPU train, and how far is that from what the GPU could do?

    python benchmarks/gpu.py

Trains DIN and DIN_MISS on synthetic batches on the device, in float32 and in bfloat16. The
arithmetic limit divides the floating-point operations of a step, as PyTorch counts them, by the
rate of a large matrix product measured here; the memory limit divides the bytes that Adam must move
(28 per weight) by the bandwidth of a large copy measured here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from fuxictr_miss.config import load_config

BYTES_A_WEIGHT = 28  # weight, gradient and both moments read; all but the gradient written


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="amazonbeauty")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4096, 65_536])
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()

    import torch

    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was measured.")
        return
    peak = {None: _peak(torch.float32), "bf16": _peak(torch.bfloat16)}
    bandwidth = _bandwidth()
    print(f"{torch.cuda.get_device_name()}: {peak[None] / 1e12:.0f} TFLOP/s in float32, "
          f"{peak['bf16'] / 1e12:.0f} in bfloat16, {bandwidth / 1e9:.0f} GB/s")  # fmt: skip
    print("| model | precision | batch | ms a step | samples/s | arithmetic limit | memory limit |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in ("DIN", "DIN_MISS"):
        for precision in peak:
            for rows in arguments.batch_sizes:
                expid = f"{name}_{arguments.dataset}"
                step, operations, weights = _train(expid, precision, rows, arguments.steps)
                limits = operations / peak[precision], BYTES_A_WEIGHT * weights / bandwidth
                print(f"| {name} | {precision or 'float32'} | {rows} | {step * 1e3:.2f} | "
                      f"{rows / step:,.0f} | {limits[0] / step:.1%} | "
                      f"{limits[1] / step:.1%} |")  # fmt: skip


def _train(expid: str, precision: str | None, rows: int, steps: int) -> tuple[float, int, int]:
    """Seconds and operations of a step, and the number of weights."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fuxictr_miss import experiment

    config = load_config("config", expid)
    with tempfile.TemporaryDirectory() as models:
        assignments = [f"model_root={models}", "verbose=0", f"batch_size={rows}"]
        changes = {"gpu": 0, "autocast": precision, "ssl_training": "joint"}
        model, loaders = experiment.build(config.override(assignments, None).replace(changes, ""))
    model._max_gradient_norm = 10.0
    model.train()
    train = loaders["train"]
    draw = torch.Generator().manual_seed(1)
    batch = next(
        train.batches(torch.randint(train.num_samples, (train.num_samples,), generator=draw))
    )
    times = -(-rows // len(batch["label"]))
    batch = {
        name: column.repeat(times, *[1] * (column.dim() - 1))[:rows]
        for name, column in batch.items()
    }
    with FlopCounterMode(display=False) as counter:
        model.train_step(batch)
    seconds = [_timed(lambda: model.train_step(batch)) for _ in range(steps)]
    weights = sum(p.numel() for p in model.parameters())
    return statistics.median(seconds), counter.get_total_flops(), weights


def _peak(dtype: Any, size: int = 8192) -> float:
    """Operations per second of a matrix product."""
    import torch

    a = torch.rand(size, size, device="cuda", dtype=dtype)
    return 2 * size**3 / min(_timed(lambda: a @ a) for _ in range(10))


def _bandwidth(size: int = 1 << 30) -> float:
    """Bytes per second of a copy, read and written."""
    import torch

    a = torch.zeros(size, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    return 2 * size / min(_timed(lambda: b.copy_(a)) for _ in range(10))


def _timed(work: Callable[[], Any]) -> float:
    import torch

    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
