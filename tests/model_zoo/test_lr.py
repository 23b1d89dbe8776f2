"""LR against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import torch

from model_zoo.LR import LR


def test_one_weight_a_feature(
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    linear_part: Callable,
) -> None:
    model = build_exact(LR, make_feature_map(pooled=True))
    batch = make_batch([5, 2, 0])
    for row in range(3):
        expected = torch.sigmoid(linear_part(model.lr_layer, batch, row))
        torch.testing.assert_close(model(batch)["y_pred"][row], expected)
