"""DCN-V2: cross layers with a full matrix or a mixture of low-rank ones, and an MLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetMix, CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import unknown
from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits

STRUCTURES = ("crossnet_only", "stacked", "parallel", "stacked_parallel")


class DCNv2(BaseModel):
    """Improved deep & cross network (https://arxiv.org/abs/2008.13535), first called DCN-M.

    Args:
        feature_map: Fields of the data set; sequences must be pooled by their `feature_encoder`.
        model_structure: Where the MLPs are: `crossnet_only`, `stacked` on the cross network,
            `parallel` to it, or `stacked_parallel`. An MLP without hidden units is left out.
        use_low_rank_mixture: Replace each full matrix by `num_experts` matrices of rank `low_rank`.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.

    Raises:
        InputError: For another structure.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "DCNv2",
        gpu: int = -1,
        model_structure: str = "parallel",
        use_low_rank_mixture: bool = False,
        low_rank: int = 32,
        num_experts: int = 4,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        stacked_dnn_hidden_units: Sequence[int] = (),
        parallel_dnn_hidden_units: Sequence[int] = (),
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
        if model_structure not in STRUCTURES:
            raise unknown("model_structure", model_structure, STRUCTURES)
        input_dim = feature_map.sum_emb_out_dim()
        stacked = list(stacked_dnn_hidden_units) if "stacked" in model_structure else []
        parallel = list(parallel_dnn_hidden_units) if "parallel" in model_structure else []

        def tower(hidden_units: list[int]) -> MLP_Block:
            return MLP_Block(
                input_dim=input_dim,
                output_dim=None,
                hidden_units=hidden_units,
                hidden_activations=dnn_activations,
                output_activation=None,
                dropout_rates=net_dropout,
                batch_norm=batch_norm,
            )

        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.crossnet = (
            CrossNetMix(input_dim, num_cross_layers, low_rank=low_rank, num_experts=num_experts)
            if use_low_rank_mixture
            else CrossNetV2(input_dim, num_cross_layers)
        )
        self.stacked_dnn = tower(stacked) if stacked else None
        self.parallel_dnn = tower(parallel) if parallel else None
        cross_width = stacked[-1] if stacked else input_dim
        self.fc = nn.Linear(cross_width + (parallel[-1] if parallel else 0), 1)
        tolerate_one_row(self)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1)."""
        X = self.get_inputs(inputs)
        x0 = self.embedding_layer(X, flatten_emb=True)  # (B, F * K)
        # Eq. 1: x_{l+1} = x_0 * (W_l x_l + b_l) + x_l
        last = self.crossnet(x0).view_as(x0)  # CrossNetMix drops the batch axis of one row
        if self.stacked_dnn is not None:
            last = self.stacked_dnn(last)
        if self.parallel_dnn is not None:
            last = torch.cat([last, self.parallel_dnn(x0)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(last))}
