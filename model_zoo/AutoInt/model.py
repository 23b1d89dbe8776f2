"""AutoInt: self-attention between the fields; with an MLP in parallel, AutoInt+."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import (
    FeatureEmbedding,
    LogisticRegression,
    MLP_Block,
    ScaledDotProductAttention,
)
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits


class AutoInt(BaseModel):
    """Feature interactions by self-attention (https://arxiv.org/abs/1810.11921).

    Args:
        feature_map: Fields of the data set; sequences must be pooled by their `feature_encoder`.
        dnn_hidden_units: Widths of the MLP of AutoInt+; empty for plain AutoInt.
        attention_layers: Number of interacting layers.
        attention_dim: Total width of the heads, d' times `num_heads`.
        layer_norm: Normalise the output of each layer.
        use_scale: Divide attention scores by the root of a head's width; the paper does not.
        use_wide: Add a linear part.
        use_residual: Add the layer's input to its output.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.

    Raises:
        InputError: If `num_heads` does not divide `attention_dim`.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "AutoInt",
        gpu: int = -1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        dnn_hidden_units: Sequence[int] = (64, 64, 64),
        dnn_activations: str | list[str] = "ReLU",
        attention_layers: int = 2,
        num_heads: int = 1,
        attention_dim: int = 8,
        net_dropout: float = 0,
        batch_norm: bool = False,
        layer_norm: bool = False,
        use_scale: bool = False,
        use_wide: bool = False,
        use_residual: bool = True,
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
        self.lr_layer = LogisticRegression(feature_map, use_bias=False) if use_wide else None
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
        self.self_attention = nn.Sequential(
            *(
                InteractingLayer(
                    embedding_dim if layer == 0 else attention_dim,
                    attention_dim,
                    num_heads,
                    net_dropout,
                    use_residual,
                    use_scale,
                    layer_norm,
                )
                for layer in range(attention_layers)
            )
        )
        self.fc = nn.Linear(feature_map.get_num_fields() * attention_dim, 1)
        tolerate_one_row(self)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1)."""
        X = self.get_inputs(inputs)
        embeddings = self.embedding_layer(X)  # (B, F, K)
        logit = self.fc(self.self_attention(embeddings).flatten(start_dim=1))
        if self.dnn is not None:
            logit = logit + self.dnn(embeddings.flatten(start_dim=1))
        if self.lr_layer is not None:
            logit = logit + self.lr_layer(X)
        return {"y_pred": self.output_activation(logit)}


class InteractingLayer(nn.Module):
    """Multi-head self-attention over the fields (Sec. 4.4 of the paper)."""

    def __init__(
        self,
        input_dim: int,
        attention_dim: int,
        num_heads: int,
        dropout_rate: float,
        use_residual: bool,
        use_scale: bool,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        if attention_dim % num_heads:
            raise InputError(
                f"num_heads={num_heads} does not divide attention_dim={attention_dim}."
            )
        self.num_heads = num_heads
        self.use_residual = use_residual
        self.scale = (attention_dim // num_heads) ** 0.5 if use_scale else None
        self.W_q = nn.Linear(input_dim, attention_dim, bias=False)
        self.W_k = nn.Linear(input_dim, attention_dim, bias=False)
        self.W_v = nn.Linear(input_dim, attention_dim, bias=False)
        self.W_res = (
            nn.Linear(input_dim, attention_dim, bias=False)
            if use_residual and input_dim != attention_dim
            else None
        )
        self.dot_attention = ScaledDotProductAttention(dropout_rate)
        self.layer_norm = nn.LayerNorm(attention_dim) if layer_norm else None

    def forward(self, fields: Tensor) -> Tensor:
        """Map the fields (B, F, K) to (B, F, attention_dim)."""
        queries, keys, values = (  # (B, heads, F, d')
            project(fields).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.W_q, self.W_k, self.W_v)
        )
        # alpha_mk = softmax_k <W_q e_m, W_k e_k>; e~_m = sum_k alpha_mk W_v e_k, per head
        heads, _ = self.dot_attention(queries, keys, values, scale=self.scale)
        output = heads.transpose(1, 2).flatten(start_dim=2)  # concatenate the heads
        if self.use_residual:  # e^Res = relu(e~ + W_res e)
            output = output + (fields if self.W_res is None else self.W_res(fields))
        if self.layer_norm is not None:
            output = self.layer_norm(output)
        return output.relu()
