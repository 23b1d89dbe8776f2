"""The model that serves: what is left when the self-supervised part has been taken off."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import nn

from fuxictr_miss import experiment

pytestmark = pytest.mark.trained_number

PAIR = [["item_id", "cate_id"]], [["item_history", "cate_history"]]


def fields(prefix: str) -> dict[str, Any]:
    return {f"{prefix}target_field": PAIR[0], f"{prefix}sequence_field": PAIR[1]}


# The paper's thirteen but LR, which has nothing to enhance, and DNN: keys beyond conftest's.
MODELS: dict[str, dict[str, Any]] = {
    "AutoInt": {},
    "DCN": {},
    "DCNv2": {"parallel_dnn_hidden_units": [8, 8]},
    "DIEN": fields("dien_") | {"dien_neg_seq_field": []},
    "DIN": {},
    "DMR": fields("") | {"neg_seq_field": [], "context_field": []},
    "DNN": {},
    "DeepFM": {},
    "FM": {},
    "FiGNN": {},
    "PNN": {},
    "SIM": {},
    "xDeepFM": {"cin_hidden_units": [3, 3]},
}


def build(params: dict[str, Any], name: str, model: str, **changes: Any) -> tuple[Any, dict]:
    if name == "FM":  # it has one key for both
        params = {k: v for k, v in params.items() if not k.endswith("_regularizer")}
    keys = MODELS[name] | {"batch_norm": name == "DNN", "model": model, "model_id": model}
    built, loaders = experiment.build({**params, **keys, **changes})
    built._max_gradient_norm = 10.0  # set by fit() before it calls train_step()
    return built, loaders


def trained(params: dict[str, Any], name: str) -> tuple[Any, dict[str, Any]]:
    model, loaders = build(params, name, f"{name}_MISS")
    for batch in loaders["train"]:
        model.train().train_step(batch)
    return model, loaders


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of nn.GRU, by torch itself
@pytest.mark.parametrize("name", MODELS)
def test_the_stripped_model_exports_and_answers_as_the_trained_one(params, name):
    class Prediction(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.model(inputs)["y_pred"]

    model, loaders = trained(params, name)
    stripped = model.eval().to_backbone()
    everything = dict(loaders["test"].columns)
    del everything["label"]
    batches = [{name: c[:rows] for name, c in everything.items()} for rows in (4, 1, 50)]
    shapes = ({name: {0: torch.export.Dim("rows")} for name in everything},)
    exported = torch.export.export(Prediction(stripped), (batches[0],), dynamic_shapes=shapes)
    for batch in batches:
        expected = model(batch)["y_pred"]
        assert torch.equal(stripped(batch)["y_pred"], expected)
        torch.testing.assert_close(exported.module()(batch), expected)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "SIM"])  # other batches there
def test_trained_weights_load_strictly_into_upstreams_class(params, name):
    zoo = os.environ.get("FUXICTR_ZOO")
    if not zoo:
        pytest.skip("set FUXICTR_ZOO to the model_zoo folder of a checkout of FuxiCTR")
    model, loaders = trained(params, name)
    theirs, their_loaders = build(params, name, name, model_zoo_path=zoo)
    assert not type(theirs).__module__.startswith("fuxictr_miss.")
    theirs.load_state_dict(model.to_backbone().state_dict(), strict=True)
    torch.testing.assert_close(
        torch.tensor(theirs.predict(their_loaders["test"])),
        torch.tensor(model.predict(loaders["test"])),
        rtol=1e-5,
        atol=1e-6,
    )
