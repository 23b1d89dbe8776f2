"""AutoInt against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fuxictr_miss.errors import InputError
from model_zoo.AutoInt import AutoInt


@pytest.mark.parametrize("tower", [None, [6]], ids=["AutoInt", "AutoInt+"])
def test_each_field_attends_to_all_fields(
    tower: list[int] | None,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    pooled_fields: Callable,
    run_tower: Callable,
) -> None:
    model = build_exact(
        AutoInt,
        make_feature_map(pooled=True),
        dnn_hidden_units=tower,
        num_heads=2,
        attention_dim=6,
        attention_layers=2,
    )
    batch = make_batch([5, 2, 0])
    for row in range(3):
        embeddings = pooled_fields(model.embedding_layer, batch, row)
        fields = embeddings
        for layer in model.self_attention:
            outputs = []
            for m in range(len(fields)):
                heads = []
                for head in (slice(0, 3), slice(3, 6)):
                    query = layer.W_q.weight[head] @ fields[m]
                    scores = [query @ (layer.W_k.weight[head] @ field) for field in fields]
                    weights = [torch.exp(score) for score in scores]
                    heads.append(
                        sum(
                            weight / sum(weights) * (layer.W_v.weight[head] @ field)
                            for weight, field in zip(weights, fields, strict=True)
                        )
                    )
                residual = fields[m] if layer.W_res is None else layer.W_res.weight @ fields[m]
                outputs.append((torch.cat(heads) + residual).clamp(min=0))
            fields = outputs
        logit = model.fc.weight @ torch.cat(fields) + model.fc.bias
        if tower:
            logit = logit + run_tower(model.dnn, torch.cat(embeddings))
        torch.testing.assert_close(model(batch)["y_pred"][row], torch.sigmoid(logit))


def test_heads_must_divide_the_width(make_feature_map: Callable, build: Callable) -> None:
    with pytest.raises(InputError, match="num_heads=3"):
        build(AutoInt, make_feature_map(pooled=True), num_heads=3)
