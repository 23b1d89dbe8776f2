"""Names to classes: "DIN" is a backbone, "DIN_MISS" a backbone with a self-supervised method."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from fuxictr.pytorch.models import BaseModel

from fuxictr_miss import model_zoo
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.fuxictr_fixes.zoo import Zoo
from fuxictr_miss.methods.base import ClassT, list_methods, refuse_another
from fuxictr_miss.mixin import enhance

DEFAULT_MODELS = {"MISS": "DIN_MISS"}  # the paper's MISS is DIN-MISS

_models: dict[str, type[BaseModel]] = {}


def register_model(name: str) -> Callable[[ClassT], ClassT]:
    """Class decorator that registers a backbone of your own under `name`.

    Raises:
        InputError: the class is not a FuxiCTR model, or the name is invalid or taken.

    Example:
        >>> import fuxictr_miss as fm
        >>> from fuxictr.pytorch.models import BaseModel
        >>> @fm.register_model("Mine")
        ... class Mine(BaseModel): ...
        >>> fm.get_model("Mine_MISS").__name__
        'Mine_MISS'
    """

    def register(model: ClassT) -> ClassT:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise InputError(f"register_model takes a class derived from BaseModel, got {model}.")
        stem, _, ending = name.rpartition("_")
        if not name.isidentifier() or (stem and ending in list_methods()):
            raise InputError(
                f"A model cannot be called {name!r}: use letters, digits and _, and do not "
                "end in _ and a method's name."
            )
        refuse_another(f"model {name}", _models.get(name), model)
        if name in {*_own_names(), *DEFAULT_MODELS}:
            raise InputError(f"Model {name} exists already: register yours under another name.")
        _models[name] = model
        return model

    return register


def list_models(zoo: str | Path | None = None) -> list[str]:
    """The names of all backbones and their enhanced variants, sorted.

    Args:
        zoo: as in `get_model`.

    Example:
        >>> import fnmatch
        >>> import fuxictr_miss as fm
        >>> fnmatch.filter(fm.list_models(), "DIN*SS")
        ['DIN_MISS']
    """
    backbones = _own_names() | set(_models)
    if zoo is not None:
        backbones.update(Zoo(zoo).names)
    enhanced = [f"{name}_{method}" for name in backbones for method in list_methods()]
    return sorted([*backbones, *enhanced, *DEFAULT_MODELS])


def get_model(name: str, zoo: str | Path | None = None) -> type[BaseModel]:
    """Return the class of a model: "DIN", "DIN_MISS", "MISS" (an alias of DIN_MISS), ...

    Args:
        name: `<backbone>` or `<backbone>_<method>`.
        zoo: folder or importable package whose backbones take precedence over ours, for example
            a checkout of FuxiCTR.

    Raises:
        InputError: there is no such model (the message lists the valid names, the closest first),
            or it cannot be imported.

    Example:
        >>> import fuxictr_miss as fm
        >>> fm.get_model("MISS") is fm.get_model("DIN_MISS")
        True
    """
    wanted = DEFAULT_MODELS.get(name, name)
    place = None if zoo is None else Zoo(zoo)
    backbone = _find_backbone(wanted, place)
    if backbone is not None:
        return backbone
    stem, _, ending = wanted.rpartition("_")
    if ending in list_methods():
        backbone = _find_backbone(stem, place)
        if backbone is not None:
            return enhance(backbone, ending)
    raise unknown("model", name, list_models(zoo))


def _own_names() -> set[str]:
    """The models of our own `model_zoo`; its MISS is only an alias of DIN_MISS."""
    # FuxiCTR's wheel may share the folder in site-packages; its models have no model.py
    files = (file for folder in model_zoo.__path__ for file in Path(folder).glob("*/model.py"))
    return {file.parent.name for file in files} - set(DEFAULT_MODELS)


def _find_backbone(name: str, zoo: Zoo | None) -> type[BaseModel] | None:
    if name in _models:
        return _models[name]
    if zoo is not None and name in zoo.names:
        return zoo.load(name)
    if name in _own_names():
        return getattr(importlib.import_module(f"{model_zoo.__name__}.{name}"), name)
    if zoo is not None and (name in zoo.models or name in zoo.unreadable):
        return zoo.load(name)  # raises, and says why
    return None
