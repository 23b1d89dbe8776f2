"""How long does an epoch of batches take, and which part of a training step is it?

    python benchmarks/batches.py

Times one pass over the training split through FuxiCTR's ParquetDataLoader (which starts Ray),
through TensorDataLoader with its columns in memory, and through the same mapped from disk; and the
training steps of a model on the batches in memory. Limits: 30 times faster than FuxiCTR's loader;
at most 5% of a step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from typing import Any

from fuxictr_miss.config import Config, load_config
from fuxictr_miss.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--expid", default="DIN_amazonbeauty")
    parser.add_argument("--rounds", type=int, default=3, help="of all loaders, one after another")
    parser.add_argument("--epochs", type=int, default=20, help="of our loaders, timed a round")
    parser.add_argument("--steps", type=int, default=100, help="training steps timed a round")
    parser.add_argument("--no-fuxictr", action="store_true", help="leave Ray out")
    arguments = parser.parse_args()
    config = load_config("config", arguments.expid)
    with tempfile.TemporaryDirectory() as models:
        config = config.override([f"model_root={models}", "verbose=0"], None)
        _measure(config, arguments)


def _measure(config: Config, arguments: argparse.Namespace) -> None:
    from fuxictr_miss import experiment
    from fuxictr_miss.data import TensorDataLoader

    model, loaders = experiment.build(config)
    model._max_gradient_norm = 10.0
    memory = loaders["train"]
    path = os.path.join(config.data_root, config.dataset_id, "train.parquet")
    options: dict[str, Any] = {
        "split": "train", "batch_size": config.batch_size, "shuffle": True, "seed": 1,
    }  # fmt: skip
    mapped = TensorDataLoader(
        model.feature_map, path, trim_history=memory.trim_history, memory_budget_gb=0, **options
    )
    places: dict[str, Any] = {"memory": memory, "mapped file": mapped}
    if not arguments.no_fuxictr:
        from fuxictr.pytorch.dataloaders.parquet_dataloader import ParquetDataLoader

        places = {"FuxiCTR": ParquetDataLoader(model.feature_map, path, **options), **places}
    seconds: dict[str, list[float]] = {name: [] for name in places}
    steps = []
    for _ in range(arguments.rounds):
        for name, loader in places.items():
            seconds[name].append(_timed(loader, 1 if name == "FuxiCTR" else arguments.epochs))
        model.train()
        for number, batch in enumerate(memory):
            started = time.perf_counter()
            model.train_step(batch)
            steps.append(time.perf_counter() - started)
            if number == arguments.steps:
                break
    step = statistics.median(steps)
    slowest = seconds.get("FuxiCTR", [float("nan")] * arguments.rounds)
    print(f"{arguments.expid}: {len(memory)} batches of {config.batch_size}; "
          f"a training step takes {step * 1e3:.2f} ms")  # fmt: skip
    print("| batches from | an epoch | a batch | share of a step | FuxiCTR's / this |")
    print("|---|---:|---:|---:|---:|")
    for name, times in seconds.items():
        epoch = statistics.median(times)
        each = epoch / len(memory)
        ratio = statistics.median(s / t for s, t in zip(slowest, times, strict=True))
        print(f"| {name} | {epoch:.3f} s | {each * 1e6:.0f} µs | {each / step:.1%} | "
              f"{ratio:.0f} |")  # fmt: skip


def _timed(loader: Iterable[Any], epochs: int) -> float:
    """Seconds per epoch."""
    started = time.perf_counter()
    for _ in range(epochs):
        for _ in loader:
            pass
    return (time.perf_counter() - started) / epochs


if __name__ == "__main__":
    run_command(main)
