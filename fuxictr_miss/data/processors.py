"""The user's own feature processor: the class whose methods `preprocess:` names."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from fuxictr.preprocess import FeatureProcessor

from fuxictr_miss.errors import InputError, closest

_FORM = "set feature_processor to package.module.Class or to file.py:Class"
# Their preprocess functions, as the BARS configs use them.
_OF_FUXICTR = ("avazu", "criteo", "kkbox")


def own_processor(name: str | None) -> type[FeatureProcessor]:
    """The class that the key `feature_processor` names; FuxiCTR's own for None.

    Args:
        name: `package.module.Class` or `file.py:Class`.

    Raises:
        InputError: it cannot be imported, is no FeatureProcessor, or reads the files itself.
    """
    if name is None:
        return FeatureProcessor
    file, _, kind = name.rpartition(":")
    if not file:
        file, _, kind = name.rpartition(".")
    try:
        module = _of_file(Path(file)) if file.endswith(".py") else importlib.import_module(file)
        found = getattr(module, kind)
    except Exception as error:  # a foreign file may raise anything
        raise InputError(
            f"The feature_processor {name!r} cannot be imported ({type(error).__name__}: {error}): "
            f"{_FORM}."
        ) from error
    if not (isinstance(found, type) and issubclass(found, FeatureProcessor)):
        raise InputError(f"{name} is not derived from FuxiCTR's FeatureProcessor: {_FORM}.")
    if getattr(found, "read_data", None) is not FeatureProcessor.read_data:
        raise InputError(
            f"{name} has a read_data of its own, which is not called here: put what it does into "
            "preprocess functions or into the files."
        )
    return found


def source_of(processor: type[FeatureProcessor]) -> Path:
    """The file in which a processor is written; encoded data depends on it."""
    return Path(inspect.getfile(processor))


def check_functions(columns: Iterable[Mapping[str, Any]], processor: type) -> None:
    """Whether a processor has every function that a column's `preprocess` names.

    Raises:
        InputError: names the column, the function, and where one of that name is.
    """
    for column in columns:
        function = str(column.get("preprocess") or "copy_from").partition("(")[0]
        if callable(getattr(processor, function, None)):
            continue
        its = [n for n, v in vars(processor).items() if inspect.isfunction(v) and n[0] != "_"]
        close = closest(function, its)
        hint = f"did you mean {close[0]!r}?" if close else f"{_FORM}{_where(function)}."
        raise InputError(
            f"Feature {column['name']!r}: {processor.__name__} has no preprocess function "
            f"{function!r}; {hint}"
        )


def _where(function: str) -> str:
    for name in _OF_FUXICTR:
        module = f"fuxictr.datasets.{name}"
        if importlib.util.find_spec(module) is None:
            continue
        kind = getattr(importlib.import_module(module), "CustomizedFeatureProcessor", None)
        if hasattr(kind, function):
            return f", for example to {module}.CustomizedFeatureProcessor"
    return ""


def _of_file(file: Path) -> ModuleType:
    """Import a file; as FuxiCTR's demo expects, it finds what is beside it and one folder above."""
    file = file.resolve()
    spec = importlib.util.spec_from_file_location(f"_fuxictr_miss_{file.stem}", file)
    if spec is None or spec.loader is None or not file.exists():
        raise ImportError(f"{file} is not there")
    module = importlib.util.module_from_spec(spec)
    with _on_path([str(file.parent), str(file.parents[1])]):
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module


@contextmanager
def _on_path(folders: list[str]) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = folders
    try:
        yield
    finally:
        sys.path[:] = before
