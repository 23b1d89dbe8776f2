"""xDeepFM: a linear part, vector-wise crosses (CIN) and an MLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import (
    CompressedInteractionNet,
    FeatureEmbedding,
    LogisticRegression,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits


class xDeepFM(BaseModel):
    """Compressed interaction network plus MLP (https://arxiv.org/abs/1803.05170).

    Args:
        feature_map: Fields of the data set; sequences must be pooled by their `feature_encoder`.
        dnn_hidden_units: Widths of the MLP; empty leaves it out.
        cin_hidden_units: Feature maps H_k of each CIN layer.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "xDeepFM",
        gpu: int = -1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        dnn_hidden_units: Sequence[int] = (64, 64, 64),
        dnn_activations: str | list[str] = "ReLU",
        cin_hidden_units: Sequence[int] = (16, 16, 16),
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
        self.dnn = (
            MLP_Block(
                input_dim=feature_map.sum_emb_out_dim(),
                output_dim=1,
                hidden_units=list(dnn_hidden_units),
                hidden_activations=dnn_activations,
                output_activation=None,
                dropout_rates=net_dropout,
                batch_norm=batch_norm,
            )
            if dnn_hidden_units
            else None
        )
        self.lr_layer = LogisticRegression(feature_map, use_bias=False)
        self.cin = CompressedInteractionNet(
            feature_map.get_num_fields(), list(cin_hidden_units), output_dim=1
        )
        tolerate_one_row(self)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1)."""
        X = self.get_inputs(inputs)
        embeddings = self.embedding_layer(X)  # X^0: (B, F, K)
        # x^k_h = sum_ij W^{k,h}_ij (x^{k-1}_i * x^0_j), each x^k_h summed over K
        logit = self.lr_layer(X) + self.cin(embeddings)
        if self.dnn is not None:
            logit = logit + self.dnn(embeddings.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logit)}
