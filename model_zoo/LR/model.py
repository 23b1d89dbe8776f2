"""LR: one weight per feature."""

from __future__ import annotations

from typing import Any

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import LogisticRegression
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.traits import Traits


class LR(BaseModel):
    """Logistic regression (https://doi.org/10.1145/1242572.1242643).

    Args:
        feature_map: Fields of the data set; a sequence counts as the sum of its behaviors.
        regularizer: FuxiCTR regularizer of all weights.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "LR",
        gpu: int = -1,
        learning_rate: float = 1e-3,
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
        self.lr_layer = LogisticRegression(feature_map, use_bias=True)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1)."""
        X = self.get_inputs(inputs)
        # y = sigmoid(w_0 + sum_i w_i x_i), x one-hot or, for a sequence, a count
        return {"y_pred": self.output_activation(self.lr_layer(X))}
