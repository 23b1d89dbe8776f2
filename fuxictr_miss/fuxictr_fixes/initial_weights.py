"""Initialize the embedding tables that FuxiCTR forgets.

Fault: `FeatureEmbeddingDict.init_weights` (fuxictr/pytorch/layers/embeddings/feature_embedding.py)
skips every feature with a `share_embedding`, even if that feature has its own table: in the linear
part of LR, FM, DeepFM and some twenty others, where nothing is shared, and wherever the table to
share comes later or is missing. Those tables keep PyTorch's N(0, 1), and training starts at a
logloss of 1.4 or worse instead of ln 2.
Obsolete when `init_weights` initializes every table.
"""

from __future__ import annotations

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.layers.embeddings.pretrained_embedding import PretrainedEmbedding
from fuxictr.pytorch.models import BaseModel
from torch import nn

from fuxictr_miss.isolated_rng import isolated_rng

_STREAM = 693_147  # added to the seed, so that these weights differ from those of the model


def initialize_forgotten_tables(model: BaseModel, seed: int = 0) -> list[str]:
    """Initialize the tables that FuxiCTR forgot, with the initializer of their layer.

    Call it right after the model's construction. The weights depend only on `seed` and the model's
    tables, so a plain model and its enhanced variant get the same. The global random state does not
    change.

    Returns:
        The names of these tables, `<module>.<feature>`.
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
    """Features with a `share_embedding` that have a table of their own."""
    tables = layer.embedding_layers
    initialized = {
        id(table)
        for feature, table in tables.items()
        if "share_embedding" not in layer._feature_map.features[feature]
    }
    forgotten = []
    for feature, table in tables.items():
        if id(table) not in initialized and isinstance(table, nn.Embedding | PretrainedEmbedding):
            initialized.add(id(table))  # initialize a shared table once
            forgotten.append(feature)
    return forgotten


def _initialize(table: nn.Embedding | PretrainedEmbedding, layer: FeatureEmbeddingDict) -> None:
    if isinstance(table, PretrainedEmbedding):
        table.init_weights()
    else:
        layer.embedding_initializer(table.weight if table.padding_idx is None else table.weight[1:])
