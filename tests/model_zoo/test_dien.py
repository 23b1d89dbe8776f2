"""DIEN against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fuxictr.features import FeatureMap
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from model_zoo.DIEN import DIEN

KEYS = {
    "dien_target_field": [["item_id", "cate_id"]],
    "dien_sequence_field": [["item_history", "cate_history"]],
    "dnn_hidden_units": [6],
    "batch_norm": False,
}
LENGTHS = [5, 2, 1, 0, 3]


def vectors(model: nn.Module, batch: dict[str, Tensor], row: int, prefix: str = "") -> list[Tensor]:
    """The behaviors of a row in time order, item and category side by side."""
    items, cates = (batch[f"{prefix}{name}"][row].tolist() for name in SEQUENCES)
    tables = model.embedding_layer.embedding_layers
    return [
        torch.cat([tables["item_id"].weight[i], tables["cate_id"].weight[c]])
        for i, c in zip(items, cates, strict=True)
        if i != 0
    ]


SEQUENCES = ("item_history", "cate_history")


def gru(layer: nn.GRU, inputs: list[Tensor]) -> list[Tensor]:
    """h_t = (1 - u_t) h_{t-1} + u_t h~_t; PyTorch's z is 1 - u."""
    state = torch.zeros(layer.hidden_size, dtype=torch.float64)
    states = []
    for each in inputs:
        r_x, z_x, n_x = (layer.weight_ih_l0 @ each + layer.bias_ih_l0).chunk(3)
        r_h, z_h, n_h = (layer.weight_hh_l0 @ state + layer.bias_hh_l0).chunk(3)
        u = 1 - torch.sigmoid(z_x + z_h)
        state = (1 - u) * state + u * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
        states.append(state)
    return states


def attentional_gru(
    layer: nn.Module, inputs: list[Tensor], weights: list[Tensor], gru_type: str
) -> Tensor:
    cell = layer.gru_cell
    state = torch.zeros(len(cell.h2h.weight) // 3, dtype=torch.float64)
    for each, weight in zip(inputs, weights, strict=True):
        u_x, r_x, n_x = (cell.x2h.weight @ each + cell.x2h.bias).chunk(3)
        u_h, r_h, n_h = (cell.h2h.weight @ state + cell.h2h.bias).chunk(3)
        u = weight * torch.sigmoid(u_x + u_h) if gru_type == "AUGRU" else weight
        state = (1 - u) * state + u * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return state


@pytest.mark.parametrize("padding", ["post", "pre"])
@pytest.mark.parametrize("gru_type", ["GRU", "AIGRU", "AGRU", "AUGRU"])
def test_interests_evolve_towards_the_candidate(
    gru_type: str,
    padding: str,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    run_tower: Callable,
) -> None:
    model = build_exact(
        DIEN, make_feature_map(pooled=False), gru_type=gru_type, enable_sum_pooling=True, **KEYS
    )
    batch = make_batch(LENGTHS, padding)
    tables = model.embedding_layer.embedding_layers
    for row in range(len(LENGTHS)):
        user, item, cate = (
            tables[name].weight[batch[name][row]] for name in ("user_id", "item_id", "cate_id")
        )
        candidate = torch.cat([item, cate])
        behaviors = vectors(model, batch, row)
        interests = gru(model.extraction_modules[0], behaviors)
        last = torch.zeros(8, dtype=torch.float64)
        if interests and gru_type == "GRU":
            last = gru(model.evolving_modules[0], interests)[-1]
        elif interests:
            kernel = model.attention_modules[0].W_kernel
            scores = [torch.exp(h @ kernel @ candidate) for h in interests]
            weights = [score / sum(scores) for score in scores]  # a_t
            if gru_type == "AIGRU":
                scaled = [h * a for h, a in zip(interests, weights, strict=True)]
                last = gru(model.evolving_modules[0], scaled)[-1]
            else:
                last = attentional_gru(model.evolving_modules[0], interests, weights, gru_type)
        total = sum(behaviors, torch.zeros(8, dtype=torch.float64))
        seen = torch.cat([last, total, candidate * total, user, item, cate])
        expected = torch.sigmoid(run_tower(model.dnn, seen))
        torch.testing.assert_close(model(batch)["y_pred"][row], expected)


def log_loss(
    model: nn.Module, run_tower: Callable, state: Tensor, behavior: Tensor, label: int
) -> Tensor:
    probability = torch.sigmoid(run_tower(model.aux_net, torch.cat([state, behavior])))
    return -torch.log(probability if label else 1 - probability)


@pytest.mark.parametrize("padding", ["post", "pre"])
def test_auxiliary_loss_tells_the_next_behavior_from_a_neighbours(
    padding: str,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    run_tower: Callable,
) -> None:
    model = build_exact(DIEN, make_feature_map(pooled=False), aux_loss_alpha=0.5, **KEYS).train()
    batch = make_batch(LENGTHS, padding)
    total, steps, skipped = torch.zeros(1, dtype=torch.float64), 0, 0
    for row in range(len(LENGTHS)):
        behaviors = vectors(model, batch, row)
        others = vectors(model, batch, row - 1)  # row - 1 of row 0 is the last row
        interests = gru(model.extraction_modules[0], behaviors)
        for t in range(1, len(behaviors)):
            steps += 1
            total = total + log_loss(model, run_tower, interests[t - 1], behaviors[t], 1)
            if others and not torch.equal(others[t % len(others)], behaviors[t]):
                negative = others[t % len(others)]
                total = total + log_loss(model, run_tower, interests[t - 1], negative, 0)
            else:
                skipped += 1
    assert skipped > 0  # the row after the empty history has no neighbour
    torch.testing.assert_close(model(batch)["aux_loss"], (total / steps).squeeze())


def with_negatives(feature_map: FeatureMap) -> FeatureMap:
    for name in SEQUENCES:
        feature_map.features[f"neg_{name}"] = dict(feature_map.features[name])
    return feature_map


def test_auxiliary_loss_takes_negatives_from_the_data_if_named(
    make_feature_map: Callable, make_batch: Callable, build_exact: Callable, run_tower: Callable
) -> None:
    model = build_exact(
        DIEN,
        with_negatives(make_feature_map(pooled=False)),
        dien_neg_seq_field=[["neg_item_history", "neg_cate_history"]],
        aux_loss_alpha=0.5,
        **KEYS,
    ).train()
    batch, other = make_batch(LENGTHS), make_batch(LENGTHS, seed=1)
    batch |= {f"neg_{name}": other[name] for name in SEQUENCES}
    losses = []
    for row in range(len(LENGTHS)):
        behaviors, negatives = vectors(model, batch, row), vectors(model, batch, row, "neg_")
        interests = gru(model.extraction_modules[0], behaviors)
        losses += [
            log_loss(model, run_tower, interests[t - 1], behaviors[t], 1)
            + log_loss(model, run_tower, interests[t - 1], negatives[t], 0)
            for t in range(1, len(behaviors))
        ]
    torch.testing.assert_close(model(batch)["aux_loss"], torch.stack(losses).mean())


def test_auxiliary_loss_is_zero_without_a_next_behavior_and_absent_in_eval(
    make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    model = build(DIEN, make_feature_map(pooled=False), aux_loss_alpha=0.5, **KEYS).train()
    assert model(make_batch([1, 0, 1]))["aux_loss"].item() == 0
    assert "aux_loss" not in model.eval()(make_batch([3, 2]))


def test_auxiliary_loss_reaches_first_gru_and_no_random_number_is_drawn(
    make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    model = build(DIEN, make_feature_map(pooled=False), aux_loss_alpha=0.5, **KEYS).train()
    state = torch.get_rng_state()
    model(make_batch(LENGTHS))["aux_loss"].backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.extraction_modules[0].weight_ih_l0.grad.abs().sum() > 0
    assert model.embedding_layer.embedding_layers["item_id"].weight.grad[0].abs().sum() == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gru_type": "AUGURU"}, "'AUGURU'.*'AUGRU'"),
        ({"attention_type": "dot_attn"}, "'dot_attn'.*'dot_attention'"),
        ({"dien_neg_seq_field": "item_history"}, "dien_neg_seq_field"),
    ],
)
def test_unknown_types_are_named(
    keys: dict, message: str, make_feature_map: Callable, build: Callable
) -> None:
    with pytest.raises(InputError, match=message):
        build(DIEN, make_feature_map(pooled=False), **KEYS | keys)
