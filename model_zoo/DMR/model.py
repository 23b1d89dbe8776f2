"""DMR: two measures of the candidate's relevance to the user, as inputs of an MLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.traits import Traits

from ..fields import FieldKey, Group, flat_embeddings, pair_groups, read_groups, width
from ..histories import padding_last, reorder


class DMR(BaseModel):
    """Deep match to rank (https://doi.org/10.1609/aaai.v34i01.5346).

    Args:
        feature_map: Fields of the data set; the sequences named below must not be pooled.
        target_field: Groups of target fields, as DIN's `din_target_field`.
        sequence_field: The sequences of each group, in the same form.
        neg_seq_field: Fields with negative items for the match loss, in the same form. None takes
            the newest behaviors of other rows.
        context_field: For each group of `sequence_field`, a group of sequences that describe the
            behaviors, for example their type; input of the attention.
        enable_sum_pooling: Also feed the summed history, and its product with the candidate.
        enable_u2i_rel: Feed the user-to-item relevance r.
        enable_i2i_rel: Feed the item-to-item relevance r^; the paper does.
        use_pos_emb: Use positions in the item-to-item attention, too.
        aux_loss_beta: Weight beta of the match loss.
        match_negatives: Number of negatives k of the match loss without `neg_seq_field`.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.

    Raises:
        InputError: Groups do not pair up, a field is not in the data, or a match loss has no
            user-to-item relevance to train.
    """

    traits = Traits(pooled=False, trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "DMR",
        gpu: int = -1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        dnn_hidden_units: Sequence[int] = (512, 128, 64),
        dnn_activations: str | list[str] = "ReLU",
        net_dropout: float = 0,
        batch_norm: bool = True,
        bn_only_once: bool = False,
        target_field: FieldKey = ("item_id", "cate_id"),
        sequence_field: FieldKey = ("click_history", "cate_history"),
        neg_seq_field: FieldKey = None,
        context_field: FieldKey = None,
        enable_sum_pooling: bool = False,
        enable_u2i_rel: bool = True,
        enable_i2i_rel: bool = False,
        attention_hidden_units: Sequence[int] = (80, 40),
        attention_activation: str | list[str] = "ReLU",
        attention_dropout: float = 0,
        use_pos_emb: bool = True,
        pos_emb_dim: int = 8,
        aux_loss_beta: float = 0,
        embedding_regularizer: float | str | None = None,
        net_regularizer: float | str | None = None,
        match_negatives: int = 1,
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
            "target_field", target_field, "sequence_field", sequence_field, feature_map
        )
        self.negatives = read_groups("neg_seq_field", neg_seq_field, feature_map)
        if self.negatives and [len(n) for n in self.negatives] != [len(t) for t, _ in self.groups]:
            raise InputError("neg_seq_field must have the same groups as target_field.")
        self.contexts = read_groups("context_field", context_field, feature_map)
        if self.contexts and len(self.contexts) != len(self.groups):
            raise InputError("context_field must have one group per group of sequence_field.")
        if aux_loss_beta > 0 and not enable_u2i_rel:
            raise InputError("aux_loss_beta above 0 needs enable_u2i_rel: True.")
        self.enable_sum_pooling = enable_sum_pooling
        self.enable_u2i_rel = enable_u2i_rel
        self.enable_i2i_rel = enable_i2i_rel
        self.aux_loss_beta = aux_loss_beta
        self.match_negatives = match_negatives
        self.embedding_layer = FeatureEmbeddingDict(feature_map, embedding_dim)

        def tables(groups: list[Group]) -> nn.ModuleDict:
            specs = {field: feature_map.features[field] for group in groups for field in group}
            return nn.ModuleDict(
                {
                    field: nn.Embedding(
                        spec["vocab_size"],
                        spec.get("embedding_dim", embedding_dim),
                        padding_idx=spec.get("padding_idx"),
                    )
                    for field, spec in specs.items()
                }
            )

        self.output_emb_layer = tables([targets for targets, _ in self.groups])  # V'
        if self.contexts:
            self.context_emb_layer = tables(self.contexts)
        self.u2i_net = nn.ModuleList()
        self.i2i_net = nn.ModuleList()
        input_dim = feature_map.sum_emb_out_dim()
        for number, (targets, sequences) in enumerate(self.groups):
            dim = width(targets, feature_map, embedding_dim)
            context = self.contexts[number] if self.contexts else ()
            context_dim = width(context, feature_map, embedding_dim)
            length = feature_map.features[sequences[0]]["max_len"]
            attention = {
                "dim": dim,
                "hidden_units": list(attention_hidden_units),
                "activation": attention_activation,
                "dropout": attention_dropout,
                "max_length": length,
            }
            if enable_u2i_rel:
                self.u2i_net.append(User2Item(context_dim, pos_emb_dim, **attention))
            self.i2i_net.append(
                Item2Item(context_dim, pos_emb_dim if use_pos_emb else 0, **attention)
            )
            input_dim += int(enable_u2i_rel) + int(enable_i2i_rel)
            input_dim += 2 * dim * int(enable_sum_pooling)
        unfed = {field for group in self.negatives + self.contexts for field in group}
        self.dnn = MLP_Block(
            input_dim=input_dim - width(sorted(unfed), feature_map, embedding_dim),
            output_dim=1,
            hidden_units=list(dnn_hidden_units),
            hidden_activations=dnn_activations,
            output_activation=self.output_activation,
            dropout_rates=net_dropout,
            batch_norm=batch_norm,
            bn_only_once=bn_only_once,
        )
        tolerate_one_row(self)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1) and, in training with a match loss, `aux_loss`."""
        X = self.get_inputs(inputs)
        embeddings = self.embedding_layer(X)  # field: (B, K), sequence: (B, L, K)
        parts: list[Tensor] = []
        match_losses: list[Tensor] = []
        for number, (targets, sequences) in enumerate(self.groups):
            mask = X[sequences[0]] != 0  # (B, L)
            order = padding_last(mask)
            mask = mask.gather(1, order)
            candidate = torch.cat([embeddings[field] for field in targets], dim=-1)  # (B, K)
            history = reorder(torch.cat([embeddings[f] for f in sequences], dim=-1), order)
            context = [reorder(embeddings[field], order) for field in self._context(number)]
            interest, rel_i2i = self.i2i_net[number](candidate, history, context, mask)
            parts.append(interest)  # u^
            if self.enable_i2i_rel:
                parts.append(rel_i2i)  # r^
            if self.enable_u2i_rel:
                context = [
                    reorder(self.context_emb_layer[field](X[field].long()), order)
                    for field in self._context(number)
                ]
                users = self.u2i_net[number](history, context, mask)  # (B, 2, K)
                item = self._output(targets, [X[field] for field in targets])  # v'
                parts.append((users[:, 1] * item).sum(dim=-1, keepdim=True))  # Eq. 5: r = u'v'
                if self.training and self.aux_loss_beta > 0:
                    last = order.gather(1, mask.sum(dim=1, keepdim=True).sub(1).clamp(min=0))
                    newest = [X[field].gather(1, last).squeeze(1) for field in sequences]
                    match_losses.append(self._match(number, users[:, 0], newest, mask, X))
            if self.enable_sum_pooling:
                total = history.sum(dim=1)
                parts += [total, candidate * total]
        unfed = {field for _, group in self.groups for field in group}
        unfed.update(field for group in self.negatives + self.contexts for field in group)
        others = {name: each for name, each in embeddings.items() if name not in unfed}
        parts += flat_embeddings(others, self.feature_map).values()
        return_dict = {"y_pred": self.dnn(torch.cat(parts, dim=-1))}
        if match_losses:
            return_dict["aux_loss"] = torch.stack(match_losses).sum()
        return return_dict

    def add_loss(self, return_dict: dict[str, Tensor], y_true: Tensor) -> Tensor:
        """Eq. 9: L = L_target + beta L_NS."""
        loss = super().add_loss(return_dict, y_true)
        if "aux_loss" in return_dict:
            loss = loss + self.aux_loss_beta * return_dict["aux_loss"]
        return loss

    def _context(self, number: int) -> Group:
        return self.contexts[number] if self.contexts else ()

    def _output(self, targets: Group, ids: list[Tensor]) -> Tensor:
        """Output representations v' of items given by the ids of their fields."""
        pairs = zip(targets, ids, strict=True)
        return torch.cat([self.output_emb_layer[field](each.long()) for field, each in pairs], -1)

    def _match(
        self, number: int, users: Tensor, newest: list[Tensor], mask: Tensor, X: dict[str, Tensor]
    ) -> Tensor:
        """Eq. 8: the user after T - 1 behaviors (B, K) must match the T-th, not the negatives."""
        targets, _ = self.groups[number]
        if self.negatives:
            ids = [X[field] for field in self.negatives[number]]
            ids = [each.unsqueeze(1) if each.dim() == 1 else each for each in ids]  # (B, k)
        else:
            k = min(self.match_negatives, len(users) - 1)
            ids = [_other_rows(each, k) for each in newest]  # (B, k)
        pairs = list(zip(ids, newest, strict=True))
        same = torch.stack([each == own.unsqueeze(1) for each, own in pairs]).all(dim=0)
        usable = (ids[0] != 0) & ~same  # (B, k)
        positive = (users * self._output(targets, newest)).sum(dim=-1)  # (B,)
        negative = (self._output(targets, ids) @ users.unsqueeze(-1)).squeeze(-1)  # (B, k)
        log_sigmoid = nn.functional.logsigmoid
        loss = -log_sigmoid(positive) - (log_sigmoid(-negative) * usable).sum(dim=1)
        two = mask.sum(dim=1) >= 2  # a T-th behavior and one before it
        return (loss * two).sum() / two.sum().clamp(min=1)


def _other_rows(ids: Tensor, k: int) -> Tensor:
    """The values (B,) of the k rows before each row: (B, k).

    This needs no random numbers, as the loader shuffles the rows. Items are negatives as often as
    they are behaviors, the paper's background distribution.
    """
    rows = torch.arange(len(ids), device=ids.device).unsqueeze(1)
    return ids[rows - torch.arange(1, k + 1, device=ids.device)]  # a negative index counts back


class _Attention(nn.Module):
    """Scores a_t of the behaviors against a query of context and position."""

    def __init__(
        self,
        query_dim: int,
        position_dim: int,
        dim: int,
        hidden_units: list[int],
        activation: str | list[str],
        dropout: float,
        max_length: int,
    ) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.zeros(max_length, position_dim)) if position_dim else None
        self.W_q = nn.Sequential(nn.Linear(query_dim + position_dim, dim), nn.ReLU())
        self.attn_mlp = MLP_Block(
            input_dim=4 * dim,
            output_dim=1,
            hidden_units=hidden_units,
            hidden_activations=activation,
            output_activation=None,
            dropout_rates=dropout,
            batch_norm=False,
        )

    def positions(self, mask: Tensor) -> list[Tensor]:
        """p_t (B, L, K'), the newest behavior's last; [] without positions."""
        if self.pos_emb is None:
            return []
        count = len(self.pos_emb)
        place = torch.arange(mask.shape[1], device=mask.device) + count
        place = place - mask.sum(dim=1, keepdim=True)  # (B, L)
        return [nn.functional.embedding(place.clamp(max=count - 1), self.pos_emb)]

    def scores(self, query: list[Tensor], history: Tensor) -> Tensor:
        """a_t (B, L) of Eq. 2 and 10, by an MLP instead of z' tanh(W [p, e] + b)."""
        q = self.W_q(torch.cat(query, dim=-1))
        pairs = torch.cat([q, history, q - history, q * history], dim=-1)
        # batch norm (in Dice) takes (rows, units)
        return self.attn_mlp(pairs.flatten(0, 1)).view(history.shape[:2])


class User2Item(_Attention):
    """User-to-item relevance: the attention depends on positions, not on the candidate."""

    def __init__(self, context_dim: int, position_dim: int, dim: int, **attention: Any) -> None:
        super().__init__(context_dim, position_dim, dim, **attention)
        self.W_o = nn.Sequential(nn.Linear(dim, dim), nn.ReLU())  # g

    def forward(self, history: Tensor, context: list[Tensor], mask: Tensor) -> Tensor:
        """Map (B, L, K), padding last, to the user after T - 1 and T behaviors (B, 2, K)."""
        scores = self.scores([*self.positions(mask), *context], history)
        without_newest = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
        seen = torch.stack([without_newest, mask], dim=1)  # (B, 2, L)
        weights = scores.unsqueeze(1).masked_fill(~seen, -1e9).softmax(dim=-1)  # Eq. 3
        weighted = (weights * seen).unsqueeze(-1) * history.unsqueeze(1)  # (B, 2, L, K)
        return self.W_o(weighted.sum(dim=2))  # Eq. 4: u = g(sum_t alpha_t e_t)


class Item2Item(_Attention):
    """Item-to-item relevance: the attention depends on the candidate."""

    def __init__(self, context_dim: int, position_dim: int, dim: int, **attention: Any) -> None:
        super().__init__(dim + context_dim, position_dim, dim, **attention)

    def forward(
        self, candidate: Tensor, history: Tensor, context: list[Tensor], mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Map (B, K), (B, L, K), padding last, to the interest u^ (B, K) and r^ (B, 1)."""
        expanded = candidate.unsqueeze(1).expand_as(history)
        scores = self.scores([expanded, *context, *self.positions(mask)], history)
        weights = scores.masked_fill(~mask, -1e9).softmax(dim=-1)  # Eq. 12
        interest = (weights.unsqueeze(-1) * history).sum(dim=1)  # Eq. 13
        return interest, (scores * mask).sum(dim=1, keepdim=True)  # Eq. 11
