"""Embedding tables whose rows are spread over the processes of torchrun: `table_sharding: rowwise`.

Of a table with V rows each of W processes holds V / W, with their gradients and their optimizer's
state, as a `torch.distributed.tensor.DTensor`. A look-up gathers the ids of all processes, each
looks up those that it holds, and each gets the vectors of its own ids; the gradient goes the same
way back. So all processes must look up at the same time, as many times.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import get_regularizer
from torch import Tensor, nn
from torch.nn import functional as F

from fuxictr_miss.distributed import processes

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

log = logging.getLogger(__name__)

MIN_ROWS = 100_000  # a smaller table costs less memory than its look-ups cost time


class ShardedEmbedding(nn.Embedding):
    """A table with a stretch of its rows on each process.

    Args:
        table: has the same values on every process.
    """

    weight: DTensor  # (V, K)

    def __init__(self, table: nn.Embedding) -> None:
        shape = table.num_embeddings, table.embedding_dim
        super().__init__(*shape, table.padding_idx, _weight=_spread(table.weight.detach()))

    def forward(self, ids: Tensor) -> Tensor:
        """The vectors (..., K) of this process's ids (...)."""
        from torch.distributed.tensor import Partial, Replicate, Shard  # late: half a second

        own = ids.flatten()
        padded = own.new_zeros(processes.largest(len(own)))  # all send as much
        padded[: len(own)] = own
        found = self._found(self._redistributed(padded, Shard(0), Replicate()))
        vectors = self._redistributed(found, Partial(), Shard(0))[: len(own)]
        if vectors.requires_grad:
            # the table sums over processes, where all other parameters have the mean
            vectors.register_hook(lambda gradient: gradient / processes.world_size())
        return vectors.unflatten(0, ids.shape)

    def _found(self, ids: Tensor) -> Tensor:
        """The vectors of all ids in this process's rows; zeros for others.

        DTensor's own look-up has a gradient of the whole table on every process.
        """
        rows, held = self.weight.to_local(), _stretch(self.num_embeddings)
        here = (ids >= held.start) & (ids < held.stop)
        padding = self.padding_idx
        if padding is not None:
            padding = padding - held.start if held.start <= padding < held.stop else None
        vectors = F.embedding((ids - held.start).where(here, 0), rows, padding)
        return vectors.masked_fill(~here[:, None], 0)

    def _redistributed(self, values: Tensor, before: Any, after: Any) -> Tensor:
        """The processes' tensors in another layout of DTensor's; the gradient goes the way back."""
        mesh = self.weight.device_mesh
        spread = self.weight.from_local(values, mesh, [before], run_check=False)
        return spread.redistribute(placements=[after]).to_local()

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        name = f"{prefix}weight"
        if name in state:
            state = {**state, name: _spread_as(state[name], self.weight)}
        super()._load_from_state_dict(state, prefix, *rest)


def shard_tables(model: BaseModel) -> None:
    """Spread the rows of a model's large trainable tables over the processes.

    Their optimizer gets them as groups of their own, in one process too, so that its state can be
    resumed on any number of them.

    Args:
        model: with the same weights on every process.
    """
    chosen: dict[nn.Embedding, str] = {}
    for module in embedding_dicts(model):
        for name, table in module.embedding_layers.items():
            if is_plain_table(table) and _is_large(table.weight):
                chosen.setdefault(table, name)
    moved: dict[nn.Module, nn.Embedding] = {table: table for table in chosen}
    if processes.world_size() > 1:
        names = ", ".join(chosen.values()) or f"no table, as all have less than {MIN_ROWS:,} rows"
        log.info("Spread over the processes, row by row: %s.", names)
        moved = dict(zip(chosen, map(ShardedEmbedding, chosen), strict=True))
        _replace_tables(model, moved)
        model.regularization_loss = partial(_regularization_loss, model)
    weights = {id(table.weight): new.weight for table, new in moved.items()}
    for weight in weights.values():
        weight.rowwise = True  # type: ignore[attr-defined]
    for group in list(model.optimizer.param_groups):
        parameters = [weights.get(id(each), each) for each in group["params"]]
        group["params"], *large = groups_of(parameters)
        for each in large:
            model.optimizer.add_param_group({**group, "params": each})


def gather_tables(model: BaseModel) -> None:
    """Give every process whole tables again, after the training."""
    shards = [module for module in model.modules() if isinstance(module, ShardedEmbedding)]
    whole = [
        nn.Embedding(
            table.num_embeddings, table.embedding_dim, table.padding_idx,
            _weight=table.weight.full_tensor(),
        )
        for table in shards
    ]  # fmt: skip
    _replace_tables(model, dict(zip(shards, whole, strict=True)))


def groups_of(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters as groups of an optimizer: a step of one kernel must not mix those of sharded
    tables with others."""
    large = [each for each in parameters if getattr(each, "rowwise", False)]
    others = [each for each in parameters if not getattr(each, "rowwise", False)]
    return [others, large] if large else [others]


def embedding_dicts(model: BaseModel) -> list[FeatureEmbeddingDict]:
    """The layers of a model that embed features."""
    return [each for each in model.modules() if isinstance(each, FeatureEmbeddingDict)]


def is_plain_table(module: nn.Module) -> TypeGuard[nn.Embedding]:
    """Whether a module is FuxiCTR's table of ids, spread or not, and nothing more."""
    return type(module) in (nn.Embedding, ShardedEmbedding)


def is_sharded(model: nn.Module) -> bool:
    """Whether processes must look up together."""
    return any(isinstance(module, ShardedEmbedding) for module in model.modules())


def own_rows(weight: Tensor) -> tuple[Tensor, slice]:
    """The rows (V', K) of a table that this process holds, and which these are."""
    if not _is_spread(weight):
        return weight, slice(0, len(weight))
    return weight.to_local(), _stretch(len(weight))


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Clip the norm of all gradients together, as `nn.utils.clip_grad_norm_` does."""
    parameters = list(parameters)
    gradients = [each.grad for each in parameters if each.grad is not None]
    own = [each.to_local() for each in gradients if _is_spread(each)]
    if not own:
        nn.utils.clip_grad_norm_(parameters, max_norm)
        return
    whole = [each for each in gradients if not _is_spread(each)]
    square = _square(whole, own[0]) + processes.total(_square(own, own[0]))
    scale = (max_norm / (square.sqrt() + 1e-6)).clamp(max=1)
    for each in (*whole, *own):
        each.mul_(scale)


def gathered(tree: Any) -> Any:
    """A state with whole tensors in place of the spread ones, to be written by rank 0.

    Every process must call it. On the others a spread tensor becomes None.
    """
    if _is_spread(tree):
        whole = tree.full_tensor()
        return whole.cpu() if processes.rank() == 0 else None
    if isinstance(tree, dict):
        copied = copy.copy(tree)  # a state_dict with its metadata
        copied.update({name: gathered(each) for name, each in tree.items()})
        return copied
    if isinstance(tree, list | tuple):
        return type(tree)(gathered(each) for each in tree)
    return tree


def spread_as(values: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Whole tensors as parts, where the parameters that they belong to are."""
    return [_spread_as(value, each) for value, each in zip(values, parameters, strict=True)]


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state in which no tensor is spread."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    parts = {
        number: {
            name: value if value.dim() == 0 else _spread_as(value, parameters[number])
            for name, value in of_one.items()
        }
        for number, of_one in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _is_spread(value: Any) -> TypeGuard[DTensor]:
    """Whether it is a DTensor; the class itself takes half a second to import."""
    return hasattr(value, "full_tensor")


def _spread_as(value: Tensor, like: Tensor) -> Tensor:
    return _spread(value.to(like.device)) if _is_spread(like) and not _is_spread(value) else value


def _spread(value: Tensor) -> DTensor:
    """The same tensor, of which each process holds a stretch of the rows."""
    from torch.distributed.tensor import DTensor, Shard  # late: half a second

    own = value[_stretch(len(value))].clone()
    return DTensor.from_local(
        own, processes.mesh(), [Shard(0)], run_check=False, shape=value.shape, stride=value.stride()
    )


def _stretch(total: int) -> slice:
    """Which of so many rows this process holds."""
    each = -(-total // processes.world_size())
    first = min(total, each * processes.rank())
    return slice(first, min(total, first + each))


def _square(tensors: list[Tensor], like: Tensor) -> Tensor:
    """The square of their norm together."""
    norms = [torch.linalg.vector_norm(each) ** 2 for each in tensors]
    return torch.stack([like.new_zeros(()), *norms]).sum()


def _regularization_loss(model: BaseModel) -> Tensor:
    """FuxiCTR's regularizers; each process computes those of the rows that it holds."""
    tables = [
        m for m in model.modules() if isinstance(m, ShardedEmbedding) and m.weight.requires_grad
    ]
    for table in tables:
        table.weight.requires_grad_(False)  # FuxiCTR passes over it
    loss = type(model).regularization_loss(model)
    for table in tables:
        table.weight.requires_grad_(True)
    for p, factor in get_regularizer(model._embedding_regularizer):
        for table in tables:
            part = factor / p * torch.norm(table.weight.to_local(), p) ** p
            constant = part.detach()
            # all processes weight the loss by their rows, which these terms do not depend on
            own = (part - constant) / (processes.fraction() * processes.world_size())
            loss = loss + processes.total(constant) + own
    return loss


def _is_large(weight: Tensor) -> bool:
    return weight.requires_grad and len(weight) >= MIN_ROWS


def _replace_tables(model: BaseModel, new: Mapping[Any, nn.Module]) -> None:
    for module in embedding_dicts(model):
        for name, table in module.embedding_layers.items():
            module.embedding_layers[name] = new.get(table, table)
