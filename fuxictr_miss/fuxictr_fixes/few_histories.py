"""Let FuxiCTR's DIEN take a batch in which one row, or none, has a history.

Fault: `interest_evolution` of FuxiCTR's DIEN (model_zoo/DIEN/src/DIEN.py, 2.3.10) squeezes its
(rows, K) result, which drops the axis of a single row, and `interest_extraction` packs no rows at
all where no history is left. A training stops at such a batch with an error of torch's.
Obsolete when DIEN squeezes one axis by its number and returns zeros for no rows.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from fuxictr_miss.fuxictr_fixes.zoo_classes import is_of_fuxictr


def tolerate_few_histories(model: Any) -> None:
    """Give DIEN's two steps the shapes that its `forward` expects; leave other models alone.

    Parameters, `state_dict` and the results for two or more histories are not affected. A second
    call has no effect.
    """
    steps = "interest_extraction", "interest_evolution"
    if is_of_fuxictr(_home_of(model, steps[0])) and not any(step in vars(model) for step in steps):
        model.interest_extraction = partial(_extract, model.interest_extraction)
        model.interest_evolution = partial(_evolve, model.interest_evolution)


def _home_of(model: nn.Module, method: str) -> type:
    """The class that defines a method; `object` if none does."""
    return next((each for each in type(model).__mro__ if method in vars(each)), object)


def _extract(step: Any, index: int, sequence: Tensor, mask: Tensor) -> tuple[Any, Tensor]:
    """Packed interests, and interests (rows, L, K) of `sequence` (rows, L, K)."""
    return step(index, sequence, mask) if len(sequence) else (None, sequence)


def _evolve(
    step: Any, index: int, packed: Any, interests: Tensor, target: Tensor, mask: Tensor
) -> Tensor:
    """The final interest (rows, K) of each history; `target` is (rows, K)."""
    return step(index, packed, interests, target, mask).view_as(target) if len(target) else target
