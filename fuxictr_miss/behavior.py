"""The behavior tensor C (Eq. 18), its mask, and the backbone's table that embeds it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.layers.embeddings.pretrained_embedding import PretrainedEmbedding
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.look_up import keep_dense, look_up

_HASHED = 8  # newest behaviors that tell histories apart


class Behavior:
    """The behaviors of a batch, embedded only where a method asks for them.

    Behaviors are counted from 0 (the oldest) to `length` - 1, whatever the padding: a position
    at which any sequence is padding is not a behavior, on either side or in between. What is asked
    for is found without a look at the rest, so that a long history costs what a short one does.

    Args:
        ids: J columns of (B, L) token ids, or one (B, J, L); 0 is padding.
        tables: J modules that embed ids to K dimensions.
        beside: whether their gradient is to be sparse, as in `BehaviorSource.read`.
    """

    def __init__(
        self, ids: Sequence[Tensor] | Tensor, tables: list[nn.Module], beside: bool = False
    ) -> None:
        self.columns = ids.unbind(1) if isinstance(ids, Tensor) else tuple(ids)
        self.tables = tables
        self.beside = beside

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
            embedded.append(look_up(table, ids, self.beside))
        return torch.stack(embedded, dim=-2)

    def _tokens(self, behaviors: Tensor) -> list[Tensor]:
        """J tensors of ids for (..., B) numbers of behaviors."""
        behaviors = behaviors.contiguous()
        real = behaviors < self.length
        position = self._position(behaviors).where(real, 0)
        tokens = []
        for column in self.columns:
            memory, width = _memory(column)
            row = torch.arange(self.batch_size, device=position.device) * width
            chosen = memory.index_select(0, (row + position).flatten()).view(behaviors.shape)
            tokens.append((chosen * real).long())
        return tokens

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


def _memory(column: Tensor) -> tuple[Tensor, int]:
    """The numbers that a column's rows are views of, and how far apart two rows are in it.

    To take single numbers out of one dimension costs a quarter of what it costs out of two.
    """
    column = column if column.stride(1) == 1 else column.contiguous()
    rows, width = column.shape[0], column.stride(0)
    return column.as_strided(((rows - 1) * width + column.shape[1],), (1,)), width


class BehaviorSource:
    """Finds in a backbone the sequences and tables from which a batch's `Behavior` is made.

    The tables are those of `main_tables`. Sequences of negatives, as a model names them in a key
    like `neg_seq_field`, are no behavior and are left out.

    Args:
        model: any FuxiCTR model, already built.
        sequences: names of the sequence features to use; None takes all of them.

    Raises:
        InputError: there is no usable sequence, or the sequences differ in length or dimension.
    """

    def __init__(self, model: BaseModel, sequences: list[str] | None = None) -> None:
        features = model.feature_map.features
        available = [name for name, spec in features.items() if spec["type"] == "sequence"]
        for name in sequences or []:
            if name not in available:
                raise unknown("sequence in ssl_sequences", name, available)
        negatives = _negatives(model)
        wanted = list(sequences or [name for name in available if name not in negatives])
        model_name = type(model).__name__
        if not wanted:
            raise InputError(
                f"{model_name}: the feature map has no sequence feature to learn from. Add one of "
                "type 'sequence' (the behavior history) to feature_cols."
            )
        self._places = main_tables(model, wanted)
        if not self._places:
            raise InputError(
                f"{model_name} embeds {', '.join(wanted)} in no table of more than one dimension, "
                "so there is nothing to enhance. Use a backbone with an embedding table."
            )
        widths = [_width(table) for table in self._tables(model, wanted)]
        lengths = [features[name]["max_len"] for name in wanted]
        if len(set(lengths)) > 1 or len(set(widths)) > 1:
            shapes = zip(wanted, lengths, widths, strict=True)
            listed = ", ".join(f"{n}: length {m}, dimension {d}" for n, m, d in shapes)
            raise InputError(
                f"{model_name}: the sequences must share one length and one dimension ({listed}). "
                "Name those that do in ssl_sequences."
            )
        self.sequences = wanted
        self.dim = widths[0]  # K
        for table in dict.fromkeys(self.tables(model)):
            keep_dense(table)

    def tables(self, model: BaseModel) -> list[nn.Module]:
        """The J modules that embed the sequences (shared ones appear under every name)."""
        return self._tables(model, self.sequences)

    def _tables(self, model: BaseModel, names: list[str]) -> list[nn.Module]:
        layers = [model.get_submodule(place).embedding_layers for place in self._places]
        return [side_by_side([layer[name] for layer in layers]) for name in names]

    def read(self, model: BaseModel, inputs: dict[str, Tensor], beside: bool = False) -> Behavior:
        """The behaviors of a batch.

        Args:
            model: the one that this was made for.
            inputs: (B, L) id columns, and what else the batch has.
            beside: whether another loss sends the tables a gradient in the same step. To theirs,
                which is as large as a table, ours is then added row by row where the batch is
                small, and no second one of that size is made.
        """
        columns = model.get_inputs({name: inputs[name] for name in self.sequences})
        return Behavior([columns[name] for name in self.sequences], self.tables(model), beside)


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


def _negatives(model: BaseModel) -> set[str]:
    """Fields that the model keeps as its negatives, in `neg_seq_field` or the like."""
    return {f for name, value in vars(model).items() if "neg" in name for f in flat(value)}


def flat(fields: Any) -> list[str]:
    """The names in a field, a group of fields, or a list of both."""
    if isinstance(fields, str):
        return [fields]
    if isinstance(fields, list | tuple):
        return [name for each in fields for name in flat(each)]
    return []


def _width(table: nn.Module) -> int:
    """The dimension of a table's output."""
    if isinstance(table, _SideBySide):
        return sum(_width(each) for each in table.tables)
    if isinstance(table, PretrainedEmbedding):
        if table.proj is not None:
            return table.proj.out_features
        return table.pretrain_embedding.embedding_dim
    return getattr(table, "embedding_dim", 0)


@lru_cache(maxsize=256)
def _multipliers(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(2111_15068)
    return torch.randint(-(2**62), 2**62, (count,), generator=generator)
