"""The behavior tensor C (Eq. 18), its mask, and the tables of a backbone that embed it.

One axis order holds from here to the loss: the batch first, the features last, and in between what
is chosen. The letters are those of the paper:

    B  rows of a batch              J  sequences, the attributes of a behavior
    L  positions of a history       K  dimensions of an embedding
    M  kernel widths (branches)     N  kernel heights, of which N' leave a pair
    P  interest pairs a branch      Q  feature pairs a branch and height
    S  whatever was chosen          D  dimensions of an encoded view

So C is (B, L, J, K), drawn windows are (B, M, P, 2) and their views (B, M, P, 2, J, K), encoded
(B, M, P, 2, D). A loss contrasts the B views of a pair: for it alone the pairs move to the front.
"""

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

_NEWEST = 8  # behaviors that `group` reads


class Behavior:
    """The behaviors of a batch, embedded only where a method asks for them.

    A position is a behavior where no sequence is padding. Behaviors are numbered from 0 (the
    oldest) to `length` - 1, whether the padding stands before, behind or between them. A look-up
    touches only what is asked for, so that a long history costs what a short one does.

    Args:
        columns: J sequences, (B, L) token ids each; 0 is padding.
        tables: J modules that embed ids to K dimensions.
    """

    def __init__(self, columns: Sequence[Tensor], tables: Sequence[nn.Module]) -> None:
        self.columns = tuple(columns)
        self.tables = tuple(tables)

    @property
    def batch_size(self) -> int:
        """B."""
        return self.columns[0].shape[0]

    @property
    def max_len(self) -> int:
        """L."""
        return self.columns[0].shape[1]

    @cached_property
    def mask(self) -> Tensor:
        """(B, L) booleans: whether a position is a behavior."""
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
        """(B,) integers, equal for rows with the same behaviors: a linear hash of 64 bits.

        It reads the length and the newest 8 behaviors; histories that differ only in older ones
        are one group.
        """
        newest = self.length[:, None] - torch.arange(1, _NEWEST + 1, device=self.length.device)
        tokens = self.tokens(newest.where(newest >= 0, self.max_len))  # (B, 8, J)
        factors = _multipliers(_NEWEST * len(self.columns) + 1).to(tokens.device)
        hashed = (tokens.transpose(1, 2).flatten(1) * factors[1:]).sum(dim=1)
        return hashed + self.length * factors[0]

    @cached_property
    def tensor(self) -> Tensor:
        """C of Eq. 18, (B, L, J, K): the behaviors, oldest first, then zeros."""
        return self.embed(self.every)

    @property
    def every(self) -> Tensor:
        """(B, L) the numbers 0 to L - 1 in each row."""
        return torch.arange(self.max_len, device=self.length.device).expand(self.batch_size, -1)

    def tokens(self, behaviors: Tensor) -> Tensor:
        """Ids of chosen behaviors.

        Args:
            behaviors: (B, ...) numbers of behaviors, 0 or more; `length` or more is padding.

        Returns:
            (B, ..., J) ids; 0 is padding.
        """
        chosen = behaviors.flatten(1)  # (B, S)
        exists = chosen < self.length[:, None]
        position = self._position(chosen).where(exists, 0)
        tokens = []
        for column in self.columns:
            memory, width = _memory(column)
            row = torch.arange(self.batch_size, device=position.device)[:, None] * width
            ids = memory.index_select(0, (row + position).flatten()).view(chosen.shape)
            tokens.append((ids * exists).long())
        return torch.stack(tokens, dim=-1).unflatten(1, behaviors.shape[1:])

    def embed(self, behaviors: Tensor) -> Tensor:
        """Embeddings of chosen behaviors.

        Args:
            behaviors: as for `tokens`.

        Returns:
            (B, ..., J, K): e_{j,l} of Eq. 18; padding is zero and sends no gradient to the table.
        """
        tokens = self.tokens(behaviors)  # (B, ..., J)
        columns = zip(self.tables, tokens.unbind(-1), strict=True)
        e = torch.stack([_looked_up(table, ids) for table, ids in columns], dim=-2)
        return e * (tokens[..., 0] != 0)[..., None, None]

    def _position(self, behaviors: Tensor) -> Tensor:
        """(B, S) positions of the behaviors (B, S); arbitrary for those past the end."""
        if self._first is not None:
            return self._first[:, None] + behaviors
        return torch.searchsorted(self.mask.cumsum(dim=1), behaviors + 1)

    @cached_property
    def _first(self) -> Tensor | None:
        """(B,) position of the oldest behavior; None if padding stands between behaviors.

        Computing it reads every row and would synchronise a GPU, where it is None.
        """
        mask = self.mask
        if mask.is_cuda:
            return None
        changes = (mask[:, 1:] != mask[:, :-1]).view(torch.int8).sum(dim=1, dtype=torch.int32)
        if (changes > 1).any():
            return None
        return (self.max_len - self.length).where(~mask[:, 0], 0)


def _memory(column: Tensor) -> tuple[Tensor, int]:
    """The numbers that a column's rows are views of, and how far apart two rows are in it.

    To take single numbers out of one dimension costs a quarter of what it costs out of two.
    """
    column = column if column.stride(1) == 1 else column.contiguous()
    rows, width = column.shape[0], column.stride(0)
    return column.as_strided(((rows - 1) * width + column.shape[1],), (1,)), width


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


def _looked_up(table: nn.Module, ids: Tensor) -> Tensor:
    """(..., K) rows of a table.

    On a CPU the gradient of indexing takes a third of the time of `nn.Embedding`'s.
    """
    return table.weight[ids] if type(table) is nn.Embedding else table(ids)


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
