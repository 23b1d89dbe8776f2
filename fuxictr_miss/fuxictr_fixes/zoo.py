"""Load backbones from elsewhere: a checkout of FuxiCTR, or your own folder or package.

Fault: FuxiCTR's `model_zoo` cannot be imported as a whole. Its folders are no packages, ten class
names stand in it twice (`LongCTR/`), and files that need TensorFlow stand among the others.
Obsolete when `from model_zoo.DIN import DIN` works for each of its models.

The models are found by parsing the source, and only the file of the requested class is imported, so
a broken file does not affect the others. The `__init__.py` of a folder is not run; relative imports
inside the folder work.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from fuxictr.pytorch.models import BaseModel

from fuxictr_miss.errors import InputError, unknown

_BASES = {"BaseModel", "MultiTaskModel"}  # FuxiCTR's base classes of all models
_NEEDS_TENSORFLOW = re.compile(rb"^(import|from) (fuxictr\.)?tensorflow\b", re.MULTILINE)
_TAKES_TUPLES = "batch_dict, item_dict, mask = inputs"  # of FuxiCTR's LongCTR loader

_places: dict[type[BaseModel], tuple[str, str]] = {}  # of classes from a folder, for pickling


class Found(NamedTuple):
    """A class found in the source, not yet imported."""

    name: str
    file: Path
    bases: set[str]
    takes_tuples: bool

    def is_model(self, known: set[str]) -> bool:
        """Whether a base is a known model, or it is named like its file and has another base."""
        named = self.name == self.file.stem and self.bases - {"Module"}
        return bool(self.bases & known or named)


class Zoo:
    """The models of a folder or an importable package.

    If two classes share a name, the one that takes FuxiCTR's ordinary batches is used.

    Args:
        path: a folder (for FuxiCTR, its root or its `model_zoo`), or the name of a package.

    Raises:
        InputError: `path` is neither a folder nor a package.
    """

    def __init__(self, path: str | Path) -> None:
        self.package: str | None = None
        folder = Path(path)
        if not folder.is_dir():
            folder = _package_folder(str(path))
            self.package = str(path)
        elif (folder / "model_zoo").is_dir():
            folder /= "model_zoo"
        self.root = folder.resolve()
        self.unreadable: dict[str, str] = {}  # file stem -> the error
        classes = list(self._classes())
        known = set(_BASES)
        while more := {each.name for each in classes if each.is_model(known)} - known:
            known |= more  # a class may derive from one that comes later
        models = [each for each in classes if each.is_model(known)]
        models.sort(key=lambda each: not each.takes_tuples)
        self.models = {each.name: each for each in models}  # the last of a name

    @property
    def names(self) -> list[str]:
        """The models that can be trained here, sorted."""
        return sorted(name for name, each in self.models.items() if not each.takes_tuples)

    def load(self, name: str) -> type[BaseModel]:
        """Import the class of a model.

        Raises:
            InputError: there is no such class, its file cannot be read or imported, or it takes
                batches in another format.
        """
        if name in self.unreadable and name not in self.models:
            raise InputError(f"{name} in the model zoo cannot be read: {self.unreadable[name]}.")
        if name not in self.models:
            raise unknown("model", name, self.models)
        found = self.models[name]
        if found.takes_tuples:
            raise InputError(
                f"{name} ({found.file}) takes the tuples of FuxiCTR's LongCTR loader instead of "
                "ordinary batches, so it cannot be trained here. For long histories use SIM."
            )
        try:
            model = getattr(self._import(found.file), name)
        except Exception as error:  # a foreign file may raise anything
            raise InputError(
                f"{found.file} cannot be imported: {type(error).__name__}: {error}."
            ) from error
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise InputError(f"{name} in {found.file} is not derived from FuxiCTR's BaseModel.")
        if self.package is None:
            _places[model] = (str(self.root), name)
        return model

    def _classes(self) -> Iterator[Found]:
        """The classes of all files that PyTorch alone can run, the last file first."""
        for file in sorted(self.root.rglob("*.py"), reverse=True):
            if any(part.startswith(".") for part in file.relative_to(self.root).parts):
                continue
            try:
                source = file.read_bytes()
                tree = ast.parse(source)
            except (SyntaxError, ValueError, OSError) as error:
                self.unreadable[file.stem] = f"{file}: {error}"
                continue
            if _NEEDS_TENSORFLOW.search(source):
                continue
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
                    yield Found(node.name, file, bases, _TAKES_TUPLES in ast.unparse(node))

    def _import(self, file: Path) -> ModuleType:
        path = file.relative_to(self.root).with_suffix("")
        if self.package is not None:
            return importlib.import_module(".".join((self.package, *path.parts)))
        name = "_fuxictr_miss_zoo_" + hashlib.md5(str(self.root).encode()).hexdigest()[:8]
        folder = self.root
        _bare_package(name, folder)
        for part in path.parts[:-1]:
            folder /= part
            name += "." + part.replace(".", "_")
            _bare_package(name, folder)
        importlib.invalidate_caches()
        return importlib.import_module(f"{name}.{path.name}")


def zoo_location(model: type[BaseModel]) -> tuple[str, str] | None:
    """The root and the name by which `Zoo` loads a class again; None if it can be imported."""
    return _places.get(model)


def _package_folder(name: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"The model zoo {name!r} is neither a folder nor a package.")
    return Path(spec.submodule_search_locations[0])


def _bare_package(name: str, folder: Path) -> None:
    """Register a package in `sys.modules` without running its `__init__.py`."""
    if name not in sys.modules:
        module: Any = ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
