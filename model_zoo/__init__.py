"""The backbones of the MISS paper, one package per model: `model_zoo.DIN.DIN`, ...

Class names, constructor arguments and parameter names are those of FuxiCTR's own zoo, so that
checkpoints can be exchanged. The README of each package has its paper, equations, keys and
differences.

FuxiCTR's scripts append their checkout to the path and say `from model_zoo import DIN`, which finds
this package first: it gives them the class of the checkout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fuxictr_miss  # loads nothing more until a model is asked for: serving has no method
from fuxictr_miss.errors import InputError


def __getattr__(name: str) -> Any:
    """A model by its name, from a checkout of FuxiCTR on the path if there is one."""
    if name.startswith("_"):
        raise AttributeError(name)
    places = (Path(entry, "model_zoo") for entry in sys.path)
    checkout = next((place for place in places if (place / "DIN" / "src").is_dir()), None)
    try:
        return fuxictr_miss.get_model(name, zoo=checkout)
    except InputError as error:
        raise AttributeError(str(error)) from error
