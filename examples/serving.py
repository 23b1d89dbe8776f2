"""Serve what was trained: the plain backbone on raw rows, in a process without the MISS part.

    python examples/serving.py

`train` leaves four files. `score` needs only these, FuxiCTR, and the class of the backbone: our
DIN, or FuxiCTR's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from fuxictr.features import FeatureMap
from sklearn.metrics import roc_auc_score

from model_zoo.DIN import DIN


def train(folder: Path) -> None:
    """Train DIN_MISS on the synthetic log and write what serving needs to `folder / "served"`."""
    from made_up_log import parameters

    from fuxictr_miss.experiment import load_trained, run
    from fuxictr_miss.export import export_backbone

    params = {**parameters(folder), "model": "DIN_MISS", "model_id": "DIN_MISS"}
    print(f"DIN_MISS: test AUC {run(params)['test_AUC']:.4f}", flush=True)
    export_backbone(load_trained(params), folder / "served")  # to_backbone() and its feature map
    shutil.copy(folder / "encoded" / "mylog" / "feature_vocab.json", folder / "served")
    (folder / "served" / "params.json").write_text(json.dumps(params))


def score(folder: Path, rows: pd.DataFrame) -> torch.Tensor:
    """(B,) click probabilities of B raw rows; a history is joined by ^, the oldest item first."""
    params = json.loads((folder / "params.json").read_text())
    vocabulary = json.loads((folder / "feature_vocab.json").read_text())
    feature_map = FeatureMap(params["dataset_id"], str(folder))
    feature_map.load(str(folder / "feature_map.json"), params)
    model = DIN(feature_map, **params)
    model.load_state_dict(torch.load(folder / "DIN.model"))
    features = feature_map.features.items()
    inputs = {name: encode(rows[name], spec, vocabulary[name]) for name, spec in features}
    with torch.no_grad():
        return model.eval()(inputs)["y_pred"].flatten()


def encode(column: pd.Series, spec: dict, ids: dict[str, int]) -> torch.Tensor:
    """(B,) ids, or (B, L) of the newest L behaviors; padding is 0, an unknown token __OOV__."""
    unknown = ids["__OOV__"]
    if spec["type"] == "categorical":
        return torch.tensor([ids.get(token, unknown) for token in column])
    encoded = torch.zeros(len(column), spec["max_len"], dtype=torch.long)
    for row, history in zip(encoded, column, strict=True):
        newest = history.split("^")[-spec["max_len"] :] if history else []
        row[: len(newest)] = torch.tensor([ids.get(token, unknown) for token in newest])
    return encoded


def main(folder: Path) -> None:
    subprocess.run(
        [sys.executable, __file__, str(folder)], check=True
    )  # trains, in its own process
    rows = pd.read_parquet(folder / "splits" / "test.parquet")
    scores = score(folder / "served", rows)
    print(f"DIN, served: test AUC {roc_auc_score(rows['label'], scores):.4f}")
    assert not any(name.startswith("fuxictr_miss.methods") for name in sys.modules)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        train(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
