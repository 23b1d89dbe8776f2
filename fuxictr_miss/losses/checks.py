"""Input checks of the losses; each error is one sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from fuxictr_miss.errors import InputError

_SHAPES = {2: "(B, D)", 3: "(P, B, D)"}


def check_views(names: str, first: Tensor, second: Tensor, dimensions: tuple[int, ...]) -> None:
    """Refuse views of different or wrong shapes or dtypes."""
    if first.shape != second.shape or first.dim() not in dimensions:
        raise InputError(
            f"{names} must both be {' or '.join(_SHAPES[d] for d in dimensions)}, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}."
        )
    if first.dtype != second.dtype or not first.is_floating_point():
        raise InputError(
            f"{names} must be of one floating-point dtype, got {first.dtype} and {second.dtype}."
        )


def check_masks(views: Tensor, group: Tensor | None, mask: Tensor | None) -> None:
    """Refuse a group or a mask that does not fit (B, D) or (P, B, D) views."""
    rows, pairs = tuple(views.shape[-2:-1]), tuple(views.shape[:-1])
    if group is not None and (group.shape != rows or group.is_floating_point()):
        raise InputError(
            f"group must be {rows} integers, got {tuple(group.shape)} of {group.dtype}."
        )
    if mask is not None and (mask.shape not in (rows, pairs) or mask.dtype != torch.bool):
        either = rows if rows == pairs else f"{rows} or {pairs}"
        raise InputError(
            f"mask must be {either} booleans, got {tuple(mask.shape)} of {mask.dtype}."
        )


def check_temperature(temperature: float | list[float] | Tensor, sets: int = 1) -> None:
    """Refuse anything but one positive number, or one for each of some sets of pairs."""
    if isinstance(temperature, Tensor):
        fits = temperature.numel() == 1 or temperature.shape == (sets,)
        positive = bool((temperature > 0).all())
    else:  # no tensor is made of it: a GPU would have to be waited for to know its values
        numbers = temperature if isinstance(temperature, list) else [temperature]
        fits, positive = len(numbers) in (1, sets), all(each > 0 for each in numbers)
    if not (fits and positive):
        each = f", or {sets} of them" if sets > 1 else ""
        raise InputError(f"The temperature must be a positive number{each}, got {temperature}.")


def check_size(name: str, size: int | None) -> None:
    """Refuse a number of rows below one."""
    if size is not None and size < 1:
        raise InputError(f"{name} must be 1 or more, got {size}.")
