"""DCN: a cross network and an MLP in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNet, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits


class DCN(BaseModel):
    """Deep & cross network (https://arxiv.org/abs/1708.05123).

    Args:
        feature_map: Fields of the data set; sequences must be pooled by their `feature_encoder`.
        dnn_hidden_units: Widths of the deep network; empty leaves it out.
        num_cross_layers: Number of cross layers L_1, for crosses up to degree L_1 + 1.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "DCN",
        gpu: int = -1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        dnn_hidden_units: Sequence[int] = (),
        dnn_activations: str | list[str] = "ReLU",
        num_cross_layers: int = 3,
        net_dropout: float = 0,
        batch_norm: bool = False,
        embedding_regularizer: float | str | None = None,
        net_regularizer: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            feature_map,
            model_id=model_id,
            gpu=gpu,
            embedding_regularizer=embedding_regularizer,
            net_regularizer=net_regularizer,
            **kwargs,
        )
        input_dim = feature_map.sum_emb_out_dim()
        units = list(dnn_hidden_units)
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.dnn = (
            MLP_Block(
                input_dim=input_dim,
                output_dim=None,
                hidden_units=units,
                hidden_activations=dnn_activations,
                output_activation=None,
                dropout_rates=net_dropout,
                batch_norm=batch_norm,
            )
            if units
            else None
        )
        self.crossnet = CrossNet(input_dim, num_cross_layers)
        self.fc = nn.Linear(input_dim + (units[-1] if units else 0), 1)
        tolerate_one_row(self)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1)."""
        X = self.get_inputs(inputs)
        x0 = self.embedding_layer(X, flatten_emb=True)  # Eq. 2: (B, F * K)
        last = self.crossnet(x0)  # Eq. 3: x_{l+1} = x_0 x_l' w_l + b_l + x_l
        if self.dnn is not None:
            last = torch.cat([last, self.dnn(x0)], dim=-1)  # Eq. 4
        return {"y_pred": self.output_activation(self.fc(last))}  # Eq. 5
