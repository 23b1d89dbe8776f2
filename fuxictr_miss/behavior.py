"""The behavior tensor C (Eq. 18), its mask, and the backbone's table that embeds it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.layers.embeddings.pretrained_embedding import PretrainedEmbedding
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import InputError

_HASHED = 8  # newest behaviors that tell histories apart


class Behavior:
    """The behaviors of a batch, embedded only where a method asks for them.

    Behaviors are counted from 0 (the oldest) to `length` - 1, whatever the padding: a position
    at which any sequence is padding is not a behavior, on either side or in between. What is asked
    for is found without a look at the rest, so that a long history costs what a short one does.

    Args:
        ids: J columns of (B, L) token ids, or one (B, J, L); 0 is padding.
        tables: J modules that embed ids to K dimensions.
    """

    def __init__(self, ids: Sequence[Tensor] | Tensor, tables: list[nn.Module]) -> None:
        self.columns = ids.unbind(1) if isinstance(ids, Tensor) else tuple(ids)
        self.tables = tables

    @cached_property
    def ids(self) -> Tensor:
        """(B, J, L) token ids."""
        return torch.stack(self.columns, dim=1).long()

    @property
    def batch_size(self) -> int:
        """B."""
        return self.columns[0].shape[0]

    @property
    def max_len(self) -> int:
        """L; as the number of a behavior it stands for padding."""
        return self.columns[0].shape[1]

    @cached_property
    def mask(self) -> Tensor:
        """(B, L) whether there is a behavior at a position."""
        mask = self.columns[0].bool()
        for column in self.columns[1:]:
            mask &= column.bool()
        return mask

    @cached_property
    def length(self) -> Tensor:
        """(B,) number of behaviors."""
        return self.mask.view(torch.int8).sum(dim=1, dtype=torch.int32).long()

    @cached_property
    def group(self) -> Tensor:
        """(B,) equal for rows of equal behaviors, wherever the padding: a 64-bit linear hash.

        It reads the length and the newest behaviors, which tell any two histories apart in effect.
        """
        newest = self.length - torch.arange(1, _HASHED + 1, device=self.length.device)[:, None]
        newest = newest.where(newest >= 0, self.max_len)  # (_HASHED, B)
        tokens = torch.stack(self._tokens(newest)).flatten(0, 1)  # (J * _HASHED, B)
        factors = _multipliers(len(tokens) + 1).to(tokens.device)
        return (tokens * factors[1:, None]).sum(dim=0) + self.length * factors[0]

    @cached_property
    def tensor(self) -> Tensor:
        """C of Eq. 18, (B, J, L, K), behaviors first; rows past the history's end are zero."""
        everything = torch.arange(self.max_len, device=self.length.device)
        return self.embed(everything.expand(self.batch_size, -1))

    def tokens(self, behaviors: Tensor) -> Tensor:
        """Ids of chosen behaviors.

        Args:
            behaviors: (B, S) numbers of behaviors; past the end of a history stands for padding.

        Returns:
            (B, J, S); 0 is padding.
        """
        return torch.stack(self._tokens(behaviors.T)).permute(2, 0, 1)

    def embed(self, behaviors: Tensor) -> Tensor:
        """Embeddings of chosen behaviors, un-pooled.

        Args:
            behaviors: as for `tokens`.

        Returns:
            (B, J, S, K); padding is zero and sends no gradient into the table.
        """
        return self.embed_rows_last(behaviors.T).permute(1, 2, 0, 3)

    def embed_rows_last(self, behaviors: Tensor) -> Tensor:
        """Embeddings as `embed`, in the order in which one matrix product convolves them.

        Args:
            behaviors: (..., B) numbers of behaviors.

        Returns:
            (..., B, J, K), contiguous.
        """
        embedded = []
        for ids, table in zip(self._tokens(behaviors), self.tables, strict=True):
            embedded.append(_embedded(table, ids))
        return torch.stack(embedded, dim=-2)

    def _tokens(self, behaviors: Tensor) -> list[Tensor]:
        """J tensors of ids for (..., B) numbers of behaviors."""
        real = behaviors < self.length
        position = self._position(behaviors).where(real, 0).reshape(-1, self.batch_size)
        tokens = (column.T.gather(0, position).view(behaviors.shape) for column in self.columns)
        return [(ids * real).long() for ids in tokens]

    def _position(self, behaviors: Tensor) -> Tensor:
        """Where behaviors (..., B) stand; anything for those past the end."""
        if self._first is not None:
            return self._first + behaviors
        asked = behaviors.reshape(-1, self.batch_size).T + 1  # (B, X)
        position = torch.searchsorted(self.mask.cumsum(dim=1), asked.contiguous())
        return position.T.reshape(behaviors.shape)

    @cached_property
    def _first(self) -> Tensor | None:
        """(B,) position of the oldest behavior if every history is unbroken and at an end.

        To know it takes a look at all rows, for which a GPU would have to be waited for.
        """
        mask = self.mask
        if mask.is_cuda:
            return None
        changes = (mask[:, 1:] != mask[:, :-1]).view(torch.int8).sum(dim=1, dtype=torch.int32)
        if (changes > 1).any():
            return None
        return (self.max_len - self.length).where(~mask[:, 0], 0)


class BehaviorSource:
    """One kind of behavior: its sequences, and where in a backbone they are embedded.

    The tables are those of `main_tables`, with what the backbone's encoder of a sequence does to
    each behavior before it pools them, such as the projection of a pretrained table.

    Args:
        model: any FuxiCTR model, already built.
        sequences: the J sequences that are attributes of this behavior.

    Raises:
        InputError: the model has no table for them, or they differ in length or dimension.
    """

    def __init__(self, model: BaseModel, sequences: list[str]) -> None:
        model_name = type(model).__name__
        features = model.feature_map.features
        self.sequences = sequences
        self.places = main_tables(model, sequences)
        if not self.places:
            raise InputError(
                f"{model_name} embeds {', '.join(sequences)} in no table of more than one "
                "dimension, so there is nothing to enhance. Use a backbone with an embedding table."
            )
        pad = torch.zeros(1, dtype=torch.long, device=model.device)
        with torch.no_grad():
            widths = [table(pad).shape[-1] for table in self.tables(model)]
        lengths = [features[name]["max_len"] for name in sequences]
        if len(set(lengths)) > 1 or len(set(widths)) > 1:
            shapes = zip(sequences, lengths, widths, strict=True)
            listed = ", ".join(f"{n}: length {m}, dimension {d}" for n, m, d in shapes)
            raise InputError(
                f"{model_name}: the attributes of a behavior must share one length and one "
                f"dimension ({listed}). Name those that do in ssl_sequences; a list of lists gives "
                "several behaviors."
            )
        self.dim = widths[0]  # K

    def tables(self, model: BaseModel) -> list[nn.Module]:
        """The J modules that embed the sequences (shared ones appear under every name)."""
        layers = [model.get_submodule(place) for place in self.places]
        return [side_by_side([_table(layer, name) for layer in layers]) for name in self.sequences]

    def parameters(self, model: BaseModel) -> list[nn.Parameter]:
        """What of the tables trains, each once."""
        own = (p for table in self.tables(model) for p in table.parameters() if p.requires_grad)
        return list(dict.fromkeys(own))

    def described(self, model: BaseModel) -> str:
        """Which table embeds each sequence, for the log: `item_id (1,082 x 10)`."""
        parts = []
        for name, table in zip(self.sequences, self.tables(model), strict=True):
            spec = model.feature_map.features[name]
            trains = any(p.requires_grad for p in table.parameters())
            shape = f"{spec['vocab_size']:,} x {self.dim}{'' if trains else ', frozen'}"
            parts.append(f"{spec.get('share_embedding', name)} ({shape})")
        return ", ".join(parts)

    def read(self, model: BaseModel, inputs: dict[str, Tensor]) -> Behavior:
        """The behaviors of a batch of (B, L) id columns."""
        columns = model.get_inputs({name: inputs[name] for name in self.sequences})
        return Behavior([columns[name] for name in self.sequences], self.tables(model))


def _embedded(table: nn.Module, ids: Tensor) -> Tensor:
    """Embeddings (..., K) of ids (...); padding is zero and sends no gradient into the table.

    Rows taken by index have a gradient that a CPU sums up in a third of an embedding's time.
    """
    rows = table.weight[ids] if type(table) is nn.Embedding else table(ids)
    return rows * (ids != 0).unsqueeze(-1)


# What an encoder of a sequence may do to each behavior by itself, before it pools them.
_OF_ONE_BEHAVIOR = (
    nn.Linear, nn.Identity, nn.LayerNorm, nn.Dropout, nn.ReLU, nn.GELU, nn.Tanh, nn.Sigmoid,
)  # fmt: skip


def _table(layer: Any, name: str) -> nn.Module:
    """What embeds a single behavior: the table, and the encoder up to where it pools."""
    table = layer.embedding_layers[name]
    if name not in layer.feature_encoders:
        return table
    encoder = layer.feature_encoders[name]
    steps = list(encoder) if isinstance(encoder, nn.Sequential) else [encoder]
    alone = list(itertools.takewhile(lambda step: isinstance(step, _OF_ONE_BEHAVIOR), steps))
    return nn.Sequential(table, *alone) if alone else table


def main_tables(model: BaseModel, features: Iterable[str]) -> list[str]:
    """Where in a model its `FeatureEmbeddingDict`s for `features` are.

    A linear part's tables of one dimension do not count. Of several that hold all the features it
    is the widest; of equals the one in the attribute `embedding_layer`, as FuxiCTR's models call it
    (others are gates or second towers), else the first. Tables in a list, one for each field to
    interact with as in FFM and ONN, are one embedding in parts.

    Returns:
        Names of submodules; none where there is no such table.
    """
    wanted = list(features)
    parts: dict[str, list[str]] = {}
    widths: dict[str, int] = {}
    for place, module in model.named_modules():
        if isinstance(module, FeatureEmbeddingDict):
            tables = module.embedding_layers
            narrowest = min((_width(tables[f]) if f in tables else 0 for f in wanted), default=0)
            if narrowest > 1:
                whole = re.sub(r"\.\d+(?=\.|$)", "", place)
                parts.setdefault(whole, []).append(place)
                widths[whole] = widths.get(whole, 0) + narrowest

    def rank(whole: str) -> tuple[int, bool]:
        return widths[whole], whole in ("embedding_layer", "embedding_layer.embedding_layer")

    return parts[max(widths, key=rank)] if parts else []


def side_by_side(tables: list[nn.Module]) -> nn.Module:
    """One module that answers with all tables' embeddings of an id, concatenated."""
    return tables[0] if len(tables) == 1 else _SideBySide(tables)


class _SideBySide(nn.Module):
    def __init__(self, tables: list[nn.Module]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(tables)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.cat([table(ids) for table in self.tables], dim=-1)


def _width(table: nn.Module) -> int:
    """The dimension of a table's output."""
    if isinstance(table, PretrainedEmbedding):
        if table.proj is not None:
            return table.proj.out_features
        return table.pretrain_embedding.embedding_dim
    return getattr(table, "embedding_dim", 0)


@lru_cache(maxsize=256)
def _multipliers(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(2111_15068)
    return torch.randint(-(2**62), 2**62, (count,), generator=generator)
