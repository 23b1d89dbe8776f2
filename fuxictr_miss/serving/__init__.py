"""The exported artefact: write it, and score raw rows with it. Loads on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fuxictr_miss.errors import InputError

if TYPE_CHECKING:
    from fuxictr_miss.serving.artefact import export
    from fuxictr_miss.serving.scorer import Scorer

__all__ = ["Scorer", "export"]
_HOME = {"Scorer": "scorer", "export": "artefact"}

_EXTRAS = {"onnx": "export", "onnx_ir": "export", "onnxscript": "export", "onnxruntime": "serving"}


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): scoring must not wait for torch, which exporting needs."""
    if name not in _HOME:
        raise AttributeError(f"module 'fuxictr_miss.serving' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"fuxictr_miss.serving.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise InputError(
            f"serving.{name} needs the package {error.name}: pip install "
            f"'fuxictr_miss[{_EXTRAS[error.name]}]'."
        ) from error
