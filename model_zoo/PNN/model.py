"""PNN with the inner product (IPNN): an MLP on embeddings and pairwise inner products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding, InnerProductInteraction, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits


class PNN(BaseModel):
    """Product-based neural network (https://arxiv.org/abs/1611.00144), inner product: IPNN.

    Args:
        feature_map: Fields of the data set; sequences must be pooled by their `feature_encoder`.
        hidden_units: Widths of the MLP; the first is the paper's product layer l_1.
        product_type: Only `inner`.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.

    Raises:
        InputError: `product_type` is not `inner`.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "PNN",
        gpu: int = -1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        hidden_units: Sequence[int] = (64, 64, 64),
        hidden_activations: str | list[str] = "ReLU",
        net_dropout: float = 0,
        batch_norm: bool = False,
        product_type: str = "inner",
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
        if product_type != "inner":
            raise InputError(f"product_type={product_type!r}: PNN supports only 'inner'.")
        num_fields = feature_map.get_num_fields()  # F, after `use_features` has narrowed the map
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.inner_product_layer = PairProducts(num_fields)
        self.dnn = MLP_Block(
            input_dim=num_fields * embedding_dim + num_fields * (num_fields - 1) // 2,
            output_dim=1,
            hidden_units=list(hidden_units),
            hidden_activations=hidden_activations,
            output_activation=self.output_activation,
            dropout_rates=net_dropout,
            batch_norm=batch_norm,
        )
        tolerate_one_row(self)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1)."""
        X = self.get_inputs(inputs)
        embeddings = self.embedding_layer(X)  # (B, F, K)
        linear = embeddings.flatten(start_dim=1)  # z: (B, F * K)
        products = self.inner_product_layer(embeddings)  # p, p_ij = <f_i, f_j>, i < j
        # l_1 = relu(W_z z + W_p p + b_1): one linear layer on [z, p]
        return {"y_pred": self.dnn(torch.cat([linear, products], dim=1))}


class PairProducts(InnerProductInteraction):
    """FuxiCTR's inner products, selected by index: `torch.export` cannot trace its boolean mask."""

    def __init__(self, num_fields: int) -> None:
        super().__init__(num_fields, output="inner_product")
        pairs = torch.triu_indices(num_fields, num_fields, offset=1)
        self.register_buffer("pairs", pairs, persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map (B, F, K) to (B, F * (F - 1) / 2)."""
        first, second = self.pairs
        return (embeddings @ embeddings.transpose(1, 2))[:, first, second]
