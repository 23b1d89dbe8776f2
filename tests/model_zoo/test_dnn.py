"""DNN against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import torch

from model_zoo.DNN import DNN


def test_a_tower_on_the_embeddings_side_by_side(
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    pooled_fields: Callable,
    run_tower: Callable,
) -> None:
    model = build_exact(DNN, make_feature_map(pooled=True), hidden_units=[6, 5])
    batch = make_batch([5, 2, 0])
    for row in range(3):
        fields = pooled_fields(model.embedding_layer, batch, row)
        expected = torch.sigmoid(run_tower(model.mlp, torch.cat(fields)))
        torch.testing.assert_close(model(batch)["y_pred"][row], expected)
