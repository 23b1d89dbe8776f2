"""Backbones from elsewhere: a checkout of FuxiCTR, or a folder or package of one's own.

What a zoo holds is read from its source, and only the file of the class that is asked for is
imported: a file that is broken, or needs TensorFlow, takes no other with it. The `__init__.py` of a
folder is not run; relative imports inside it work.
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

_BASES = {"BaseModel", "MultiTaskModel"}  # FuxiCTR's, from which every model descends


_places: dict[type[BaseModel], tuple[str, str]] = {}  # classes that no import statement finds


class Found(NamedTuple):
    """A class in a zoo's source, not imported yet."""

    name: str
    file: Path
    takes_tuples: bool  # it unpacks a batch of three parts, as FuxiCTR's LongCTR loader gives them


class Zoo:
    """The models of a folder or an importable package.

    Where two classes have one name, the one that takes FuxiCTR's ordinary batches is meant.

    Args:
        path: a folder, FuxiCTR's root or its `model_zoo` among them, or the name of a package.

    Raises:
        InputError: it is neither.
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
        self.unreadable: dict[str, str] = {}  # file stem: why
        self._scan()

    @property
    def names(self) -> list[str]:
        """The models that can be trained here, sorted."""
        return sorted(name for name, each in self.models.items() if not each.takes_tuples)

    def load(self, name: str) -> type[BaseModel]:
        """Import a class.

        Raises:
            InputError: there is none of this name, its file cannot be read or imported, or it takes
                batches of another form.
        """
        if name in self.unreadable and name not in self.models:
            raise InputError(f"{name} in the model zoo cannot be read: {self.unreadable[name]}.")
        if name not in self.models:
            raise unknown("model", name, self.models)
        found = self.models[name]
        if found.takes_tuples:
            raise InputError(
                f"{name} ({found.file}) takes the tuples of FuxiCTR's LongCTR loader instead of "
                "ordinary batches, so it cannot be trained here. For long histories there is SIM."
            )
        try:
            model = getattr(self._import(found.file), name)
        except Exception as error:  # whatever a file of somebody else may raise
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
        while True:  # a class may derive from one that is found later
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
    """The folder and the name by which `load_from` finds a class again; None if Python does."""
    return _places.get(model)


def load_from(root: str, name: str) -> type[BaseModel]:
    """The class that `zoo_location` has described, maybe in another process."""
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
    """A package whose modules can be imported and whose `__init__.py` has not been run."""
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
    """Derived from a model by its name; or named as its file, from a base that may be renamed."""
    bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
    return bool(bases & known) or (found.name == found.file.stem and bool(bases - {"Module"}))


def _takes_tuples(node: ast.ClassDef) -> bool:
    """Whether `get_inputs` takes its batch apart: `batch_dict, item_dict, mask = inputs`."""
    return any(
        isinstance(step, ast.Assign)
        and isinstance(step.targets[0], ast.Tuple)
        and isinstance(step.value, ast.Name)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name == "get_inputs"
        for step in ast.walk(method)
    )
