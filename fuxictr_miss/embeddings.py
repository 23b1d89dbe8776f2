"""Where in a backbone the features are embedded that a method reads."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from fuxictr.pytorch.layers import (
    FeatureEmbeddingDict,
    MaskedAveragePooling,
    MaskedSumPooling,
)
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.distributed.sharded_tables import embedding_dicts
from fuxictr_miss.errors import InputError
from fuxictr_miss.fields import Fields


class Source:
    """Some features, and the tables of a backbone that embed them.

    The tables are those that `main_tables` finds. Where the backbone's encoder of a sequence has
    layers beside its pooling, as the projection behind a pretrained table, they are part of the
    table: a behavior is what the encoder makes of a history of it alone.

    Args:
        model: any FuxiCTR model, already built.
        features: their names.

    Raises:
        InputError: the model has no table for them.
    """

    def __init__(self, model: BaseModel, features: list[str]) -> None:
        self.features = features
        self.places = main_tables(model, features) if features else []
        if not self.places:
            raise InputError(
                f"{type(model).__name__} embeds {', '.join(features) or 'its features'} in no "
                "table of more than one dimension, so there is nothing to enhance. Use a backbone "
                "with an embedding table."
            )
        self.widths = [_width(table, model.device) for table in self.tables(model)]
        self.dim = self.widths[0]  # K

    @property
    def id_features(self) -> list[str]:
        """Those whose tables have a row for each id."""
        return self.features

    def tables(self, model: BaseModel) -> list[nn.Module]:
        """The modules that embed the features; a shared one appears for each of them."""
        layers = [model.get_submodule(place) for place in self.places]
        return [side_by_side([_table(layer, name) for layer in layers]) for name in self.features]

    def parameters(self, model: BaseModel) -> list[nn.Parameter]:
        """The trainable parameters of the tables, each once."""
        own = (p for table in self.tables(model) for p in table.parameters() if p.requires_grad)
        return list(dict.fromkeys(own))

    def described(self, model: BaseModel) -> str:
        """Which table embeds each feature, for the log: `item_id (1,082 x 10)`."""
        parts = []
        for name, table in zip(self.features, self.tables(model), strict=True):
            spec = model.feature_map.features[name]
            trains = any(p.requires_grad for p in table.parameters())
            rows = spec.get("vocab_size", 1)  # a numeric feature has one weight a dimension
            shape = f"{rows:,} x {self.dim}{'' if trains else ', frozen'}"
            parts.append(f"{spec.get('share_embedding', name)} ({shape})")
        return ", ".join(parts)

    def modules(self, model: BaseModel) -> list[nn.Module]:
        """What the backbone calls to look up the features; shared modules appear repeatedly."""
        return [part for name in self.features for part in self.parts(model, name)]

    def projections(self, model: BaseModel) -> list[list[nn.Module]]:
        """The layers between a look-up and its embedding, in order; none where there are none."""
        layers = [model.get_submodule(place) for place in self.places]
        found = [_projection(layer, name) for name in self.features for layer in layers]
        return [steps for steps in found if steps]

    def parts(self, model: BaseModel, name: str) -> list[nn.Module]:
        """The tables of a feature, side by side."""
        return [model.get_submodule(place).embedding_layers[name] for place in self.places]


class BehaviorSource(Source):
    """One kind of behavior: its sequences, and the tables of a backbone that embed them.

    Args:
        model: any FuxiCTR model, already built.
        sequences: the J sequences that are attributes of this behavior.

    Raises:
        InputError: the model has no table for them, or they differ in length or dimension.
    """

    def __init__(self, model: BaseModel, sequences: list[str]) -> None:
        super().__init__(model, sequences)
        features = model.feature_map.features
        lengths = [features[name]["max_len"] for name in sequences]
        if len(set(lengths)) > 1 or len(set(self.widths)) > 1:
            shapes = zip(sequences, lengths, self.widths, strict=True)
            listed = ", ".join(f"{n}: length {m}, dimension {d}" for n, m, d in shapes)
            raise InputError(
                f"{type(model).__name__}: the attributes of a behavior must share one length and "
                f"one dimension ({listed}). Name those that do in ssl_sequences; a list of lists "
                "gives several behaviors."
            )

    def read(
        self,
        model: BaseModel,
        inputs: dict[str, Tensor],
        users: Tensor | None = None,
        watched: bool = False,
    ) -> Behavior:
        """The behaviors of a batch.

        Args:
            model: the model whose tables embed them.
            inputs: the columns of the batch by name; those of the sequences are (B, L) ids.
            users: (B,) ids; None: rows with the same history are of one user.
            watched: as in `Behavior`.
        """
        columns = model.get_inputs({name: inputs[name] for name in self.features})
        ids = [columns[name] for name in self.features]
        return Behavior(ids, self.tables(model), users, watched)


class FieldSource(Source):
    """All features that a backbone embeds, each as one vector: what needs no history.

    These are the categorical, numeric and sequence features of the layer that embeds most of them.

    Args:
        model: any FuxiCTR model, already built.

    Raises:
        InputError: the model has no table, or its tables differ in dimension.
    """

    def __init__(self, model: BaseModel) -> None:
        super().__init__(model, embedded_features(model))
        specs = model.feature_map.features
        if len(set(self.widths)) > 1:
            shapes = zip(self.features, self.widths, strict=True)
            listed = ", ".join(f"{name}: {width}" for name, width in shapes)
            raise InputError(
                f"{type(model).__name__}: a method that reads all features needs one embedding "
                f"dimension for all of them ({listed}). Remove embedding_dim from their entries in "
                "feature_cols."
            )
        self.kinds = [specs[name]["type"] for name in self.features]
        self.sizes = [specs[name].get("vocab_size", 0) for name in self.features]

    @property
    def id_features(self) -> list[str]:
        """All but the numeric ones."""
        return [name for name, size in zip(self.features, self.sizes, strict=True) if size]

    def read(
        self,
        model: BaseModel,
        inputs: dict[str, Tensor],
        users: Tensor | None = None,
        watched: bool = False,
    ) -> Fields:
        """The fields of a batch.

        Args:
            model: the model whose tables embed them.
            inputs: the columns of the batch by name.
            users: not used.
            watched: not used.
        """
        columns = model.get_inputs({name: inputs[name] for name in self.features})
        return Fields(list(columns.values()), self.kinds, self.sizes, self.tables(model))


# Layers of a sequence's encoder that transform a single behavior
_OF_ONE_BEHAVIOR = (
    nn.Linear, nn.Identity, nn.LayerNorm, nn.Dropout, nn.ReLU, nn.GELU, nn.Tanh, nn.Sigmoid,
)  # fmt: skip
_POOLINGS = (MaskedAveragePooling, MaskedSumPooling)  # they leave a single behavior as it is


def _table(layer: Any, name: str) -> nn.Module:
    """The module that embeds a single behavior: the table, and its projection."""
    table, steps = layer.embedding_layers[name], _projection(layer, name)
    return nn.Sequential(table, *steps) if steps else table


def _projection(layer: Any, name: str) -> list[nn.Module]:
    """The layers of a sequence's encoder that a single behavior goes through."""
    if name not in layer.feature_encoders:
        return []
    encoder = layer.feature_encoders[name]
    steps = list(encoder) if isinstance(encoder, nn.Sequential) else [encoder]
    known = itertools.takewhile(lambda s: isinstance(s, _OF_ONE_BEHAVIOR + _POOLINGS), steps)
    return [step for step in known if not isinstance(step, _POOLINGS)]


def main_tables(model: BaseModel, features: Iterable[str]) -> list[str]:
    """Find the `FeatureEmbeddingDict` that is a model's main embedding of some features.

    Tables of one dimension do not count: they belong to a linear part. If several embed all the
    features, the widest is taken. If several are equally wide, it is the attribute
    `embedding_layer`, as FuxiCTR's models call it (others are gates or second towers), or else the
    first. Tables in a list, as FFM and ONN have one for each field to interact with, are one
    embedding in parts.

    Args:
        model: any FuxiCTR model.
        features: the features that it must embed.

    Returns:
        The names of its submodules, one for each part; none if there is no such table.
    """
    wanted = list(features)
    parts: dict[str, list[str]] = {}
    widths: dict[str, int] = {}
    for place, module in model.named_modules():
        if isinstance(module, FeatureEmbeddingDict):
            tables = module.embedding_layers
            dims = [_width(tables[f], model.device) if f in tables else 0 for f in wanted]
            narrowest = min(dims, default=0)
            if narrowest > 1:
                whole = re.sub(r"\.\d+(?=\.|$)", "", place)
                parts.setdefault(whole, []).append(place)
                widths[whole] = widths.get(whole, 0) + narrowest

    def rank(whole: str) -> tuple[int, bool]:
        return widths[whole], whole in ("embedding_layer", "embedding_layer.embedding_layer")

    return parts[max(widths, key=rank)] if parts else []


def embedded_features(model: BaseModel) -> list[str]:
    """The features of the `FeatureEmbeddingDict` that embeds most, in the feature map's order."""
    specs = model.feature_map.features
    found = [
        [
            name
            for name, spec in specs.items()
            if spec["type"] in ("categorical", "numeric", "sequence")
            and name in module.embedding_layers
            and _width(module.embedding_layers[name], model.device) > 1
        ]
        for module in embedding_dicts(model)
    ]
    return max(found, key=len, default=[])


def id_tables(model: BaseModel) -> Iterator[tuple[str, nn.Embedding]]:
    """All tables with a row per id, frozen ones too; a shared one with each of its features."""
    for layer in embedding_dicts(model):
        for feature, table in layer.embedding_layers.items():
            yield from (
                (feature, part) for part in table.modules() if isinstance(part, nn.Embedding)
            )


def side_by_side(tables: list[nn.Module]) -> nn.Module:
    """One module that concatenates the embeddings of several tables."""
    return tables[0] if len(tables) == 1 else _SideBySide(tables)


class _SideBySide(nn.Module):
    def __init__(self, tables: list[nn.Module]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(tables)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.cat([table(ids) for table in self.tables], dim=-1)


@torch.no_grad()
def _width(table: nn.Module, device: torch.device) -> int:
    """The dimension of what a table makes of an id, or a numeric feature's weights of a number."""
    if isinstance(table, nn.Linear):
        return table.out_features
    return table(torch.zeros(1, dtype=torch.long, device=device)).shape[-1]
