"""DNN: an MLP on the concatenated field embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits


class DNN(BaseModel):
    """The embedding-and-MLP model of YouTube's ranker (https://doi.org/10.1145/2959100.2959190).

    Args:
        feature_map: Fields of the data set; sequences must be pooled by their `feature_encoder`.
        hidden_units: Widths of the MLP.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "DNN",
        gpu: int = -1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        hidden_units: Sequence[int] = (64, 64, 64),
        hidden_activations: str | list[str] = "ReLU",
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
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.mlp = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
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
        embeddings = self.embedding_layer(X, flatten_emb=True)  # (B, F * K)
        return {"y_pred": self.mlp(embeddings)}
