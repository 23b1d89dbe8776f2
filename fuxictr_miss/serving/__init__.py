"""The exported artefact: write it, and score raw rows with it. Loads on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuxictr_miss.serving.export import export
    from fuxictr_miss.serving.scorer import Scorer

__all__ = ["Scorer", "export"]
_HOME = {"Scorer": "scorer", "export": "export"}


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): scoring must not wait for torch, which exporting needs."""
    if name in _HOME:
        return getattr(importlib.import_module(f"fuxictr_miss.serving.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fuxictr_miss.serving' has no attribute {name!r}")
