"""DCN and DCN-V2 against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fuxictr_miss.errors import InputError
from model_zoo.DCN import DCN
from model_zoo.DCNv2 import DCNv2


def test_dcn_crosses_by_a_vector(
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    pooled_fields: Callable,
    run_tower: Callable,
) -> None:
    feature_map = make_feature_map(pooled=True)
    model = build_exact(DCN, feature_map, dnn_hidden_units=[6], num_cross_layers=2)
    batch = make_batch([5, 2, 0])
    for row in range(3):
        x0 = torch.cat(pooled_fields(model.embedding_layer, batch, row))
        x = x0
        for layer in model.crossnet.cross_net:
            weight = layer.weight.weight[0]
            x = x0 * sum(x[i] * weight[i] for i in range(len(x))) + layer.bias + x  # Eq. 3
        deep = run_tower(model.dnn, x0)  # Eq. 4
        expected = torch.sigmoid(model.fc.weight @ torch.cat([x, deep]) + model.fc.bias)  # Eq. 5
        torch.testing.assert_close(model(batch)["y_pred"][row], expected)


@pytest.mark.parametrize("structure", ["crossnet_only", "stacked", "parallel", "stacked_parallel"])
def test_dcnv2_crosses_by_a_matrix(
    structure: str,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    pooled_fields: Callable,
    run_tower: Callable,
) -> None:
    model = build_exact(
        DCNv2,
        make_feature_map(pooled=True),
        model_structure=structure,
        stacked_dnn_hidden_units=[6],
        parallel_dnn_hidden_units=[5],
        num_cross_layers=2,
    )
    batch = make_batch([5, 2, 0])
    for row in range(3):
        x0 = torch.cat(pooled_fields(model.embedding_layer, batch, row))
        x = x0
        for layer in model.crossnet.cross_layers:
            x = x0 * (layer.weight @ x + layer.bias) + x  # Eq. 1
        if "stacked" in structure:
            x = run_tower(model.stacked_dnn, x)
        if "parallel" in structure:
            x = torch.cat([x, run_tower(model.parallel_dnn, x0)])
        expected = torch.sigmoid(model.fc.weight @ x + model.fc.bias)
        torch.testing.assert_close(model(batch)["y_pred"][row], expected)


def test_an_unknown_structure_is_named(make_feature_map: Callable, build: Callable) -> None:
    with pytest.raises(InputError, match=r"'paralel'.*'parallel'"):
        build(DCNv2, make_feature_map(pooled=True), model_structure="paralel")
