"""DIN: pool the history by attention of the candidate item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import Dice, DIN_Attention, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits

from ..fields import FieldKey, flat_embeddings, pair_groups, width


class DIN(BaseModel):
    """Deep interest network (https://arxiv.org/abs/1706.06978).

    Args:
        feature_map: Fields of the data set; the sequences named below must not be pooled.
        din_target_field: Groups of target fields, one attention per group: `item_id`,
            `[item_id, cate_id]` (two groups), `[[item_id, cate_id]]` (one group of two fields).
        din_sequence_field: The sequences of each group, in the same form.
        din_use_softmax: Normalise the weights over the history; the paper does not.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.

    Raises:
        InputError: Groups do not pair up, or a field is not in the data.
    """

    traits = Traits(pooled=False, trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "DIN",
        gpu: int = -1,
        dnn_hidden_units: Sequence[int] = (512, 128, 64),
        dnn_activations: str | list[str] = "ReLU",
        attention_hidden_units: Sequence[int] = (64,),
        attention_hidden_activations: str | list[str] = "Dice",
        attention_output_activation: str | None = None,
        attention_dropout: float = 0,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        net_dropout: float = 0,
        batch_norm: bool = False,
        din_target_field: FieldKey = (("item_id", "cate_id"),),
        din_sequence_field: FieldKey = (("click_history", "cate_history"),),
        din_use_softmax: bool = False,
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
        self.groups = pair_groups(
            "din_target_field",
            din_target_field,
            "din_sequence_field",
            din_sequence_field,
            feature_map,
        )
        if isinstance(dnn_activations, str) and dnn_activations.lower() == "dice":
            dnn_activations = [Dice(units) for units in dnn_hidden_units]
        self.embedding_layer = FeatureEmbeddingDict(feature_map, embedding_dim)
        self.attention_layers = nn.ModuleList(
            DIN_Attention(
                width(targets, feature_map, embedding_dim),
                attention_units=list(attention_hidden_units),
                hidden_activations=attention_hidden_activations,
                output_activation=attention_output_activation,
                dropout_rate=attention_dropout,
                use_softmax=din_use_softmax,
            )
            for targets, _ in self.groups
        )
        self.dnn = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=list(dnn_hidden_units),
            hidden_activations=dnn_activations,
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
        embeddings = self.embedding_layer(X)  # field: (B, K), sequence: (B, L, K)
        for attention, (targets, sequences) in zip(self.attention_layers, self.groups, strict=True):
            candidate = torch.cat([embeddings[field] for field in targets], dim=-1)  # v_A
            history = torch.cat([embeddings[field] for field in sequences], dim=-1)  # e_1 .. e_H
            mask = X[sequences[0]] != 0  # (B, L)
            interest = attention(candidate, history, mask)  # Eq. 3: v_U(A) = sum_j a(e_j, v_A) e_j
            widths = [embeddings[field].shape[-1] for field in sequences]
            embeddings.update(zip(sequences, interest.split(widths, dim=-1), strict=True))
        flat = flat_embeddings(embeddings, self.feature_map)
        return {"y_pred": self.dnn(torch.cat(list(flat.values()), dim=-1))}
