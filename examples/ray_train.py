"""The same training in workers of Ray Train, on this machine or on a cluster.

    python examples/ray_train.py        # one worker
    python examples/ray_train.py 2      # two, each with its share of every batch

With RAY_ADDRESS=HOST:PORT a Ray cluster runs it; all of its machines must see the temporary folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
from made_up_log import parameters
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def train(params: dict[str, Any]) -> None:
    """Run the experiment; all workers together if there are several, in their process group."""
    from fuxictr_miss.experiment import run

    result = run(params)
    metrics = {name: result[name] for name in ("valid_AUC", "test_AUC")}
    files = None  # the first worker hands over checkpoint, log and curves
    if ray.train.get_context().get_world_rank() == 0:
        files = Checkpoint.from_directory(params["model_root"])
    ray.train.report(metrics, checkpoint=files)


def main(workers: int, folder: Path) -> None:
    params = {**parameters(folder), "model": "DIN_MISS", "model_id": "DIN_MISS"}
    trainer = TorchTrainer(
        train,
        train_loop_config=params,
        torch_config=TorchConfig(
            backend="gloo"
        ),  # nccl, use_gpu=True and params["gpu"] = 0 on GPUs
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=False),
        run_config=RunConfig(name="DIN_MISS", storage_path=str(folder / "ray")),
    )
    result = trainer.fit()
    print(f"DIN_MISS, {workers} worker(s): test AUC {result.metrics['test_AUC']:.4f}")
    with result.checkpoint.as_directory() as kept:
        print("Kept:", ", ".join(sorted(path.name for path in Path(kept).rglob("[!.]*.*"))))


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    here = os.pathsep.join(map(os.path.abspath, sys.path))  # the workers import what we do
    ray.init(
        os.environ.get("RAY_ADDRESS", "local"),
        runtime_env={"env_vars": {"PYTHONPATH": here, "OMP_NUM_THREADS": "1"}},
        **({} if "RAY_ADDRESS" in os.environ else {"num_cpus": number + 1}),
    )
    with tempfile.TemporaryDirectory() as temporary:
        main(number, Path(temporary))
