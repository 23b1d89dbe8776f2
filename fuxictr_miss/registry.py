"""Names to classes: "DIN" is a backbone, "DIN_MISS" a backbone with a self-supervised method."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from fuxictr.pytorch.models import BaseModel

from fuxictr_miss.enhancer import enhance
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.methods.base import ClassT, list_methods, refuse_another
from fuxictr_miss.zoo import Zoo

DEFAULT_MODELS = {"MISS": "DIN_MISS"}  # the paper's MISS is DIN-MISS

_models: dict[str, type[BaseModel]] = {}


def register_model(name: str) -> Callable[[ClassT], ClassT]:
    """Class decorator: make a backbone of your own known under `name`.

    Raises:
        InputError: the class is no FuxiCTR model, or another model has that name.
    """

    def register(model: ClassT) -> ClassT:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise InputError(f"register_model takes a class derived from BaseModel, got {model}.")
        stem, _, ending = name.rpartition("_")
        if not name.isidentifier() or (stem and ending in list_methods()):
            raise InputError(
                f"A model cannot be called {name!r}: a name is letters, digits and _, and does not "
                "end in _ and a method's name."
            )
        refuse_another(f"model {name}", _models.get(name), model)
        if name in {*_own_names(), *DEFAULT_MODELS}:
            raise InputError(f"There is a model {name} already. Register yours by another name.")
        _models[name] = model
        return model

    return register


def list_models(zoo: str | Path | None = None) -> list[str]:
    """Names of all backbones and their enhanced variants, sorted."""
    backbones = _own_names() | set(_models)
    if zoo is not None:
        backbones.update(Zoo(zoo).names)
    enhanced = [f"{name}_{method}" for name in backbones for method in list_methods()]
    return sorted([*backbones, *enhanced, *DEFAULT_MODELS])


def get_model(name: str, zoo: str | Path | None = None) -> type[BaseModel]:
    """The class of a model: "DIN", "DIN_MISS", "MISS" (which is DIN_MISS), ...

    Args:
        name: a backbone, or a backbone, "_" and a method.
        zoo: folder or importable package in which backbones are looked up before our own; a
            checkout of FuxiCTR will do.

    Raises:
        InputError: no such model, and then names the closest and all valid ones; or one that
            cannot be imported.
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
    """The packages in our `model_zoo`, which is the one that is imported from here on.

    FuxiCTR's wheel leaves folders in site-packages that Python takes for a package of this name,
    unless ours lies there too or comes first on the path.
    """
    import model_zoo

    if model_zoo.__file__ is None:
        folder = Path(__file__).resolve().parents[1] / "model_zoo"
        spec = importlib.util.spec_from_file_location("model_zoo", folder / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["model_zoo"] = model_zoo = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(model_zoo)
    files = (file for folder in model_zoo.__path__ for file in Path(folder).glob("*/model.py"))
    # a plain install has FuxiCTR's folders beside ours, and model_zoo/MISS is DIN_MISS
    return {file.parent.name for file in files} - set(DEFAULT_MODELS)


def _find_backbone(name: str, zoo: Zoo | None) -> type[BaseModel] | None:
    if name in _models:
        return _models[name]
    if zoo is not None and name in zoo.names:
        return zoo.load(name)
    if name in _own_names():
        return getattr(importlib.import_module(f"model_zoo.{name}"), name)
    if zoo is not None and (name in zoo.models or name in zoo.unreadable):
        return zoo.load(name)  # which says why it cannot
    return None
