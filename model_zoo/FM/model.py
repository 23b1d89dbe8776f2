"""FM: one weight per feature, and an inner product per pair of fields."""

from __future__ import annotations

from typing import Any

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.traits import Traits


class FM(BaseModel):
    """Factorization machine (https://doi.org/10.1109/ICDM.2010.127).

    Args:
        feature_map: Fields of the data set; sequences must be pooled by their `feature_encoder`.
        regularizer: FuxiCTR regularizer of all weights.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "FM",
        gpu: int = -1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        regularizer: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            feature_map,
            model_id=model_id,
            gpu=gpu,
            embedding_regularizer=regularizer,
            net_regularizer=regularizer,
            **kwargs,
        )
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.fm = FactorizationMachine(feature_map)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1)."""
        X = self.get_inputs(inputs)
        embeddings = self.embedding_layer(X)  # (B, F, K)
        # Eq. 1: w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j
        return {"y_pred": self.output_activation(self.fm(X, embeddings))}
