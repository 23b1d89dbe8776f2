"""SIM with soft search: find the behaviors most relevant to the candidate, then attend to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block, MultiHeadTargetAttention
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits

from ..fields import FieldKey, flat_embeddings, pair_groups, width
from ..histories import padding_first, reorder


class SIM(BaseModel):
    """Search-based interest model (https://arxiv.org/abs/2006.05639), soft search.

    Args:
        feature_map: Fields of the data set; the sequences named below must not be pooled.
        gsu_type: The general search unit, only `soft`.
        short_seq_len: The newest `short_seq_len` - 1 behaviors are the short-term history (the
            candidate counts, as in FuxiCTR).
        topk: Number K of behaviors that the search keeps.
        alpha: Weight of the search unit's own loss.
        beta: Weight of the prediction's loss.
        sim_target_field: The fields that make an item, in the order of the feature map.
        sim_sequence_field: Their histories, in the same order.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.

    Raises:
        InputError: `gsu_type` is not `soft`, fields do not pair up, or gradients are accumulated.
    """

    traits = Traits(pooled=False, trim=True)
    reads_one_behavior = True  # the groups of sim_sequence_field describe the same behaviors

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "SIM",
        gpu: int = -1,
        dnn_hidden_units: Sequence[int] = (512, 128, 64),
        dnn_activations: str | list[str] = "ReLU",
        attention_dropout: float = 0,
        attention_dim: int = 64,
        num_heads: int = 1,
        gsu_type: str = "soft",
        short_seq_len: int = 50,
        topk: int = 50,
        alpha: float = 1,
        beta: float = 1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        net_dropout: float = 0,
        batch_norm: bool = False,
        accumulation_steps: int = 1,
        embedding_regularizer: float | str | None = None,
        net_regularizer: float | str | None = None,
        sim_target_field: FieldKey = ("item_id", "cate_id"),
        sim_sequence_field: FieldKey = ("item_history", "cate_history"),
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
        if gsu_type != "soft":
            raise InputError(f"gsu_type={gsu_type!r}: SIM supports only 'soft'.")
        if accumulation_steps != 1:
            raise InputError("SIM does not support accumulation_steps: use a larger batch_size.")
        pairs = pair_groups(
            "sim_target_field",
            sim_target_field,
            "sim_sequence_field",
            sim_sequence_field,
            feature_map,
        )
        self.targets = [field for group, _ in pairs for field in group]
        self.sequences = [field for _, group in pairs for field in group]
        self.short_seq_len = short_seq_len
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        dim = width(self.targets, feature_map, embedding_dim)
        history_dim = width(self.sequences, feature_map, embedding_dim)
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.W_a = nn.Linear(dim, attention_dim, bias=False)
        self.W_b = nn.Linear(dim, attention_dim, bias=False)
        self.short_attention = MultiHeadTargetAttention(
            dim, attention_dim, num_heads, attention_dropout
        )
        self.long_attention = MultiHeadTargetAttention(
            dim, attention_dim, num_heads, attention_dropout
        )

        def tower(interests: int) -> MLP_Block:
            return MLP_Block(
                input_dim=feature_map.sum_emb_out_dim() - history_dim + dim * interests,
                output_dim=1,
                hidden_units=list(dnn_hidden_units),
                hidden_activations=dnn_activations,
                output_activation=self.output_activation,
                dropout_rates=net_dropout,
                batch_norm=batch_norm,
            )

        self.dnn_aux = tower(interests=1)
        self.dnn = tower(interests=2)
        self.register_state_dict_post_hook(_drop_history_names)
        self.register_load_state_dict_pre_hook(_add_history_names)
        tolerate_one_row(self)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1) of the exact search and `y_aux` (B, 1) of the general search."""
        X = self.get_inputs(inputs)
        embeddings = self.embedding_layer.embedding_layer(X)  # (B, K), sequences (B, L, K)
        mask = X[self.sequences[0]] != 0  # (B, L)
        order = padding_first(mask)
        mask = mask.gather(1, order)
        candidate = torch.cat([embeddings[field] for field in self.targets], dim=-1)  # e_a
        history = torch.cat([embeddings[field] for field in self.sequences], dim=-1)
        history = reorder(history, order)  # e_1 .. e_T: (B, L, K)
        others = {
            name: each
            for name, each in embeddings.items()
            if name not in self.targets and name not in self.sequences
        }
        known = [*flat_embeddings(others, self.feature_map).values(), candidate]

        # general search unit: r_i = (W_b e_i) (W_a e_a)', U_r = sum_i r_i e_i
        relevance = (self.W_b(history) @ self.W_a(candidate).unsqueeze(-1)).squeeze(-1)  # (B, L)
        pooled = ((relevance * mask).unsqueeze(-1) * history).sum(dim=1)
        y_aux = self.dnn_aux(torch.cat([*known, pooled], dim=-1))

        # exact search unit: attention to the K behaviors of highest r_i, and to the newest
        found = relevance.masked_fill(~mask, float("-inf"))
        found = found.topk(min(self.topk, mask.shape[1]), dim=1).indices  # (B, K)
        long_term = self.long_attention(candidate, reorder(history, found), mask.gather(1, found))
        newest = max(mask.shape[1] - self.short_seq_len + 1, 0)
        short_term = self.short_attention(candidate, history[:, newest:], mask[:, newest:])
        y_pred = self.dnn(torch.cat([*known, short_term, long_term], dim=-1))
        return {"y_pred": y_pred, "y_aux": y_aux}

    def add_loss(self, return_dict: dict[str, Tensor], y_true: Tensor) -> Tensor:
        """L = alpha L_GSU + beta L_ESU."""
        search = self.loss_fn(return_dict["y_aux"], y_true, reduction="mean")
        return self.alpha * search + self.beta * super().add_loss(return_dict, y_true)

    def _history_names(self) -> dict[str, str]:
        """Duplicate names of shared tables in `state_dict`: {history's name: target's name}."""
        tables = self.embedding_layer.embedding_layer.embedding_layers
        prefix = "embedding_layer.embedding_layer.embedding_layers"
        return {
            f"{prefix}.{sequence}.{name}": f"{prefix}.{target}.{name}"
            for target, sequence in zip(self.targets, self.sequences, strict=True)
            if tables[sequence] is tables[target]
            for name in tables[target].state_dict()
        }


def _drop_history_names(
    model: nn.Module, state: dict[str, Any], prefix: str, _: dict[str, Any]
) -> None:
    """Drop the histories' names: FuxiCTR's SIM has no histories in its feature map, hence none."""
    assert isinstance(model, SIM)
    for name in model._history_names():
        state.pop(prefix + name, None)


def _add_history_names(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(model, SIM)
    for name, target in model._history_names().items():
        if prefix + target in state:
            state.setdefault(prefix + name, state[prefix + target])
