"""FiGNN against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from model_zoo.FiGNN import FiGNN


def attend(layer: nn.Module, fields: list[Tensor], num_heads: int) -> list[Tensor]:
    """H^1 = relu(H_1 || ... || H_h), H_i = softmax(Q K' / sqrt(d_i)) V."""
    size = len(fields[0]) // num_heads
    outputs = []
    for field in fields:
        heads = []
        for start in range(0, len(field), size):
            head = slice(start, start + size)
            query = layer.W_q.weight[head] @ field
            weights = [
                torch.exp(query @ (layer.W_k.weight[head] @ other) / size**0.5) for other in fields
            ]
            values = [layer.W_v.weight[head] @ other for other in fields]
            heads.append(sum(w / sum(weights) * v for w, v in zip(weights, values, strict=True)))
        outputs.append(torch.cat(heads).clamp(min=0))
    return outputs


def gru(cell: nn.GRUCell, message: Tensor, state: Tensor) -> Tensor:
    r_x, z_x, n_x = (cell.weight_ih @ message + cell.bias_ih).chunk(3)
    r_h, z_h, n_h = (cell.weight_hh @ state + cell.bias_hh).chunk(3)
    z = torch.sigmoid(z_x + z_h)
    new = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return (1 - z) * new + z * state


@pytest.mark.parametrize("num_heads", [0, 2])
def test_fields_exchange_messages_along_weighted_edges(
    num_heads: int,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    pooled_fields: Callable,
) -> None:
    feature_map = make_feature_map(pooled=True)
    model = build_exact(FiGNN, feature_map, gnn_layers=2, attention_heads=num_heads)
    batch = make_batch([5, 2, 0])
    for row in range(3):
        nodes = pooled_fields(model.embedding_layer, batch, row)
        if num_heads:
            nodes = attend(model.self_attention, nodes, num_heads)
        count = len(nodes)
        weight_w = model.fignn.W_attn.weight[0]
        edge = [[torch.zeros(()) for _ in range(count)] for _ in range(count)]
        for i in range(count):
            scores = {
                j: torch.exp(
                    nn.functional.leaky_relu(weight_w @ torch.cat([nodes[i], nodes[j]]), 0.01)
                )
                for j in range(count)
                if j != i
            }
            for j, score in scores.items():
                edge[i][j] = score / sum(scores.values())
        states = nodes
        for layer in model.fignn.gnn:
            new = []
            for i in range(count):
                incoming = sum(edge[i][j] * (layer.W_out[j] @ states[j]) for j in range(count))
                message = layer.W_in[i] @ incoming + layer.bias_p
                new.append(gru(model.fignn.gru, message, states[i]) + nodes[i])
            states = new
        everything = torch.cat(states)
        logit = torch.zeros(1, dtype=torch.float64)
        for i in range(count):
            attention = torch.sigmoid(model.fc.mlp2[0].weight[i] @ everything)
            logit = logit + attention * (model.fc.mlp1.weight @ states[i])
        torch.testing.assert_close(model(batch)["y_pred"][row], torch.sigmoid(logit))


def test_one_field_has_no_graph(make_feature_map: Callable, build: Callable) -> None:
    feature_map = make_feature_map(pooled=True)
    for name in list(feature_map.features)[1:]:
        del feature_map.features[name]
    with pytest.raises(InputError, match="two fields"):
        build(FiGNN, feature_map)


def test_heads_must_divide_the_embedding(make_feature_map: Callable, build: Callable) -> None:
    with pytest.raises(InputError, match="attention_heads=3"):
        build(FiGNN, make_feature_map(pooled=True), attention_heads=3)
