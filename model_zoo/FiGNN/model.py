"""Fi-GNN: the fields as nodes of a graph whose edges are feature interactions."""

from __future__ import annotations

from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from fuxictr_miss.traits import Traits


class FiGNN(BaseModel):
    """Feature interaction graph neural network (https://arxiv.org/abs/1910.05552).

    Args:
        feature_map: Fields of the data set; sequences must be pooled by their `feature_encoder`.
        gnn_layers: Number of interaction steps T.
        use_residual: Add the initial node states after each step.
        use_gru: Update node states by a GRU; otherwise add the message.
        reuse_graph_layer: Share the aggregation weights between steps.
        attention_heads: Heads of the paper's self-attention between embedding and graph; 0 leaves
            it out, as FuxiCTR does.
        **kwargs: Keys of `BaseModel`, with `optimizer` and `loss`.

    Raises:
        InputError: There are fewer than two fields, or the heads do not divide `embedding_dim`.
    """

    traits = Traits(trim=True)

    def __init__(
        self,
        feature_map: FeatureMap,
        model_id: str = "FiGNN",
        gpu: int = -1,
        learning_rate: float = 1e-3,
        embedding_dim: int = 10,
        gnn_layers: int = 3,
        use_residual: bool = True,
        use_gru: bool = True,
        reuse_graph_layer: bool = False,
        embedding_regularizer: float | str | None = None,
        net_regularizer: float | str | None = None,
        attention_heads: int = 0,
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
        num_fields = feature_map.get_num_fields()  # F, after `use_features` has narrowed the map
        if num_fields < 2:
            raise InputError("FiGNN needs two fields or more: one node has no edge.")
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.self_attention = (
            FieldSelfAttention(embedding_dim, attention_heads) if attention_heads else None
        )
        self.fignn = InteractionGraph(
            num_fields, embedding_dim, gnn_layers, reuse_graph_layer, use_gru, use_residual
        )
        self.fc = AttentionalScore(num_fields, embedding_dim)
        self.compile(kwargs["optimizer"], kwargs["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `y_pred` (B, 1)."""
        X = self.get_inputs(inputs)
        embeddings = self.embedding_layer(X)  # (B, F, K)
        if self.self_attention is not None:
            embeddings = self.self_attention(embeddings)
        states = self.fignn(embeddings)
        return {"y_pred": self.output_activation(self.fc(states))}


class FieldSelfAttention(nn.Module):
    """Multi-head self-attention over the fields: H^1 = relu(softmax(Q K' / sqrt(d)) V), heads
    concatenated."""

    def __init__(self, embedding_dim: int, num_heads: int) -> None:
        super().__init__()
        if embedding_dim % num_heads:
            raise InputError(
                f"attention_heads={num_heads} does not divide embedding_dim={embedding_dim}."
            )
        self.num_heads = num_heads
        self.W_q = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.W_k = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.W_v = nn.Linear(embedding_dim, embedding_dim, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map (B, F, K) to the initial node states H^1 (B, F, K)."""
        queries, keys, values = (  # (B, heads, F, K / heads)
            project(embeddings).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.W_q, self.W_k, self.W_v)
        )
        heads = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return heads.transpose(1, 2).flatten(start_dim=2).relu()


class InteractionGraph(nn.Module):
    """T steps of message passing between the fields."""

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        num_steps: int,
        reuse_graph_layer: bool,
        use_gru: bool,
        use_residual: bool,
    ) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.use_residual = use_residual
        self.gnn: nn.Module = (
            Aggregation(num_fields, embedding_dim)
            if reuse_graph_layer
            else nn.ModuleList(Aggregation(num_fields, embedding_dim) for _ in range(num_steps))
        )
        self.gru = nn.GRUCell(embedding_dim, embedding_dim) if use_gru else None
        self.W_attn = nn.Linear(2 * embedding_dim, 1, bias=False)

    def edge_weights(self, nodes: Tensor) -> Tensor:
        """Attentional edge weights (B, F, F): row i weights the messages from nodes j to i."""
        # W_w [e_i || e_j] is a sum of two scalars; no (B, F, F, 2K) tensor is needed
        of_receiver, of_sender = self.W_attn.weight.view(2, -1)  # (K), (K)
        scores = (nodes @ of_receiver).unsqueeze(2) + (nodes @ of_sender).unsqueeze(1)
        scores = nn.functional.leaky_relu(scores, negative_slope=0.01)
        no_self_loop = torch.eye(nodes.shape[1], dtype=torch.bool, device=nodes.device)
        return scores.masked_fill(no_self_loop, float("-inf")).softmax(dim=-1)

    def forward(self, nodes: Tensor) -> Tensor:
        """Map the initial states (B, F, K) to those after T steps."""
        graph = self.edge_weights(nodes)
        states = nodes
        for step in range(self.num_steps):
            layer = self.gnn[step] if isinstance(self.gnn, nn.ModuleList) else self.gnn
            incoming = layer(graph, states)  # a^t
            if self.gru is None:
                states = incoming + states
            else:  # h^t = GRU(h^{t-1}, a^t), the same cell for all nodes
                states = self.gru(incoming.flatten(0, 1), states.flatten(0, 1)).view_as(nodes)
            if self.use_residual:
                states = states + nodes
        return states


class Aggregation(nn.Module):
    """The messages to each node: a_i = W_in^i sum_j A_ij W_out^j h_j + b_p."""

    def __init__(self, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(num_fields, embedding_dim, embedding_dim))
        self.W_out = nn.Parameter(torch.empty(num_fields, embedding_dim, embedding_dim))
        nn.init.xavier_normal_(self.W_in)
        nn.init.xavier_normal_(self.W_out)
        self.bias_p = nn.Parameter(torch.zeros(embedding_dim))

    def forward(self, graph: Tensor, states: Tensor) -> Tensor:
        """Map the edge weights (B, F, F) and states (B, F, K) to messages (B, F, K)."""
        sent = torch.einsum("fde,bfe->bfd", self.W_out, states)
        return torch.einsum("fde,bfe->bfd", self.W_in, graph @ sent) + self.bias_p


class AttentionalScore(nn.Module):
    """One score per node, weighted by attention: y = sum_i a_i y_i."""

    def __init__(self, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(embedding_dim, 1, bias=False)
        self.mlp2 = nn.Sequential(
            nn.Linear(num_fields * embedding_dim, num_fields, bias=False), nn.Sigmoid()
        )

    def forward(self, states: Tensor) -> Tensor:
        """Map the states (B, F, K) to a logit (B, 1)."""
        scores = self.mlp1(states).squeeze(-1)  # y_i: (B, F)
        weights = self.mlp2(states.flatten(start_dim=1))  # a_i: (B, F)
        return (weights * scores).sum(dim=1, keepdim=True)
