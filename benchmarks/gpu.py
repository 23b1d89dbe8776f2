"""How many samples a second does a GPU train, and for what share of the time does it wait?

    python benchmarks/gpu.py
    python benchmarks/gpu.py --gpu -1 --rows 2048 --batch-sizes 256     tries the script on a CPU

Epochs over synthetic rows of Amazon-Cds' size, by our loader and loop and by FuxiCTR's, which
starts Ray, on the same device in turn; the first epoch of each is not timed. A GPU waits while it
runs no kernel, as PyTorch's profiler sees it in an epoch of its own. The arithmetic limit divides
the operations of a step, as PyTorch counts them, by the rate of a large matrix product measured
here; the memory limit divides the bytes that Adam must move (28 per weight) by the bandwidth of a
large copy measured here. Limits are shares of our time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import polars as pl
import torch
from fuxictr.pytorch.dataloaders.parquet_dataloader import ParquetDataLoader
from made_up import CDS, MadeUp
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from fuxictr_miss.data import TensorDataLoader
from fuxictr_miss.errors import run_command
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.means import Means
from fuxictr_miss.training.optimizers import set_optimizer

MODELS = ("DIN", "PNN", "DIN_MISS")
BYTES_A_WEIGHT = 28  # weight, gradient and both moments read; all but the gradient written
DATA = MadeUp(CDS, length=50)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("--rows", type=int, default=655_360)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4096, 65_536])
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    if options.gpu >= torch.cuda.device_count():
        print("There is no such CUDA device here: nothing was measured.")
        return
    device = torch.device("cpu" if options.gpu < 0 else f"cuda:{options.gpu}")
    peak = {each: _peak(kind, device) for each, kind in ((None, torch.float32),
            ("bf16", torch.bfloat16))}  # fmt: skip
    bandwidth = _bandwidth(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    print(f"{name}: {peak[None] / 1e12:.1f} TFLOP/s in float32, {peak['bf16'] / 1e12:.1f} in "
          f"bfloat16, {bandwidth / 1e9:.0f} GB/s")  # fmt: skip
    print("| model | precision | batch | samples/s | FuxiCTR's loader and loop | ours / it "
          "| waits | arithmetic limit | memory limit |")  # fmt: skip
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/train.parquet"
        _write(options.rows, path)
        for model in options.models:
            for precision in peak:
                for batch in options.batch_sizes:
                    found = _measure(model, precision, batch, path, options)
                    step = batch / found["ours"]
                    limits = (found["operations"] / peak[precision] / step,
                              BYTES_A_WEIGHT * found["weights"] / bandwidth / step)  # fmt: skip
                    print(f"| {model} | {precision or 'float32'} | {batch} "
                          f"| {found['ours']:,.0f} | {found['FuxiCTR']:,.0f} "
                          f"| {found['ours'] / found['FuxiCTR']:.1f} | {found['waits']:.0%} "
                          f"| {limits[0]:.1%} | {limits[1]:.1%} |", flush=True)  # fmt: skip


def _write(rows: int, path: str) -> None:
    """Encoded rows, as FuxiCTR's encoder leaves them."""
    batch = DATA.batch(rows, torch.Generator().manual_seed(1))
    pl.DataFrame({name: column.numpy() for name, column in batch.items()}).write_parquet(path)


def _measure(
    name: str, precision: str | None, rows: int, path: str, options: argparse.Namespace
) -> dict[str, float]:
    """Samples a second of both loops, and what else the table has."""
    keys = {"precision": precision, "gpu": options.gpu, "ssl_training": "joint"}
    model, theirs = DATA.model(name, **keys), DATA.model(name, **keys)
    set_optimizer(model, "adam")
    shape = {"split": "train", "batch_size": rows, "shuffle": True}
    loader = TensorDataLoader(
        model.feature_map, path, **shape, seed=1, trim_history=True, device=model.device
    )
    model._total_steps = theirs._total_steps = 0
    theirs._eval_steps, theirs._stop_training, theirs._verbose = 2**60, False, 0
    loop = FuxiCTRLoop(model, None, "")

    def ours() -> None:
        means = Means()
        for index, batch in enumerate(loader):
            means.add({"loss": loop.step(batch, 0, index)})
        means.means()

    with FlopCounterMode(display=False) as counter:
        model.train_step(next(iter(loader)))
    fuxictr = ParquetDataLoader(theirs.feature_map, path, **shape)
    seconds = _timed(ours, model.device)
    return {
        "ours": loader.num_samples / seconds,
        "FuxiCTR": loader.num_samples / _timed(lambda: theirs.train_epoch(fuxictr), model.device),
        "waits": _waits(ours, model.device),
        "operations": counter.get_total_flops(),
        "weights": sum(parameter.numel() for parameter in model.parameters()),
    }


def _timed(epoch: Callable[[], Any], device: torch.device) -> float:
    """Seconds of an epoch, after one that is not timed."""
    epoch()
    return _seconds(epoch, device)


def _waits(epoch: Callable[[], Any], device: torch.device) -> float:
    """The share of an epoch in which the GPU runs no kernel."""
    if device.type != "cuda":
        return float("nan")
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds = _seconds(epoch, device)
    busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    return max(0.0, 1 - busy / seconds)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _peak(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of a matrix product."""
    size = 8192 if device.type == "cuda" else 512
    a = torch.rand(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(_seconds(lambda: a @ a, device) for _ in range(10))


def _bandwidth(device: torch.device) -> float:
    """Bytes per second of a copy, read and written."""
    size = 2**30 if device.type == "cuda" else 2**26
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * size / min(_seconds(lambda: b.copy_(a), device) for _ in range(10))


if __name__ == "__main__":
    run_command(main)
