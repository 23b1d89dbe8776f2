"""DeepFM: a factorization machine and an MLP on the same embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits


class DeepFM(BaseModel):
    """Factorization machine plus MLP (https://arxiv.org/abs/1703.04247).

    Args:
        feature_map: Fields of the data set; sequences must be pooled by their `feature_encoder`.
        hidden_units: Widths of the MLP.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "DeepFM",
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
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=list(hidden_units),
            hidden_activations=hidden_activations,
            output_activation=None,
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
        y_fm = self.fm(X, embeddings)  # Eq. 2
        y_dnn = self.mlp(embeddings.flatten(start_dim=1))
        return {"y_pred": self.output_activation(y_fm + y_dnn)}  # Eq. 1
