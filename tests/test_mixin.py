"""The seven invariants of the mixin, for every backbone that can carry a method."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything

import fuxictr_miss as fm
from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.training import fit

pytestmark = pytest.mark.trained_number

BACKBONES = ["DIN", "DNN", "FiGNN", "PNN"]


def build(params: dict[str, Any], model: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    return experiment.build({**params, "model": model, "model_id": model, **changes})


def trained(params: dict[str, Any], model: str, **changes: Any) -> tuple[Any, dict[str, float]]:
    instance, loaders = build(params, model, **changes)
    fit(instance, loaders["train"], epochs=params["epochs"], validation_data=loaders["valid"])
    return instance, instance.evaluate(loaders["test"])


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weight_zero_gives_the_bits_of_the_plain_backbone(params, backbone):
    plain, metrics = trained(params, backbone)
    enhanced, with_zero = trained(params, f"{backbone}_MISS", ssl_weight=0)
    assert same_weights(plain, enhanced)
    assert metrics == with_zero


@pytest.mark.parametrize(
    ("keys", "norm"),
    [({}, 10.0), ({"eval_steps": 5, "net_dropout": 0.2}, 0.01)],
)
def test_weight_zero_gives_the_bits_of_fuxictrs_own_fit(params, keys, norm):
    """Our loop does FuxiCTR's arithmetic: its `fit` ends with the same weights and metrics."""
    fitted = []
    for name, fit_ in (("DIN", BaseModel.fit), ("DIN_MISS", fit)):
        model, loaders = build({**params, **keys}, name, ssl_weight=0)
        Path(model.checkpoint).parent.mkdir(parents=True, exist_ok=True)
        fit_(model, loaders["train"], epochs=3, validation_data=loaders["valid"],
             max_gradient_norm=norm)  # fmt: skip
        fitted.append((model, model.evaluate(loaders["test"])))
    (plain, metrics), (enhanced, same) = fitted
    assert same_weights(plain, enhanced)
    assert metrics == same


@pytest.mark.parametrize("backbone", BACKBONES)
def test_building_leaves_the_initial_weights_and_the_global_random_numbers_alone(params, backbone):
    plain, _ = build(params, backbone)
    after_plain = torch.get_rng_state()
    enhanced, _ = build(params, f"{backbone}_MISS")
    assert same_weights(plain, enhanced)
    assert torch.equal(torch.get_rng_state(), after_plain)


def test_training_steps_draw_nothing_from_the_global_random_numbers(params):
    model, loaders = build(params, "DIN_MISS")
    model._max_gradient_norm = 10.0
    before = torch.get_rng_state()
    for batch in loaders["train"]:
        model.train_step(batch)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_contrastive_gradient_reaches_the_shared_tables_and_not_their_padding(params, backbone):
    model, loaders = build(params, f"{backbone}_MISS")
    losses = model._self_supervision.losses(model, next(iter(loaders["train"])))
    model._self_supervision.weighted(losses).backward()
    for table in model._self_supervision.sources[0].tables(model):
        assert table.weight.grad.abs().sum() > 0
        assert table.weight.grad[0].abs().sum() == 0


def table_gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return [table.weight.grad for table in model._self_supervision.sources[0].tables(model)]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradient_beside_the_label_loss_is_their_sum(params, backbone):
    model, loaders = build(params, f"{backbone}_MISS")
    batch = next(iter(loaders["train"]))
    draws = model._self_supervision.generator.get_state()
    together = table_gradients(model, model.add_loss(model(batch), model.get_labels(batch)))
    model._self_supervision.generator.set_state(draws)
    ssl = table_gradients(
        model, model._self_supervision.weighted(model._self_supervision.losses(model, batch))
    )
    model._self_supervision.active = False
    label = table_gradients(model, model.add_loss(model(batch), model.get_labels(batch)))
    for sum_, first, second in zip(together, ssl, label, strict=True):
        assert not sum_.is_sparse
        torch.testing.assert_close(sum_, first + second)


def test_every_parameter_of_the_method_is_in_the_optimizer_and_moves(params):
    model, loaders = build(params, "DIN_MISS")
    optimized = {id(p) for group in model.optimizer.param_groups for p in group["params"]}
    before = copy.deepcopy(model._self_supervision.methods[0].state_dict())
    model._max_gradient_norm = 10.0
    for batch in loaders["train"]:
        model.train_step(batch)
    for name, parameter in model._self_supervision.methods[0].named_parameters():
        assert id(parameter) in optimized
        assert not torch.equal(parameter, before[name]), name


def test_a_method_gets_the_temperature_of_its_width(params):
    model, _ = build(params, "DIN_MISS", ssl_temperature=None, embedding_dim=40)
    assert model._self_supervision.methods[0].temperature == pytest.approx(0.2)


def test_loss_is_the_label_loss_plus_the_weighted_contrastive_losses(params):
    model, loaders = build(params, "DIN_MISS", ssl_weight=0.3, ssl_feature_weight=0.7)
    batch = next(iter(loaders["train"]))
    y_true = model.get_labels(batch)
    total = model.add_loss(model.train().forward(batch), y_true)
    ssl = model._self_supervision.last
    label = model.add_loss(model.eval().forward(batch), y_true)
    torch.testing.assert_close(total, label + 0.3 * ssl.ssl + 0.7 * ssl.feature)  # Eq. 17


def test_contrast_at_every_third_step_has_three_times_the_weight(params):
    model, loaders = build(params, "DIN_MISS", ssl_every=3)
    batch = next(iter(loaders["train"]))
    y_true = model.get_labels(batch)
    label = model.add_loss(model.eval().forward(batch), y_true)
    terms = []
    for model._total_steps in range(6):
        total = model.add_loss(model.train().forward(batch), y_true)
        terms.append((total - label).item())
        assert (model._self_supervision.last is None) == (model._total_steps % 3 != 0)
        if model._self_supervision.last is not None:
            torch.testing.assert_close(
                total, label + 3 * model._self_supervision.weighted(model._self_supervision.last)
            )
    assert [term != 0 for term in terms] == [True, False, False] * 2


def test_evaluation_does_the_work_of_the_backbone_only(params, monkeypatch):
    model, loaders = build(params, "PNN_MISS")
    plain, _ = build(params, "PNN")
    batch = next(iter(loaders["test"]))
    calls = {}
    for name, each in (("plain", plain), ("enhanced", model)):
        each.eval()
        with torch.profiler.profile() as profile, torch.no_grad():
            each.forward(batch)
        calls[name] = sorted((e.key, e.count) for e in profile.key_averages())
    assert calls["plain"] == calls["enhanced"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_to_backbone_predicts_the_same_bits_and_loads_strictly(params, backbone):
    model, _ = trained(params, f"{backbone}_MISS")
    _, loaders = build(params, backbone)
    before = torch.get_rng_state()
    plain = model.to_backbone()
    assert torch.equal(torch.get_rng_state(), before)
    assert type(plain) is type(model)._ssl_backbone
    assert (plain.predict(loaders["test"]) == model.predict(loaders["test"])).all()
    fresh, _ = build(params, backbone)
    fresh.load_state_dict(plain.state_dict(), strict=True)


@pytest.mark.parametrize("strategy", ["joint", "pretrain", "pretrain_joint"])
def test_same_seed_same_metrics_to_the_last_digit(params, strategy):
    changes = {"ssl_training": strategy, "ssl_pretrain_epochs": 2}
    _, first = trained(params, "DIN_MISS", **changes)
    _, second = trained(params, "DIN_MISS", **changes)
    assert first == second


def test_another_seed_draws_other_pairs(params):
    seen = []
    for seed in (1, 2):
        model, loaders = build(params, "DIN_MISS", seed=seed)
        for parameter in model.parameters():
            parameter.data.fill_(0.1)
        for table in model._self_supervision.sources[0].tables(model):
            table.weight.data = torch.arange(table.weight.numel()).cos().view_as(table.weight)
        batch = next(loaders["train"].batches())
        seen.append(model._self_supervision.losses(model, batch).similarity)
    assert seen[0] != seen[1]


def test_pooling_of_the_backbone_is_not_disturbed(params):
    """The un-pooled embeddings are read beside the backbone's look-up, not instead of it."""
    model, loaders = build(params, "DNN_MISS")
    plain, _ = build(params, "DNN")
    batch = next(iter(loaders["train"]))
    assert torch.equal(
        model.train().forward(batch)["y_pred"], plain.train().forward(batch)["y_pred"]
    )


@pytest.mark.parametrize("rows", [1, 2])
def test_a_small_last_batch_trains(params, rows):
    model, loaders = build(params, "DIN_MISS")
    model._max_gradient_norm = 10.0
    batch = {name: column[:rows] for name, column in loaders["train"].columns.items()}
    assert torch.isfinite(model.train_step(batch))


def test_a_batch_of_empty_histories_adds_exactly_nothing(params):
    model, loaders = build(params, "DIN_MISS")
    batch = dict(next(iter(loaders["train"])))
    for name in model._self_supervision.sources[0].features:
        batch[name] = torch.zeros_like(batch[name])
    losses = model._self_supervision.losses(model, batch)
    assert losses.ssl == 0
    assert losses.feature == 0


def test_one_loss_does_not_starve_the_other_under_the_global_clip(params):
    """At the very first step the tables have std 1e-4 and the contrastive gradient is largest.

    The clip at 10 may not shrink the label gradient to less than half of itself.
    """
    model, loaders = build(params, "DNN_MISS")
    batch = next(iter(loaders["train"]))
    model.train()
    loss = model.compute_loss(model.forward(batch), model.get_labels(batch))
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert norm < 20


class OwnModel(BaseModel):
    """What a FuxiCTR user might have written: no zoo, no traits."""

    def __init__(self, feature_map: Any, model_id: str = "Own", gpu: int = -1, **kwargs: Any):
        super().__init__(feature_map, model_id=model_id, gpu=gpu, **kwargs)
        self.linear = FeatureEmbedding(feature_map, 1, use_pretrain=False, use_sharing=False)
        self.embedding_layer = FeatureEmbedding(feature_map, 4)
        self.mlp = MLP_Block(feature_map.sum_emb_out_dim(), [8], output_dim=1)
        self.compile(kwargs["optimizer"], kwargs["loss"], 1e-2)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        x = self.get_inputs(inputs)
        linear = self.linear(x).sum(dim=1)
        y = self.mlp(self.embedding_layer(x, flatten_emb=True)) + linear
        return {"y_pred": self.output_activation(y)}


def test_any_base_model_can_be_enhanced_and_the_widest_table_is_taken(params):
    model, loaders = build(params, "DNN")
    seed_everything(1)
    enhanced = fm.enhance(OwnModel)(model.feature_map, **params)
    assert type(enhanced).__name__ == "OwnModel_MISS"
    assert enhanced._self_supervision.sources[0].dim == 4
    enhanced.fit(loaders["train"], validation_data=loaders["valid"], **params)
    assert enhanced.evaluate(loaders["test"])["AUC"] > 0


def test_enhance_takes_fuxictr_models_only():
    with pytest.raises(InputError, match="BaseModel"):
        fm.enhance(torch.nn.Linear)


def test_an_unknown_key_is_an_error_with_the_closest_one(params):
    with pytest.raises(InputError, match="ssl_temperature"):
        build(params, "DIN_MISS", ssl_temprature=0.2)
