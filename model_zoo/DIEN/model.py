"""DIEN: one GRU extracts interests, a second, attentional GRU follows their evolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits

from ..fields import FieldKey, Group, flat_embeddings, pair_groups, read_groups, width
from ..histories import padding_last, reorder

GRU_TYPES = ("GRU", "AIGRU", "AGRU", "AUGRU")
ATTENTION_TYPES = ("bilinear_attention", "dot_attention", "din_attention")


class DIEN(BaseModel):
    """Deep interest evolution network (https://arxiv.org/abs/1809.03672).

    Args:
        feature_map: Fields of the data set; the sequences named below must not be pooled.
        dien_target_field: Groups of target fields, as DIN's `din_target_field`.
        dien_sequence_field: The sequences of each group, in the same form.
        dien_neg_seq_field: Sequences of negative behaviors for the auxiliary loss, in the same
            form. None takes the negatives from another row's history.
        gru_type: How attention enters the second GRU: `GRU` (not at all), `AIGRU` (scales its
            input), `AGRU` (is its update gate), `AUGRU` (scales its update gate).
        enable_sum_pooling: Also feed the summed history, and its product with the candidate.
        attention_type: `bilinear_attention` is the paper's.
        aux_loss_alpha: Weight of the auxiliary loss; 0 builds no network for it.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.

    Raises:
        InputError: Groups do not pair up, or differ in width with an auxiliary loss; a field is not
            in the data; a type is unknown.
    """

    traits = Traits(pooled=False, trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "DIEN",
        gpu: int = -1,
        dnn_hidden_units: Sequence[int] = (200, 80),
        dnn_activations: str | list[str] = "ReLU",
        learning_rate: float = 1e-3,
        embedding_dim: int = 16,
        net_dropout: float = 0,
        batch_norm: bool = True,
        dien_target_field: FieldKey = (("item_id", "cate_id"),),
        dien_sequence_field: FieldKey = (("click_history", "cate_history"),),
        dien_neg_seq_field: FieldKey = None,
        gru_type: str = "AUGRU",
        enable_sum_pooling: bool = False,
        attention_dropout: float = 0,
        attention_type: str = "bilinear_attention",
        attention_hidden_units: Sequence[int] = (80, 40),
        attention_activation: str | list[str] = "Dice",
        use_attention_softmax: bool = True,
        aux_hidden_units: Sequence[int] = (100, 50),
        aux_activation: str | list[str] = "ReLU",
        aux_loss_alpha: float = 0,
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
        if gru_type not in GRU_TYPES:
            raise unknown("gru_type", gru_type, GRU_TYPES)
        self.groups = pair_groups(
            "dien_target_field",
            dien_target_field,
            "dien_sequence_field",
            dien_sequence_field,
            feature_map,
        )
        self.negatives = read_groups("dien_neg_seq_field", dien_neg_seq_field, feature_map)
        if self.negatives and [len(n) for n in self.negatives] != [len(t) for t, _ in self.groups]:
            raise InputError("dien_neg_seq_field must have the same groups as dien_sequence_field.")
        self.gru_type = gru_type
        self.enable_sum_pooling = enable_sum_pooling
        self.aux_loss_alpha = aux_loss_alpha
        self.embedding_layer = FeatureEmbeddingDict(feature_map, embedding_dim)
        widths = [width(targets, feature_map, embedding_dim) for targets, _ in self.groups]
        self.extraction_modules = nn.ModuleList()
        self.evolving_modules = nn.ModuleList()
        self.attention_modules = nn.ModuleList()
        for dim in widths:
            self.extraction_modules.append(nn.GRU(dim, dim, batch_first=True))
            self.evolving_modules.append(
                AttentionalGRU(dim, gru_type)
                if gru_type in ("AGRU", "AUGRU")
                else nn.GRU(dim, dim, batch_first=True)
            )
            if gru_type != "GRU":
                self.attention_modules.append(
                    InterestAttention(
                        dim,
                        attention_type,
                        list(attention_hidden_units),
                        attention_activation,
                        use_attention_softmax,
                        attention_dropout,
                    )
                )
        used = [field for _, group in self.groups for field in group]
        used += [field for group in self.negatives for field in group]
        input_dim = feature_map.sum_emb_out_dim() - width(used, feature_map, embedding_dim)
        self.dnn = MLP_Block(
            input_dim=input_dim + sum(widths) * (3 if enable_sum_pooling else 1),
            output_dim=1,
            hidden_units=list(dnn_hidden_units),
            hidden_activations=dnn_activations,
            output_activation=self.output_activation,
            dropout_rates=net_dropout,
            batch_norm=batch_norm,
        )
        if aux_loss_alpha > 0:
            if len(set(widths)) > 1:
                raise InputError("With an auxiliary loss all groups must have the same width.")
            self.aux_net = MLP_Block(
                input_dim=2 * widths[0],
                output_dim=1,
                hidden_units=list(aux_hidden_units),
                hidden_activations=aux_activation,
                output_activation="Sigmoid",
                dropout_rates=net_dropout,
            )
        tolerate_one_row(self)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1) and, in training with an auxiliary loss, `aux_loss`."""
        X = self.get_inputs(inputs)
        embeddings = self.embedding_layer(X)  # field: (B, K), sequence: (B, L, K)
        parts: list[Tensor] = []
        aux_losses: list[Tensor] = []
        for number, (targets, sequences) in enumerate(self.groups):
            candidate = torch.cat([embeddings[field] for field in targets], dim=-1)  # e_a: (B, K)
            mask = X[sequences[0]] != 0  # (B, L)
            order = padding_last(mask)
            mask = mask.gather(1, order)
            behaviors = self._history(embeddings, sequences, order)  # e_b
            interests, _ = self.extraction_modules[number](behaviors)  # h_t: (B, L, K)
            parts.append(self._evolve(number, interests, candidate, mask))
            if self.enable_sum_pooling:
                total = behaviors.sum(dim=1)
                parts += [total, candidate * total]
            if self.training and self.aux_loss_alpha > 0:
                if self.negatives:
                    negatives = self._history(embeddings, self.negatives[number], order)
                    usable = mask
                else:
                    ids = torch.stack([X[field].gather(1, order) for field in sequences], dim=-1)
                    negatives, usable = _neighbours(behaviors, ids, mask)
                aux_losses.append(self._auxiliary(interests, behaviors, negatives, mask, usable))
        used = {field for _, group in self.groups for field in group}
        used.update(field for group in self.negatives for field in group)
        others = {name: each for name, each in embeddings.items() if name not in used}
        parts += flat_embeddings(others, self.feature_map).values()
        return_dict = {"y_pred": self.dnn(torch.cat(parts, dim=-1))}
        if aux_losses:
            return_dict["aux_loss"] = torch.stack(aux_losses).mean()
        return return_dict

    def add_loss(self, return_dict: dict[str, Tensor], y_true: Tensor) -> Tensor:
        """L = L_target + alpha L_aux."""
        loss = super().add_loss(return_dict, y_true)
        if "aux_loss" in return_dict:
            loss = loss + self.aux_loss_alpha * return_dict["aux_loss"]
        return loss

    def _history(self, embeddings: dict[str, Tensor], group: Group, order: Tensor) -> Tensor:
        return reorder(torch.cat([embeddings[field] for field in group], dim=-1), order)

    def _evolve(self, number: int, interests: Tensor, candidate: Tensor, mask: Tensor) -> Tensor:
        """The last state h'_T of the second GRU (B, K); zero where there is no history."""
        evolve = self.evolving_modules[number]
        if self.gru_type == "GRU":
            states, _ = evolve(interests)
        else:
            attention = self.attention_modules[number](interests, candidate, mask)  # a_t: (B, L)
            if self.gru_type == "AIGRU":  # i'_t = h_t a_t
                states, _ = evolve(interests * attention.unsqueeze(-1))
            else:
                states = evolve(interests, attention)
        length = mask.sum(dim=1)
        last = (length - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, states.shape[-1])
        return states.gather(1, last).squeeze(1) * (length > 0).unsqueeze(-1)

    def _auxiliary(
        self, interests: Tensor, behaviors: Tensor, negatives: Tensor, mask: Tensor, usable: Tensor
    ) -> Tensor:
        """L_aux = -mean_{i,t} [log s(h_t, e_b[t+1]) + log(1 - s(h_t, e^_b[t+1]))].

        Args:
            interests: (B, L, K).
            behaviors: (B, L, K).
            negatives: (B, L, K), the negative behavior at each t.
            mask: (B, L), true where there is a behavior.
            usable: (B, L), true where there is a negative.
        """
        state = interests[:, :-1]  # h_t
        clicked = self.aux_net(torch.cat([state, behaviors[:, 1:]], dim=-1)).squeeze(-1)
        skipped = self.aux_net(torch.cat([state, negatives[:, 1:]], dim=-1)).squeeze(-1)
        log_loss = nn.functional.binary_cross_entropy
        mask = mask[:, 1:]
        loss = log_loss(clicked, torch.ones_like(clicked), reduction="none") * mask
        negative = log_loss(skipped, torch.zeros_like(skipped), reduction="none")
        loss = loss + negative * (mask & usable[:, 1:])
        return loss.sum() / mask.sum().clamp(min=1)


def _neighbours(behaviors: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Negatives from the batch: row i at t takes that of row i - 1 at t (modulo its length).

    This needs no random numbers, as the loader shuffles the rows. Items are negatives as often as
    they are behaviors.

    Args:
        behaviors: (B, L, K), padding last.
        ids: (B, L, J) of the behaviors.
        mask: (B, L).

    Returns:
        The negatives (B, L, K) and their mask (B, L). It is false in a batch of one row, next to an
        empty history, and where the neighbour has the same behavior.
    """
    length = mask.sum(dim=1).roll(1).unsqueeze(1)  # (B, 1) of the neighbour
    time = torch.arange(mask.shape[1], device=mask.device) % length.clamp(min=1)  # (B, L)
    negatives = reorder(behaviors.roll(1, dims=0), time)
    same = (reorder(ids.roll(1, dims=0), time) == ids).all(dim=-1)
    return negatives, (length > 0) & ~same & (mask.shape[0] > 1)


class InterestAttention(nn.Module):
    """Attention of the candidate to each interest: a_t = softmax_t(h_t W e_a)."""

    def __init__(
        self,
        dim: int,
        attention_type: str,
        hidden_units: list[int],
        activation: str | list[str],
        use_softmax: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        if attention_type not in ATTENTION_TYPES:
            raise unknown("attention_type", attention_type, ATTENTION_TYPES)
        self.attention_type = attention_type
        self.use_softmax = use_softmax
        if attention_type == "bilinear_attention":
            self.W_kernel = nn.Parameter(torch.eye(dim))
        elif attention_type == "din_attention":
            self.attn_mlp = MLP_Block(
                input_dim=4 * dim,
                output_dim=1,
                hidden_units=hidden_units,
                hidden_activations=activation,
                output_activation=None,
                dropout_rates=dropout,
                batch_norm=False,
            )

    def forward(self, interests: Tensor, candidate: Tensor, mask: Tensor) -> Tensor:
        """Map (B, L, K), (B, K), (B, L) to weights (B, L), zero at padding."""
        target = candidate.unsqueeze(1)  # (B, 1, K)
        if self.attention_type == "din_attention":
            target = target.expand_as(interests)
            pairs = [target, interests, target - interests, target * interests]
            # batch norm (in Dice) takes (rows, units)
            scores = self.attn_mlp(torch.cat(pairs, dim=-1).flatten(0, 1)).view(mask.shape)
        else:
            if self.attention_type == "bilinear_attention":
                interests = interests @ self.W_kernel
            scores = (interests * target).sum(dim=-1)
        if self.use_softmax:
            return scores.masked_fill(~mask, -1e9).softmax(dim=-1)
        return scores * mask


class AttentionalGRU(nn.Module):
    """A GRU whose update gate is the attention (AGRU) or is scaled by it (AUGRU)."""

    def __init__(self, dim: int, gru_type: str) -> None:
        super().__init__()
        self.gru_cell = AttentionalGRUCell(dim, gru_type)

    def forward(self, interests: Tensor, attention: Tensor) -> Tensor:
        """Map (B, L, K) and weights (B, L) to all states h'_t (B, L, K)."""
        from_inputs = self.gru_cell.x2h(interests)  # of all steps at once
        state = torch.zeros_like(interests[:, 0])
        states = []
        for step in range(interests.shape[1]):
            state = self.gru_cell(from_inputs[:, step], state, attention[:, step, None])
            states.append(state)
        return torch.stack(states, dim=1)


class AttentionalGRUCell(nn.Module):
    """One step. The three gates are update, reset, candidate, as FuxiCTR lays them out."""

    def __init__(self, dim: int, gru_type: str) -> None:
        super().__init__()
        self.attention_is_gate = gru_type == "AGRU"
        self.x2h = nn.Linear(dim, 3 * dim)
        self.h2h = nn.Linear(dim, 3 * dim)

    def forward(self, from_input: Tensor, state: Tensor, attention: Tensor) -> Tensor:
        """Map x2h(i_t) (B, 3K), h'_{t-1} (B, K) and a_t (B, 1) to h'_t (B, K)."""
        u_x, r_x, n_x = from_input.chunk(3, dim=1)
        u_h, r_h, n_h = self.h2h(state).chunk(3, dim=1)
        reset = torch.sigmoid(r_x + r_h)  # r_t
        new = torch.tanh(n_x + reset * n_h)  # h~_t
        update = attention if self.attention_is_gate else attention * torch.sigmoid(u_x + u_h)
        return state + update * (new - state)  # h'_t = (1 - u~_t) h'_{t-1} + u~_t h~_t
