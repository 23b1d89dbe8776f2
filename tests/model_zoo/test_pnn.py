"""PNN against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fuxictr_miss.errors import InputError
from model_zoo.PNN import PNN


def test_product_layer_sees_the_embeddings_and_every_pair_once(
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    pooled_fields: Callable,
    run_tower: Callable,
) -> None:
    model = build_exact(PNN, make_feature_map(pooled=True), hidden_units=[6, 5])
    batch = make_batch([5, 2, 0])
    for row in range(3):
        fields = pooled_fields(model.embedding_layer, batch, row)
        products = [
            fields[i] @ fields[j] for i in range(len(fields)) for j in range(i + 1, len(fields))
        ]
        seen = torch.cat([*fields, torch.stack(products)])
        expected = torch.sigmoid(run_tower(model.dnn, seen))
        torch.testing.assert_close(model(batch)["y_pred"][row], expected)


def test_only_the_inner_product_exists(make_feature_map: Callable, build: Callable) -> None:
    with pytest.raises(InputError, match="outer"):
        build(PNN, make_feature_map(pooled=True), product_type="outer")


def test_fields_are_counted_after_use_features(
    make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    feature_map = make_feature_map(pooled=True)
    del feature_map.features["cate_history"]  # as FeatureMap.load does: num_fields stays at 5
    batch = make_batch([2, 3])
    del batch["cate_history"]
    assert build(PNN, feature_map)(batch)["y_pred"].shape == (2, 1)
