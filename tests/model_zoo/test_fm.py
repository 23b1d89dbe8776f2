"""FM and DeepFM against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from model_zoo.DeepFM import DeepFM
from model_zoo.FM import FM


def pairwise(fields: list[torch.Tensor]) -> torch.Tensor:
    """sum_{i<j} <v_i, v_j>."""
    total = torch.zeros(1, dtype=torch.float64)
    for i in range(len(fields)):
        for j in range(i + 1, len(fields)):
            total = total + fields[i] @ fields[j]
    return total


@pytest.mark.parametrize("cls", [FM, DeepFM])
def test_linear_part_plus_all_pairs_plus_tower(
    cls: type,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    pooled_fields: Callable,
    linear_part: Callable,
    run_tower: Callable,
) -> None:
    keys = {"hidden_units": [6]} if cls is DeepFM else {}
    model = build_exact(cls, make_feature_map(pooled=True), **keys)
    batch = make_batch([5, 2, 0])
    for row in range(3):
        fields = pooled_fields(model.embedding_layer, batch, row)
        logit = linear_part(model.fm.lr_layer, batch, row) + pairwise(fields)  # FM, Eq. 1
        if cls is DeepFM:
            logit = logit + run_tower(model.mlp, torch.cat(fields))  # DeepFM, Eq. 1
        torch.testing.assert_close(model(batch)["y_pred"][row], torch.sigmoid(logit))
