"""Load backbones from elsewhere: a checkout of FuxiCTR, or your own folder or package.

The models are found by parsing the source, and only the file of the requested class is imported, so
a file that is broken or needs TensorFlow does not affect the others. The `__init__.py` of a folder
is not run; relative imports inside the folder work.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from fuxictr.pytorch.models import BaseModel

from fuxictr_miss.errors import InputError, unknown

_BASES = {"BaseModel", "MultiTaskModel"}  # FuxiCTR's base classes of all models


_places: dict[type[BaseModel], tuple[str, str]] = {}  # of classes from a folder, for pickling


class Found(NamedTuple):
    """A model class found in the source, not yet imported."""

    name: str
    file: Path
    takes_tuples: bool  # it unpacks the tuples of FuxiCTR's LongCTR loader


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
        self.models: dict[str, Found] = {}
        self.unreadable: dict[str, str] = {}  # file stem -> the error
        self._scan()

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

    def _scan(self) -> None:
        classes: list[tuple[Found, ast.ClassDef]] = []
        for file in sorted(self.root.rglob("*.py")):
            if any(part.startswith(".") for part in file.relative_to(self.root).parts):
                continue
            try:
                tree = ast.parse(file.read_bytes())
            except (SyntaxError, ValueError, OSError) as error:
                self.unreadable.setdefault(file.stem, f"{file}: {error}")
                continue
            if not _needs_tensorflow(tree):
                classes += [
                    (Found(node.name, file, _takes_tuples(node)), node)
                    for node in tree.body
                    if isinstance(node, ast.ClassDef)
                ]
        known = set(_BASES)
        while True:  # a class may derive from one that comes later
            models = [found for found, node in classes if _is_model(found, node, known)]
            names = _BASES | {found.name for found in models}
            if names == known:
                break
            known = names
        for found in models:
            before = self.models.get(found.name)
            if before is None or (before.takes_tuples and not found.takes_tuples):
                self.models[found.name] = found

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
    """The arguments with which `load_from` finds a class again; None if it can be imported."""
    return _places.get(model)


def load_from(root: str, name: str) -> type[BaseModel]:
    """The class that `zoo_location` describes, also in another process."""
    return Zoo(root).load(name)


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


def _needs_tensorflow(tree: ast.Module) -> bool:
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
    return any("tensorflow" in name.split(".") for name in imported)


def _is_model(found: Found, node: ast.ClassDef, known: set[str]) -> bool:
    """Whether a base is a known model, or the class is named like its file and has another base."""
    bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
    return bool(bases & known) or (found.name == found.file.stem and bool(bases - {"Module"}))


def _takes_tuples(node: ast.ClassDef) -> bool:
    """Whether `get_inputs` unpacks its batch: `batch_dict, item_dict, mask = inputs`."""
    return any(
        isinstance(step, ast.Assign)
        and isinstance(step.targets[0], ast.Tuple)
        and isinstance(step.value, ast.Name)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name == "get_inputs"
        for step in ast.walk(method)
    )
