"""Does PPMI-SVD gain as much as MISS where only near behaviors count as a pair?

    python benchmarks/near_control.py --dataset completejourney --distance 3 --seeds 3

Counts co-occurrence in all windows of H + 1 behaviors, so two are together if they are at most H
apart. Prints the metrics beside those of MISS with `miss_max_distance` H, the means over seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from structured_logs import LOGS, parameters
from torch import Tensor

import fuxictr_miss as fm
from fuxictr_miss import experiment
from fuxictr_miss.config import load_config
from fuxictr_miss.config.yaml_files import read_value
from fuxictr_miss.methods.ppmi import PPMI, PPMISettings, ppmi_svd


@fm.register_method("NearPPMI")
class NearPPMI(PPMI):
    """PPMI-SVD of ids at most `distance` apart; a pair counts once for each window that has it."""

    @dataclasses.dataclass(frozen=True)
    class Settings(PPMISettings):
        """Keys of the experiment."""

        distance: int = 3  # H

    settings: Settings

    def closed_form(self, history: Tensor, vocab_size: int, dim: int) -> Tensor:
        """The table of a feature; see `PPMI`."""
        far = self.settings.distance
        windows = F.pad(history, (far, far)).unfold(1, far + 1, 1)  # (users, L + H, H + 1)
        return ppmi_svd(windows.flatten(0, 1), vocab_size, dim)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", nargs="+", default=[], help="data sets of config/")
    parser.add_argument("--made-up", nargs="+", default=[], choices=LOGS)
    parser.add_argument("--model", nargs="+", default=["PNN", "DIN"])
    parser.add_argument("--distance", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    given = dict(each.split("=", 1) for each in options.set)
    print("| data set | model | validation AUC | test AUC | test logloss |")
    print("|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in [*options.dataset, *options.made_up]:
            for backbone in options.model:
                params = (
                    load_config("config", f"{backbone}_MISS_{name}").params
                    if name in options.dataset
                    else parameters(name, Path(folder) / name)
                )
                params |= {key: read_value(key, text) for key, text in given.items()}
                params |= {"model_root": folder, "verbose": 0}
                control = {k: v for k, v in params.items() if not k.startswith("miss_")}
                control |= {"model": f"{backbone}_NearPPMI", "nearppmi_distance": options.distance}
                miss = {
                    **params, "model": f"{backbone}_MISS", "miss_max_distance": options.distance
                }  # fmt: skip
                for row in (control, miss):
                    means = _means({**row, "model_id": row["model"]}, options.seeds)
                    print(f"| {name} | {row['model']} | {means} |", flush=True)


def _means(params: dict[str, Any], seeds: int) -> str:
    """Validation AUC, test AUC and test logloss, the means over the seeds."""
    found = [experiment.run({**params, "seed": seed}) for seed in range(1, seeds + 1)]
    keys = ("valid_AUC", "test_AUC", "test_logloss")
    return " | ".join(f"{statistics.mean(each[key] for each in found):.4f}" for key in keys)


if __name__ == "__main__":
    main()
