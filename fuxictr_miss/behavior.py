"""The behavior tensor C (Eq. 18), its mask, and the backbone's table that embeds it."""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.layers.embeddings.pretrained_embedding import PretrainedEmbedding
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import InputError, unknown


class Behavior:
    """The behaviors of a batch, embedded only where a method asks for them.

    Behaviors are counted from 0 (the oldest) to `length` - 1, whatever the padding: a position
    at which any sequence is padding is not a behavior, on either side or in between.

    Args:
        ids: (B, J, L) token ids of the J sequences; 0 is padding.
        tables: J modules that embed ids to K dimensions.
    """

    def __init__(self, ids: Tensor, tables: list[nn.Module]) -> None:
        self.ids = ids
        self.tables = tables
        self.mask = (ids != 0).all(dim=1)  # (B, L)
        self._count = self.mask.cumsum(dim=1)  # (B, L): behaviors up to and with a position

    @cached_property
    def length(self) -> Tensor:
        """(B,) number of behaviors."""
        return self._count[:, -1]

    @cached_property
    def group(self) -> Tensor:
        """(B,) equal for rows of equal history: a 64-bit linear hash of all ids."""
        return (self.ids * _multipliers(*self.ids.shape[1:]).to(self.ids.device)).sum(dim=(1, 2))

    @cached_property
    def tensor(self) -> Tensor:
        """C of Eq. 18, (B, J, L, K), behaviors first; rows past the history's end are zero."""
        everything = torch.arange(self.ids.shape[2], device=self.ids.device)
        return self.embed(everything.expand(len(self.ids), -1))

    def embed(self, behaviors: Tensor) -> Tensor:
        """Embeddings of chosen behaviors, un-pooled.

        Args:
            behaviors: (B, S) numbers of behaviors; past the end of a history stands for padding.

        Returns:
            (B, J, S, K); padding is zero and sends no gradient into the table.
        """
        position = torch.searchsorted(self._count, behaviors + 1)  # (B, S), L where past the end
        real = position < self.ids.shape[2]
        position = torch.where(real, position, 0)
        columns = []
        for j, table in enumerate(self.tables):
            ids = self.ids[:, j].gather(1, position) * real
            embedding = table(ids)
            columns.append(embedding * real.unsqueeze(-1) if _moves_padding(table) else embedding)
        return torch.stack(columns, dim=1)


class BehaviorSource:
    """Finds in a backbone the sequences and tables from which a batch's `Behavior` is made.

    Of all `FeatureEmbeddingDict`s the one with the widest tables is taken (the first of equals):
    the dimension-1 tables of a linear part carry no interest.

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
        wanted = list(sequences or available)
        model_name = type(model).__name__
        if not wanted:
            raise InputError(
                f"{model_name}: the feature map has no sequence feature to learn from. Add one of "
                "type 'sequence' (the behavior history) to feature_cols."
            )
        widths = {
            place: [_width(module.embedding_layers[name]) for name in wanted]
            for place, module in model.named_modules()
            if isinstance(module, FeatureEmbeddingDict)
            and all(name in module.embedding_layers for name in wanted)
        }
        place = max(widths, key=lambda each: min(widths[each]), default=None)
        if place is None or min(widths[place]) < 2:
            raise InputError(
                f"{model_name} embeds {', '.join(wanted)} in no table of more than one dimension, "
                "so there is nothing to enhance. Use a backbone with an embedding table."
            )
        lengths = [features[name]["max_len"] for name in wanted]
        if len(set(lengths)) > 1 or len(set(widths[place])) > 1:
            shapes = zip(wanted, lengths, widths[place], strict=True)
            listed = ", ".join(f"{n}: length {m}, dimension {d}" for n, m, d in shapes)
            raise InputError(
                f"{model_name}: the sequences must share one length and one dimension ({listed}). "
                "Name those that do in ssl_sequences."
            )
        self.sequences = wanted
        self.dim = widths[place][0]  # K
        self._place = place

    def tables(self, model: BaseModel) -> list[nn.Module]:
        """The J modules that embed the sequences (shared ones appear under every name)."""
        layers = model.get_submodule(self._place).embedding_layers
        return [layers[name] for name in self.sequences]

    def read(self, model: BaseModel, inputs: dict[str, Tensor]) -> Behavior:
        """The behaviors of a batch `inputs` of (B, L) id columns."""
        columns = model.get_inputs({name: inputs[name] for name in self.sequences})
        ids = torch.stack([columns[name].long() for name in self.sequences], dim=1)
        return Behavior(ids, self.tables(model))


def _width(table: nn.Module) -> int:
    """The dimension of a table's output."""
    if isinstance(table, PretrainedEmbedding):
        if table.proj is not None:
            return table.proj.out_features
        return table.pretrain_embedding.embedding_dim
    return getattr(table, "embedding_dim", 0)


def _moves_padding(table: nn.Module) -> bool:
    """Whether the table may answer padding with something else than a frozen zero row."""
    return not (isinstance(table, nn.Embedding) and table.padding_idx == 0)


@lru_cache(maxsize=256)
def _multipliers(sequences: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(2111_15068)
    return torch.randint(-(2**62), 2**62, (sequences, length), generator=generator)
