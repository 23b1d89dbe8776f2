"""One fair start for plain and enhanced models: the tables that FuxiCTR 2.3.10 forgets.

FuxiCTR draws a table's weights with the layer's own initializer, normal with std 1e-4, but passes
over every feature that has a `share_embedding`, even where that feature got a table of its own:
in the linear part of LR, FM, DeepFM and some twenty more, where nothing is shared, and wherever the
table to share comes later or is left out. Those tables stay at PyTorch's N(0, 1), and the model
starts at a logloss of 1.4 or worse instead of ln 2.
"""

from __future__ import annotations

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.layers.embeddings.pretrained_embedding import PretrainedEmbedding
from fuxictr.pytorch.models import BaseModel
from torch import nn

from fuxictr_miss.isolated_rng import isolated_rng

_STREAM = 693_147  # keeps these draws apart from those that built the model from the same seed


def initialize_forgotten_tables(model: BaseModel, seed: int = 0) -> list[str]:
    """Draw the weights that FuxiCTR forgot, each table with its own layer's initializer.

    Call it right after the model's construction. The draws depend on `seed` and the model's tables
    alone, so a plain model and its enhanced variant get the same; the global random numbers stay
    as they were.

    Returns:
        Where the tables are: `<module>.<feature>`.
    """
    found: list[str] = []
    with torch.no_grad(), isolated_rng(model.device, seed + _STREAM):
        for place, layer in model.named_modules():
            if isinstance(layer, FeatureEmbeddingDict):
                for feature in _forgotten(layer):
                    _initialize(layer.embedding_layers[feature], layer)
                    found.append(f"{place}.{feature}")
    return found


def _forgotten(layer: FeatureEmbeddingDict) -> list[str]:
    """Features with a `share_embedding` whose table is nevertheless their own."""
    tables = layer.embedding_layers
    initialized = {
        id(table)
        for feature, table in tables.items()
        if "share_embedding" not in layer._feature_map.features[feature]
    }
    forgotten = []
    for feature, table in tables.items():
        if id(table) not in initialized and isinstance(table, nn.Embedding | PretrainedEmbedding):
            initialized.add(id(table))  # under a second name it is not drawn again
            forgotten.append(feature)
    return forgotten


def _initialize(table: nn.Embedding | PretrainedEmbedding, layer: FeatureEmbeddingDict) -> None:
    if isinstance(table, PretrainedEmbedding):
        table.init_weights()
    else:
        layer.embedding_initializer(table.weight if table.padding_idx is None else table.weight[1:])
