"""bfloat16 in the forward pass, float32 wherever a loss is taken."""

from __future__ import annotations

import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError

pytestmark = pytest.mark.trained_number


@pytest.mark.parametrize("name", ["DIN", "DIN_MISS"])
def test_products_are_bfloat16_and_losses_float32(params, name):
    params.update(model=name, autocast="bf16", ssl_training="joint")
    model, loaders = experiment.build(params)
    assert type(model).__name__ == name
    layer = next(each for each in model.dnn.modules() if isinstance(each, torch.nn.Linear))
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    outputs = model.forward(next(iter(loaders["train"])))
    assert seen == [torch.bfloat16]
    assert outputs["y_pred"].dtype == torch.float32
    if name == "DIN_MISS":
        assert {each.dtype for each in outputs["_self_supervision"][:3]} == {torch.float32}


@pytest.mark.parametrize("name", ["DIN", "PNN_MISS"])
def test_a_run_in_bfloat16_ends_near_one_in_float32(params, name):
    params.update(model=name, epochs=1)
    full = experiment.run({**params, "model_id": "full"})
    half = experiment.run({**params, "model_id": "half", "autocast": "bf16"})
    assert half["test_logloss"] != full["test_logloss"]
    assert half["test_logloss"] == pytest.approx(full["test_logloss"], rel=0.02)


def test_another_precision_is_refused(params):
    with pytest.raises(InputError, match="bf16"):
        experiment.build({**params, "autocast": "bf61"})
