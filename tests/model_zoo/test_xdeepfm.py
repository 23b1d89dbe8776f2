"""xDeepFM against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import torch

from model_zoo.xDeepFM import xDeepFM


def test_cin_crosses_feature_maps_vector_wise(
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    pooled_fields: Callable,
    linear_part: Callable,
    run_tower: Callable,
) -> None:
    feature_map = make_feature_map(pooled=True)
    model = build_exact(xDeepFM, feature_map, dnn_hidden_units=[6], cin_hidden_units=[3, 2])
    batch = make_batch([5, 2, 0])
    for row in range(3):
        fields = pooled_fields(model.embedding_layer, batch, row)  # X^0, m = 5
        maps, pooled = fields, []
        for layer in model.cin.cin_layer.values():
            weight = layer.weight[:, :, 0].view(layer.out_channels, len(fields), len(maps))
            maps = [  # x^k_h = sum_ij W_ij (x^0_i * x^{k-1}_j)
                layer.bias[h]
                + sum(
                    weight[h, i, j] * fields[i] * maps[j]
                    for i in range(len(fields))
                    for j in range(len(maps))
                )
                for h in range(layer.out_channels)
            ]
            pooled += [each.sum() for each in maps]  # p^k_h
        logit = model.cin.fc.weight @ torch.stack(pooled) + model.cin.fc.bias
        logit = logit + linear_part(model.lr_layer, batch, row)
        logit = logit + run_tower(model.dnn, torch.cat(fields))
        torch.testing.assert_close(model(batch)["y_pred"][row], torch.sigmoid(logit))
