"""Both arms of a comparison start from the same weights, and from a logloss of ln 2."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fuxictr.pytorch.layers import FeatureEmbedding

from fuxictr_miss import experiment
from fuxictr_miss.fuxictr_fixes.initial_weights import initialize_forgotten_tables

pytestmark = pytest.mark.trained_number

LINEAR = ["LR", "FM", "DeepFM", "xDeepFM"]  # models with a linear part


def build(params: dict[str, Any], model: str) -> tuple[Any, dict[str, Any]]:
    params = {k: v for k, v in params.items() if not k.endswith("_regularizer")}  # FM, LR: one key
    return experiment.build({**params, "model": model, "model_id": model})


@pytest.mark.parametrize("name", LINEAR)
def test_a_model_with_a_linear_part_starts_at_ln_2(params, name):
    model, loaders = build(params, name)
    logloss = model.evaluate(loaders["train"], metrics=["logloss"])["logloss"]
    assert logloss == pytest.approx(math.log(2), abs=0.01)


@pytest.mark.parametrize("name", LINEAR[1:])
def test_plain_and_enhanced_start_from_the_same_weights(params, name):
    plain, _ = build(params, name)
    after_plain = torch.get_rng_state()
    enhanced, _ = build(params, f"{name}_MISS")
    other = enhanced.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in plain.state_dict().items())
    assert torch.equal(torch.get_rng_state(), after_plain)


@pytest.fixture
def feature_map(params: dict[str, Any]) -> Any:
    return build(params, "DNN")[0].feature_map


class Holder(torch.nn.Module):
    """As much of a model as has tables."""

    device = torch.device("cpu")

    def __init__(self, **layers: torch.nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def test_only_forgotten_tables_are_drawn_and_their_padding_stays_zero(feature_map):
    shared = FeatureEmbedding(feature_map, 4)
    own = FeatureEmbedding(feature_map, 1, use_pretrain=False, use_sharing=False)
    model = Holder(shared=shared, own=own)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = initialize_forgotten_tables(model, seed=1)
    place = "own.embedding_layer"
    assert found == [f"{place}.item_history", f"{place}.cate_history"]
    drawn = {f"{place}.embedding_layers.{name}.weight" for name in ("item_history", "cate_history")}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in drawn), name
    for name in drawn:
        weight = model.state_dict()[name]
        assert weight[0].abs().max() == 0
        assert 0 < weight[1:].std() < 1e-3  # FuxiCTR's initializer has std 1e-4, torch's 1


def test_a_history_whose_target_is_left_out_is_drawn_once_under_each_table(feature_map):
    layer = FeatureEmbedding(feature_map, 4, not_required_feature_columns=["item_id"])
    model = Holder(layer=layer)
    assert initialize_forgotten_tables(model) == ["layer.embedding_layer.item_history"]
    assert layer.embedding_layer.embedding_layers["item_history"].weight.std() < 1e-3


def test_draws_depend_on_the_seed_alone_and_leave_the_global_numbers(feature_map):
    weights = []
    for seed in (1, 1, 2):
        model = Holder(own=FeatureEmbedding(feature_map, 1, use_pretrain=False, use_sharing=False))
        before = torch.get_rng_state()
        initialize_forgotten_tables(model, seed)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(model.own.embedding_layer.embedding_layers["item_history"].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
