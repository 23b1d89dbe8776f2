"""The processes of a run started by torchrun; all that they exchange, but rows of sharded tables.

W processes, the ranks 0 to W - 1, hold the same weights and see the same global batches in the same
seeded order. Of every batch each rank computes a share of the rows. What a rank returns is a mean
over its own rows; the mean over ranks, weighted by their rows, is what one process would compute.
Without torchrun every function here returns at once, with its argument or with a constant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fuxictr_miss.errors import InputError

T = TypeVar("T")

_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # it sets these variables
_PATIENCE = timedelta(hours=12)  # rank 0 may encode a large log while the others wait
_LOST = "Another process of this run has ended, so this one cannot go on."


class _World(NamedTuple):
    rank: int
    size: int
    control: Any  # group for Python objects, always gloo
    data: Any  # group for tensors of a step; DistributedDataParallel has another, the default one


class Share(NamedTuple):
    """The rows of a global batch that each rank computes: contiguous, at least one, none twice."""

    edges: tuple[int, ...]  # rank r computes the rows edges[r] to edges[r + 1] - 1
    rank: int
    gather: bool = True  # whether a row's negatives come from all ranks

    @property
    def total(self) -> int:
        """Rows of the global batch."""
        return self.edges[-1]

    @property
    def own(self) -> slice:
        """This rank's rows in it."""
        return slice(self.edges[self.rank], self.edges[self.rank + 1])

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.own.stop - self.own.start


_world: _World | None = None
_share: Share | None = None


# ------------------------------------------------------------------------ the processes


def world_size() -> int:
    """W, the number of processes."""
    return _world.size if _world else 1


def rank() -> int:
    """This process's number, from 0; rank 0 writes the files."""
    if _world:
        return _world.rank
    return int(os.environ["RANK"]) if _launched() else 0


def on_this_machine() -> int:
    """How many of the processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if _world else 1


def _launched() -> bool:
    return all(os.environ.get(name) for name in _BY_TORCHRUN) and os.environ["WORLD_SIZE"] != "1"


@contextmanager
def session(gpu: int = -1) -> Iterator[int]:
    """Join the other processes that torchrun has started; leave them at the end.

    A process group that exists already, as in a worker of Ray Train, is used as it is.

    Args:
        gpu: -1: a process computes on the CPU, and they communicate by gloo; otherwise each has the
            GPU of its number on its machine, and they communicate by NCCL.

    Yields:
        The index of this process's GPU, or -1.

    Raises:
        InputError: another process has ended. Any error of this process has an attribute
            `reported` then: whether another process reports one already.
    """
    global _world
    given = dist.is_available() and dist.is_initialized()
    if _world is not None or not (given or _launched()):
        yield gpu
        return
    local = int(os.environ.get("LOCAL_RANK", 0)) if gpu >= 0 else -1
    wanted, there = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if local >= 0 and wanted > there:
        raise InputError(
            f"{wanted} processes of this machine need a GPU each, and it has {there}: start fewer, "
            "or set --gpu -1."
        )
    if local >= 0:
        torch.cuda.set_device(local)
    store = None
    if not given:
        store, number, size = next(dist.rendezvous("env://"))
        backend = "gloo" if local < 0 else "nccl"
        dist.init_process_group(
            backend, store=dist.PrefixStore("groups", store), rank=number, world_size=size,
            timeout=_PATIENCE,
        )  # fmt: skip
    groups = dist.new_group(backend="gloo", timeout=_PATIENCE), dist.new_group(timeout=_PATIENCE)
    _world = _World(dist.get_rank(), dist.get_world_size(), *groups)
    try:
        yield local
    except BaseException as error:
        shown = InputError(_LOST) if is_loss(error) else error
        shown.reported = _is_reported(store)  # type: ignore[attr-defined]
        raise shown from error.__cause__ if shown is error else error
    finally:
        _world = None
        if not given:
            dist.destroy_process_group()


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process has ended."""
    if _world is None:
        return False
    by_gloo = isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    return by_gloo or isinstance(error, dist.DistError)


def _is_reported(store: Any) -> bool:
    """Whether another process has reported an error before."""
    try:
        return store is not None and store.add("errors", 1) > 1
    except RuntimeError:  # torchrun itself has ended
        return False


def together(compute: Callable[[], T]) -> list[T]:
    """What every rank computes, by rank; an error of one is an error of all.

    Raises:
        InputError: another rank has failed; the message is its own.
    """
    if _world is None:
        return [compute()]
    result, failed = None, None
    try:
        result = compute()
    except Exception as error:
        failed = error
    message = failed if isinstance(failed, InputError | None) else InputError(str(failed))
    everyone: list[Any] = [None] * _world.size
    dist.all_gather_object(everyone, (result, message), group=_world.control)
    if failed is not None:
        raise failed
    for _, message in everyone:
        if message is not None:
            raise message
    return [each for each, _ in everyone]


def first(compute: Callable[[], T]) -> T:
    """What rank 0 computes, on every rank; the others wait, and fail if it fails."""
    if _world is None or _world.rank == 0:
        return together(compute)[0]
    return together(lambda: None)[0]  # type: ignore[return-value]


def barrier() -> None:
    """Wait for the other processes."""
    together(lambda: None)


# ------------------------------------------------------------------------ rows of a batch


def share_of(total: int, block_size: int | None = None, gather: bool = True) -> Share | None:
    """This rank's rows of a global batch.

    If a batch has at least as many blocks as there are ranks, a rank gets whole blocks.

    Args:
        total: rows of the batch.
        block_size: the most rows that are contrasted with one another; None: all.
        gather: whether a block that several ranks share is one block all the same.

    Returns:
        None if the rank computes the whole batch: there is only one process, or less than two rows
        for each. Ranks that all compute the whole batch have its gradient as their mean.
    """
    if _world is None or total < 2 * _world.size:
        return None
    blocks = -(-total // (block_size or total))
    if blocks < _world.size:
        edges = [total * r // _world.size for r in range(_world.size + 1)]
    else:
        rows = -(-total // blocks)  # of a block
        edges = [min(total, blocks * r // _world.size * rows) for r in range(_world.size + 1)]
    return Share(tuple(edges), _world.rank, gather)


def share() -> Share | None:
    """The share that is being computed; None: a whole batch."""
    return _share


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """Compute on the rows of a share."""
    global _share
    before, _share = _share, share
    try:
        yield
    finally:
        _share = before


def fraction() -> float:
    """How much this rank's rows count in a mean over the ranks; the fractions sum up to 1."""
    return _share.rows / _share.total if _share else 1 / world_size()


def number_of_pairs(mask: Tensor, least: float = 1) -> Tensor:
    """What a sum over this rank's pairs is divided by, so that the weighted mean over ranks is the
    mean over all pairs.

    Args:
        mask: booleans, which pairs exist, or their weights.
        least: the smallest sum of them, so that nothing is divided by 0.
    """
    count = mask.sum()
    if _share is None:
        return count.clamp(min=least)
    return total(count).clamp(min=least) * fraction()


def largest(value: int) -> int:
    """The largest of the ranks' numbers."""
    if _world is None:
        return value
    number = torch.tensor(value)
    dist.all_reduce(number, dist.ReduceOp.MAX, group=_world.control)
    return int(number)


def weighted(value: Tensor) -> Tensor:
    """A mean over this rank's rows, scaled so that the ranks' plain mean is that over all rows."""
    return value if _world is None else value * (fraction() * _world.size)


def mean(values: Tensor) -> Tensor:
    """The plain mean of the ranks' tensors, without a gradient."""
    return values if _world is None else total(values) / _world.size


def total(values: Tensor) -> Tensor:
    """The sum of the ranks' tensors, without a gradient."""
    if _world is None:
        return values
    summed = values.detach().clone()
    dist.all_reduce(summed, group=_world.data)
    return summed


def gather(x: Tensor, dim: int = 0, gradient: bool = True) -> Tensor:
    """The rows of all ranks, in the order of the global batch.

    Args:
        x: this rank's rows along `dim`, or the same multiple of them on every rank.
        dim: their axis.
        gradient: whether a rank's rows get their gradient from every rank.

    Returns:
        A tensor that is as much longer as the global batch is.
    """
    assert _share is not None
    times = x.shape[dim] // _share.rows
    sizes = [times * (stop - start) for start, stop in pairwise(_share.edges)]
    if not gradient:
        return _gathered(x.detach(), dim, sizes)
    return _Gather.apply(x, dim, sizes, _share.rank)


def mesh() -> dist.DeviceMesh:
    """All ranks in a row, as torch.distributed.tensor wants them."""
    assert _world is not None
    kind = "cuda" if dist.get_backend(_world.data) == "nccl" else "cpu"
    return dist.DeviceMesh.from_group(_world.data, kind)


def gather_any(x: Tensor) -> list[Tensor]:
    """The CPU tensors (rows,) of all ranks, whose numbers of rows may differ."""
    assert _world is not None
    sizes = together(lambda: len(x))
    return list(_gathered(x, 0, sizes, _world.control).split(sizes))


def _gathered(x: Tensor, dim: int, sizes: list[int], group: Any = None) -> Tensor:
    assert _world is not None
    x = x.movedim(dim, 0)
    padded = x.new_zeros(max(sizes), *x.shape[1:])
    padded[: len(x)] = x
    everyone = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(everyone, padded, group=group or _world.data)
    rows = [each[:size] for each, size in zip(everyone, sizes, strict=True)]
    return torch.cat(rows).movedim(0, dim)


class _Gather(torch.autograd.Function):
    """torch's own gather with a gradient has another name in every version, and needs rows of equal
    number; this one needs neither."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, sizes: list[int], number: int) -> Tensor:
        ctx.dim, ctx.start, ctx.rows = dim, sum(sizes[:number]), sizes[number]
        return _gathered(x, dim, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return total(gradient.contiguous()).narrow(ctx.dim, ctx.start, ctx.rows), None, None, None


# ------------------------------------------------------------------------ a step


class _Loss(nn.Module):
    """A loss as a module, as DistributedDataParallel wants it, with the parameters it trains."""

    def __init__(self, compute: Callable[[Any], Tensor], parameters: Iterable[nn.Parameter]):
        super().__init__()
        self.compute = compute
        self.trained = nn.ParameterList(parameters)

    def forward(self, batch: Any) -> Tensor:
        return weighted(self.compute(batch))  # DistributedDataParallel takes the ranks' plain mean


def synchronised(
    compute: Callable[[Any], Tensor], parameters: list[nn.Parameter]
) -> Callable[[Any], Tensor]:
    """A loss whose gradient is that of the global batch, on every rank.

    Args:
        compute: the loss of this rank's rows, a mean over them.
        parameters: what it trains. Another loss needs a call of its own, and so does this one when
            other parameters are frozen.

    Returns:
        `compute` itself if there is one process; otherwise its value is scaled by the rows.
    """
    if _world is None:
        return compute
    if not parameters:  # all are rows of sharded tables
        return _Loss(compute, parameters)
    # a step may leave parameters out: by ssl_every, or if no row of a batch has a history
    return DistributedDataParallel(
        _Loss(compute, parameters), find_unused_parameters=True, gradient_as_bucket_view=True
    )


def seed_epoch(seed: int, epoch: int) -> None:
    """Give each rank random numbers of its own for a model's dropout, the same after a resume."""
    if _world is not None:
        torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + _world.rank)
