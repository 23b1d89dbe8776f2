"""How long does an evaluation take, and are the metrics FuxiCTR's?

    python benchmarks/evaluation.py [--expid DIN_amazonbeauty ...]

Evaluates each model, trained for an epoch, on the validation split: FuxiCTR's `model.evaluate`
through its own loader (which starts Ray) and through its own loader's batches held in memory, and
`fuxictr_miss.training.evaluation.evaluate` at several batch sizes. Limits: 5 times faster than
FuxiCTR; metrics that differ by at most 1e-9.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from fuxictr_miss.config import Config, load_config
from fuxictr_miss.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--expid", nargs="+", default=["DIN_amazonbeauty"])
    parser.add_argument("--rounds", type=int, default=3, help="of all of them, one after another")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--no-fuxictr", action="store_true", help="leave Ray out")
    arguments = parser.parse_args()
    for expid in arguments.expid:
        config = load_config("config", expid)
        with tempfile.TemporaryDirectory() as models:
            config = config.override([f"model_root={models}", "verbose=0", "epochs=1"], None)
            _measure(expid, config, arguments)


def _measure(expid: str, config: Config, arguments: argparse.Namespace) -> None:
    from fuxictr_miss import experiment
    from fuxictr_miss.data import TensorDataLoader
    from fuxictr_miss.training.evaluation import evaluate

    model, loaders = experiment.build(config)
    model._max_gradient_norm = 10.0
    model.train()
    for batch in loaders["train"]:
        model.train_step(batch)
    path = os.path.join(config.data_root, config.dataset_id, "valid.parquet")
    rows, trim = config.batch_size, loaders["train"].trim_history

    def ours(batch_size: int, trim_history: bool = trim) -> TensorDataLoader:
        return TensorDataLoader(
            model.feature_map, path, "valid", batch_size, trim_history=trim_history
        )

    def theirs(loader: Any) -> Callable[[], dict[str, float]]:
        return lambda: model.evaluate(loader, metrics=config.metrics)

    def new(loader: Any) -> Callable[[], dict[str, float]]:
        return lambda: evaluate(model, loader, config.metrics)

    ways = {f"FuxiCTR's evaluate, batches of {rows} in memory": theirs(ours(rows, False))}
    if not arguments.no_fuxictr:
        from fuxictr.pytorch.dataloaders.parquet_dataloader import ParquetDataLoader

        loader = ParquetDataLoader(model.feature_map, path, "valid", rows)
        ways = {f"FuxiCTR's evaluate and loader, batches of {rows}": theirs(loader), **ways}
    ways.update({f"evaluate, batches of {size}": new(ours(size)) for size in arguments.batch_sizes})
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    metrics: dict[str, dict[str, float]] = {}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            metrics[name] = way()
            seconds[name].append(time.perf_counter() - started)
    first = next(iter(ways))
    baseline = statistics.median(seconds[first])
    print(f"{expid}, {loaders['valid'].num_samples} rows:")
    print("| evaluation by | seconds | faster | largest difference of a metric |")
    print("|---|---:|---:|---:|")
    for name, times in seconds.items():
        each = statistics.median(times)
        apart = max(abs(v - metrics[first][k]) for k, v in metrics[name].items())
        print(f"| {name} | {each:.3f} | {baseline / each:.1f} | {apart:.1e} |")


if __name__ == "__main__":
    run_command(main)
