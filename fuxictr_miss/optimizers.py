"""Adam in two forms for FuxiCTR's models: fused, and one whose step costs what the batch costs.

Adam's step over a table of N rows reads and writes all N, though a batch looks up a few thousand of
them: with 788,166 features of 10 dimensions it is most of the step (benchmarks/large_tables.py).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.errors import InputError

SPARSE = "sparse_adam"


class FusedAdam(torch.optim.Adam):
    """PyTorch's Adam in one kernel: the same to float rounding, without a loop in Python."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        # Adam's own, without what is around it: that imports torch._dynamo (see start_up.py)
        return inspect.unwrap(torch.optim.Adam.step)(self, closure)


class RowAdam(FusedAdam):
    """Adam whose step touches only the rows of a table that the batch has looked up.

    Adam moves every row at every step, for some hundred steps after it was last looked up, by a
    first moment that fades. Here a row gets these moves together, just before it is looked up again
    (`settle`), so that the batch sees what Adam would have made of it. The sum over the missed
    steps s = t + 1 ... n, of a row with moments m and v after its step t, has one factor for all
    rows of that t:

        sum lr / (1 - β1^s) m β1^(s-t) / (sqrt(v β2^(s-t) / (1 - β2^s)) + ε)
          = m / (sqrt(v) + ε e(t)) d(t),  d(t) = sum lr sqrt(1 - β2^s) / (1 - β1^s) (β1/√β2)^(s-t)

    which is exact but for ε, the mean of whose factors is e(t): where gradients are above 1e-4 the
    error is below 1e-5 of the move, at 1e-6 it is 1e-3.

    The price: between two steps in `train()` mode the weights of other rows than the batch's are
    behind. `RowTable`, which `set_optimizer` makes of every table, settles all of them before it
    goes to `eval()`, is saved, or is loaded.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.is_sparse:
                    self._step_rows(parameter, group)
                    parameter.grad = None  # done: what is left is Adam's
                else:
                    self.settle(parameter)
        return super().step(closure)

    @torch.no_grad()
    def settle(self, table: Tensor, ids: Tensor | None = None) -> None:
        """Bring the rows `ids`, of any shape, to where Adam would have them; None: all rows."""
        state = self.state.get(table, {})
        debt: _Debt | None = state.get("debt")
        if debt is None:
            return
        rows = torch.arange(len(table), device=table.device) if ids is None else ids.flatten()
        rows = rows[debt.paid[rows] < debt.steps].unique()
        if len(rows):
            factor, epsilon, fade1, fade2 = debt.of(rows, table.dtype)
            first, second = state["exp_avg"][rows], state["exp_avg_sq"][rows]
            scale = second.sqrt().add_(epsilon)
            table.index_copy_(0, rows, table[rows].addcdiv_(first * factor, scale, value=-1))
            state["exp_avg"].index_copy_(0, rows, first.mul_(fade1))
            state["exp_avg_sq"].index_copy_(0, rows, second.mul_(fade2))
            debt.paid[rows] = debt.steps
        if ids is None:
            del state["debt"]
            table.settles = None  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The state of an Adam at the same step."""
        for table in list(self.state):
            self.settle(table)
        return super().state_dict()

    def _step_rows(self, table: Any, group: dict[str, Any]) -> None:
        gradient = table.grad.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        owner = getattr(table, "settles", None)
        if owner not in (None, self):  # pretraining has an optimizer of its own
            owner.settle(table)
        self.settle(table, rows)
        state = self.state[table]
        if not state:  # by the names of Adam's own
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(table)
            state["exp_avg_sq"] = torch.zeros_like(table)
        if "debt" not in state:
            state["debt"] = _Debt(table, group)
            table.settles = self
        state["step"] += 1
        step, (beta1, beta2) = int(state["step"]), group["betas"]
        bias1, bias2 = 1 - beta1**step, math.sqrt(1 - beta2**step)
        first = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        second = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"].index_copy_(0, rows, first)
        state["exp_avg_sq"].index_copy_(0, rows, second)
        scale = second.sqrt_().div_(bias2).add_(group["eps"])
        moved = table[rows].addcdiv_(first, scale, value=-group["lr"] / bias1)
        table.index_copy_(0, rows, moved)  # index_add_ takes four times as long
        state["debt"].add_step(group["lr"] * bias2 / bias1, bias2, rows)


class _Debt:
    """What Adam has done to a table's rows since each of them was last brought up to date.

    Args:
        table: (rows, K).
        group: its β1, β2 and ε.
    """

    faded = 400  # steps after which a first moment moves nothing: (β1/√β2)^400 < 1e-18

    def __init__(self, table: Tensor, group: dict[str, Any]) -> None:
        self.betas, self.eps = group["betas"], group["eps"]
        self.steps = 0
        self.paid = torch.zeros(len(table), dtype=torch.int32, device=table.device)  # t of each row
        self.sums = torch.zeros(
            2, 1024, dtype=torch.float64, device=table.device
        )  # d(t), d(t) e(t)

    def add_step(self, rate: float, bias2: float, rows: Tensor) -> None:
        """A step with lr sqrt(1 - β2^s) / (1 - β1^s) = `rate`, in which `rows` had a gradient."""
        self.steps += 1
        self.paid[rows] = self.steps
        if self.steps == self.sums.shape[1]:
            self.sums = torch.cat([self.sums, torch.zeros_like(self.sums)], dim=1)
        oldest = max(0, self.steps - self.faded)
        beta1, beta2 = self.betas
        age = torch.arange(self.steps - oldest, 0, -1, dtype=torch.float64, device=self.paid.device)
        term = rate * (beta1 / math.sqrt(beta2)) ** age
        self.sums[:, oldest : self.steps] += torch.stack([term, term * bias2 * beta2 ** (-age / 2)])

    def of(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """d, ε e, and what fades the two moments, each (rows, 1)."""
        paid = self.paid[rows].long()
        factor, weighted = self.sums[:, paid]
        age = (self.steps - paid).double()
        fades = [beta**age for beta in self.betas]
        parts = [factor, self.eps * weighted / factor, *fades]
        return tuple(each.to(dtype).unsqueeze(1) for each in parts)


class RowTable(nn.Embedding):
    """An embedding table that shows its rows as Adam would have them by now."""

    def settle(self, ids: Tensor | None = None) -> None:
        optimizer = getattr(self.weight, "settles", None)
        if optimizer is not None:
            optimizer.settle(self.weight, ids)

    def forward(self, ids: Tensor) -> Tensor:
        self.settle(ids)
        return super().forward(ids)

    def train(self, mode: bool = True) -> RowTable:
        if not mode:
            self.settle()
        return super().train(mode)

    def _save_to_state_dict(self, *args: Any) -> None:
        self.settle()
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.settle()
        super()._load_from_state_dict(*args)


def known_to_fuxictr(params: Mapping[str, Any]) -> dict[str, Any]:
    """`params` with the optimizer that a model's constructor can make; `set_optimizer` follows."""
    return {**params, "optimizer": "adam"} if params["optimizer"] == SPARSE else dict(params)


def set_optimizer(model: BaseModel, name: str) -> None:
    """Replace a new model's Adam by the form that `name` asks for; learning rates stay.

    Args:
        model: plain or enhanced, built with `optimizer: adam`, not trained yet.
        name: "adam" for `FusedAdam`, "sparse_adam" for `RowAdam` with sparse gradients of all
            embedding tables; with any other name the model keeps what FuxiCTR gave it.

    Raises:
        InputError: "sparse_adam" with a regularizer of whole tables.
    """
    if name.lower() not in ("adam", SPARSE):
        return
    groups = [
        {key: group[key] for key in ("params", "lr")} for group in model.optimizer.param_groups
    ]
    rate = groups[0]["lr"]
    if name != SPARSE:
        model.optimizer = FusedAdam(groups, rate)
        return
    if model._embedding_regularizer:
        raise InputError(
            "embedding_regularizer makes a gradient of every row of every table, which sparse_adam "
            "is to avoid: set it to 0, or the optimizer to adam."
        )
    model._embedding_regularizer = None  # 0. would, with a net_regularizer, make zeros of that size
    for table in _tables(model):
        table.__class__ = RowTable
        table.sparse = True
        table.weight.register_post_accumulate_grad_hook(_sum_rows)
    model.optimizer = RowAdam(groups, rate)


def _tables(model: BaseModel) -> list[nn.Embedding]:
    """The embedding tables of all features, each once, those that are frozen for good left out."""
    layers = [module for module in model.modules() if isinstance(module, FeatureEmbeddingDict)]
    inside = dict.fromkeys(module for layer in layers for module in layer.modules())
    return [each for each in inside if isinstance(each, nn.Embedding) and each.weight.requires_grad]


def _sum_rows(table: Tensor) -> None:
    """One gradient a row, once a step; a table looked up three times comes with three."""
    if table.grad is not None and table.grad.is_sparse:
        table.grad = table.grad.coalesce()


@torch.library.impl("aten::linalg_vector_norm", ("SparseCPU", "SparseCUDA"))
def _norm_of_sparse(
    gradient: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """What PyTorch 2.13 lacks for `clip_grad_norm_`, which FuxiCTR calls on all gradients."""
    if dim is not None or keepdim:
        raise NotImplementedError("The norm of a sparse tensor is one over all its values.")
    return torch.linalg.vector_norm(gradient.coalesce().values(), ord, dtype=dtype)
