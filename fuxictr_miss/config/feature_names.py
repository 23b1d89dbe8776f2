"""Names that a feature can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fuxictr_miss.errors import InputError


def names_of(column: Mapping[str, Any]) -> list[Any]:
    """The names of an entry of `feature_cols`: a list of them shares its settings."""
    names = column.get("name", [])
    return list(names) if isinstance(names, list | tuple) else [names]


def check_feature_name(name: str) -> None:
    """PyTorch keeps a feature's table as an attribute of a module.

    Raises:
        InputError: it cannot keep one of this name.
    """
    from torch import nn  # late: most commands check no name

    if "." in name or hasattr(nn.ModuleDict(), name):
        why = "has a dot in its name" if "." in name else "has the name of a part of nn.ModuleDict"
        raise InputError(
            f"Feature {name!r} {why}, so PyTorch cannot hold its embedding: rename the column, in "
            "the data and in the config."
        )
