"""A folder with a config of DIN and DIN_MISS on the small data set, in which nothing is real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fuxictr_miss.paper.plan import Experiment, Planner
from fuxictr_miss.paper.tables import Variant

DATA_KEYS = {"data_root", "data_format", "train_data", "valid_data", "test_data", "feature_cols",
             "label_col"}  # fmt: skip
KILLER = """
import os

from model_zoo.DIN import DIN


class Killer(DIN):
    def __init__(self, feature_map, **params):
        if params["seed"] == 1:
            os._exit(1)
        super().__init__(feature_map, **params)
"""


@pytest.fixture
def place(params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with `config/` of the expids DIN_small, DIN_MISS_small, Killer_small."""
    dataset = {key: params.pop(key) for key in DATA_KEYS}
    params.update(epochs=1, dataset_id="small", ssl_training="joint", ssl_weight=0.5)
    params.update(miss_max_width=3, miss_variant="", train_sample_rate=1.0, irssl_dropout=0.5)
    params.update(ssl_pretrain_epochs=1, ssl_pretrain_sampling="users")  # quick
    del params["model_id"], params["gpu"]
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "Killer.py").write_text(KILLER)
    models = {
        "Base": {},
        "DIN_small": {**params, "model": "DIN"},
        "DIN_MISS_small": {**params, "model": "DIN_MISS"},
        "Killer_small": {**params, "model": "Killer", "model_zoo_path": str(zoo)},
    }
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "model_config.yaml").write_text(yaml.safe_dump(models))
    (tmp_path / "config" / "dataset_config.yaml").write_text(yaml.safe_dump({"small": dataset}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row(experiment: Experiment, **values: Any) -> dict[str, Any]:
    """A row as a worker would have made it."""
    return {
        "key": experiment.key,
        "dataset": experiment.dataset,
        "model": experiment.model,
        "purpose": experiment.purpose,
        "seed": experiment.seed,
        "status": "ok",
        "digest": experiment.digest,
        "params": dict(experiment.overrides),
        "curve": {"training step": [], "similarity": []},
        "seconds": 10.0,
        **values,
    }


def an_experiment(config: str, variant: Variant, dataset: str, seed: int = 1) -> Experiment:
    experiment = Planner(config).experiment(variant, dataset, seed)
    assert experiment is not None
    return experiment
