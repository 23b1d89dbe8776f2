"""MISS (arXiv 2111.15068) on any FuxiCTR model. The public names; everything loads on first use."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuxictr_miss import data, losses, serving
    from fuxictr_miss.methods.base import list_methods, register_method
    from fuxictr_miss.mixin import enhance
    from fuxictr_miss.registry import get_model, list_models, register_model

__version__ = "0.1.0"
__all__ = [
    "data",
    "enhance",
    "get_model",
    "list_methods",
    "list_models",
    "losses",
    "register_method",
    "register_model",
    "serving",
]

# polars would end a program at a column of a zone such as +05:30, even if nobody reads it
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")

_HOME = {
    "enhance": "mixin",
    "get_model": "registry",
    "list_methods": "methods.base",
    "list_models": "registry",
    "register_method": "methods.base",
    "register_model": "registry",
}


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): `--help` must not wait for torch."""
    if name in ("data", "losses", "serving"):
        return importlib.import_module(f"fuxictr_miss.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"fuxictr_miss.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fuxictr_miss' has no attribute {name!r}")
