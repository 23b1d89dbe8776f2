"""Is a part of the paper worth anything on top of the recommended recipe, and on which data?

    python benchmarks/parts.py --dataset amazonbeauty amazoncds_subset --seeds 2
    python benchmarks/parts.py --made-up interleaved unions attribute

Adds one part at a time as a branch of its own, with a weight, to PNN_MISS as recommended, and
prints validation and test AUC, the mean over seeds. Above them stand the plain PNN, the control on
PPMI-SVD and the recipe as it is. The parts:

    more       twelve more pairs of the recipe's own kind: what every other part has to beat
    windows    interests of two and three behaviors (Eq. 19) that do not overlap
    near       pairs at most H = 3 behaviors apart (Eq. 21)
    encoder    attributes side by side, behind Enc_i (Eq. 13, 20)
    feature    the feature level (Eq. 16, 24), without an encoder; data with J > 1
    published  all of it: the paper's loss, with its ReLU, windows, distances and encoders

The made-up logs have a known structure (`benchmarks/structured_logs.py`).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from structured_logs import LOGS, parameters
from torch import nn

import fuxictr_miss as fm
from fuxictr_miss import experiment
from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config import load_config
from fuxictr_miss.config.recipes import read_recipe
from fuxictr_miss.config.settings import SSLSettings, read_settings
from fuxictr_miss.config.yaml_files import read_value
from fuxictr_miss.errors import run_command
from fuxictr_miss.methods.base import SSLLosses
from fuxictr_miss.methods.miss.method import MISS, Level, MISSSettings

PARTS: dict[str, dict[str, Any]] = {
    "more": {},
    "windows": {"max_width": 3},
    "near": {"max_distance": 3, "far_share": 0.0},
    "encoder": {"interest_encoder": [20, 20], "separate_features": False},
    "feature": {"variant": "", "feature_encoder": []},
    "published": dataclasses.asdict(MISSSettings()),
}


class Windows(MISS):
    """Windows of two behaviors or more that share none."""

    def _draw_views(self, behavior: Behavior) -> tuple[Level, Level | None]:
        windows: list[torch.Tensor] = []
        extract = self.extractor.register_forward_pre_hook(lambda _, args: windows.append(args[1]))
        interest, feature = super()._draw_views(behavior)
        extract.remove()
        first, second = windows[0].unflatten(2, (-1, 2)).unbind(-1)  # (B, M, P)
        width = torch.arange(1, first.shape[1] + 1, device=first.device)[:, None]
        apart = ((first - second).abs() >= width) & (width > 1)
        return Level(interest.views, interest.mask & apart), feature


@fm.register_method("Parts")
class Parts(nn.Module):
    """The recommended MISS, and one part of the paper with a weight."""

    @dataclasses.dataclass(frozen=True)
    class Settings:
        """Keys of the experiment."""

        part: Literal["none", "more", "windows", "near", "encoder", "feature", "published"] = "none"
        weight: float = 0.0

    def __init__(self, ssl: SSLSettings, settings: Settings, *rest: Any) -> None:
        super().__init__()
        recommended = read_settings(MISSSettings, "miss_", read_recipe("recommended"))
        self.recommended = MISS(ssl, recommended, *rest)
        self.name, self.weight = settings.part, settings.weight
        if settings.part != "none":
            kind = Windows if settings.part == "windows" else MISS
            self.part = kind(ssl, dataclasses.replace(recommended, **PARTS[self.name]), *rest)

    def prepare(self, columns: dict[str, torch.Tensor]) -> None:
        """Both set their temperatures."""
        for each in self.children():
            if each.prepares:
                each.prepare(columns)

    def forward(self, behavior: Behavior) -> SSLLosses:
        """L_ssl of the recipe, plus the weighted loss of the part."""
        losses = self.recommended(behavior)
        if self.name == "none":
            return losses
        part = self.part(behavior)
        own = {"feature": part.feature, "published": part.ssl + part.feature}
        return losses._replace(ssl=losses.ssl + self.weight * own.get(self.name, part.ssl))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", nargs="+", default=[], help="data sets of config/")
    parser.add_argument("--made-up", nargs="+", default=[], choices=LOGS)
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--weights", nargs="+", type=float, default=[0.1, 0.3])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logs = {
            name: load_config("config", f"PNN_MISS_{name}").params for name in arguments.dataset
        }
        for name in arguments.made_up:
            logs[name] = parameters(name, Path(folder) / name)
        given = dict(each.split("=", 1) for each in arguments.set)
        if any(key.startswith("miss_") for key in given):
            parser.error("--set takes no key of MISS: each row has those of its part.")
        print("| data set | part | weight | validation AUC | test AUC |")
        print("|---|---|---:|---:|---:|")
        for name, params in logs.items():
            params |= {key: read_value(key, text) for key, text in given.items()}
            sequences = sum(spec["type"] == "sequence" for spec in params["feature_cols"])
            parts = [p for p in arguments.part if sequences > 1 or p != "feature"]
            rows = [("PNN", 0.0), ("PNN_PPMI", 0.0), ("none", 0.0)]
            rows += [(part, weight) for part in parts for weight in arguments.weights]
            for part, weight in rows:
                seeds = range(1, arguments.seeds + 1)
                found = [_run(params, part, weight, seed, folder) for seed in seeds]
                valid, test = (statistics.mean(each) for each in zip(*found, strict=True))
                print(f"| {name} | {part} | {weight:g} | {valid:.4f} | {test:.4f} |", flush=True)


def _run(
    params: dict[str, Any], part: str, weight: float, seed: int, folder: str
) -> tuple[float, float]:
    """Validation and test AUC of PNN with a part, or of a model that is named instead."""
    own: dict[str, Any] = {"model": part}
    if not part.startswith("PNN"):
        params = {k: v for k, v in params.items() if not k.startswith("miss_")}
        own = {"model": "PNN_Parts", "parts_part": part, "parts_weight": weight}
    own |= {"model_id": own["model"], "model_root": folder, "verbose": 0, "seed": seed}
    result = experiment.run({**params, **own})
    return result["valid_AUC"], result["test_AUC"]


if __name__ == "__main__":
    run_command(main)
