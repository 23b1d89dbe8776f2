"""The rooms of the package: each imports only those below it, and no import is hidden."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fuxictr_miss"
FILES = {  # model_zoo/ is imported as fuxictr_miss.model_zoo
    ".".join(("fuxictr_miss", *parts)).removesuffix(".__init__"): file
    for folder, home in ((PACKAGE, PACKAGE), (ROOT / "model_zoo", ROOT))
    for file in folder.rglob("*.py")
    for parts in [file.relative_to(home).with_suffix("").parts]
}
# From top to bottom; a room that stands in no line only has to be in no cycle.
ORDER = """
    commands paper experiment registry model_zoo serving adapt traits mixin training
    self_supervision methods losses embeddings behavior data fuxictr_fixes preprocess config
    outputs distributed text files errors
""".split()  # noqa: SIM905
# packages that only some calls need
SLOW = {"matplotlib", "mlflow", "optuna", "ray", "scipy", "torch", "wandb"}


def imports(name: str) -> Iterator[tuple[ast.stmt, str, bool]]:
    """Each import of a module: the statement, what it imports, and if it is inside a function."""

    def below(node: ast.AST, inside: bool) -> Iterator[tuple[ast.stmt, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((child, alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                home = absolute(child, name)
                for alias in child.names:
                    module = f"{home}.{alias.name}"
                    yield child, module if module in FILES else home, inside
            yield from below(child, inside or isinstance(child, ast.FunctionDef))

    return below(ast.parse(FILES[name].read_text(encoding="utf-8")), False)


def absolute(node: ast.ImportFrom, name: str) -> str:
    """The module that `from ..fields import x` in the module `name` names."""
    if not node.level:
        return str(node.module)
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def room(module: str) -> str:
    """`training` of fuxictr_miss.training.run, `mixin` of fuxictr_miss.mixin."""
    return module.removeprefix("fuxictr_miss.").split(".")[0]


def between_files() -> dict[str, set[str]]:
    """A module and those of ours that it imports, also in its functions."""
    return {
        name: {module for _, module, _ in imports(name) if module in FILES and module != name}
        for name in FILES
    }


def between_rooms() -> dict[str, set[str]]:
    rooms: dict[str, set[str]] = {}
    for name, modules in between_files().items():
        rooms.setdefault(room(name), set()).update(map(room, modules))
    return {name: others - {name, "fuxictr_miss"} for name, others in rooms.items()}


@pytest.mark.parametrize("graph", [between_files, between_rooms])
def test_no_two_import_each_other(graph):
    assert list(graphlib.TopologicalSorter(graph()).static_order())  # raises at a cycle


def test_nothing_imports_upwards():
    graph = between_rooms()
    below = graphlib.TopologicalSorter(graph)
    reached: dict[str, set[str]] = {}
    for name in below.static_order():
        others = graph.get(name, set())
        reached[name] = others.union(*(reached[other] for other in others))
    standing = [name for name in ORDER if name in graph]
    assert len(standing) > 8
    for place, name in enumerate(standing):
        assert not reached[name] & set(standing[:place]), name


def test_an_import_inside_a_function_is_of_something_slow_only():
    hidden = [
        f"{name}: {ast.unparse(node)}"
        for name in FILES
        if room(name) not in ("commands", "paper", "fuxictr_miss")
        for node, module, inside in imports(name)
        if inside and module.split(".")[0] not in SLOW
    ]
    assert not hidden


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_no_module_writes_to_the_root_logger_whose_info_a_run_drops(level):
    writers = [
        name
        for name, file in FILES.items()
        if f" logging.{level}(" in file.read_text(encoding="utf-8")
    ]
    assert writers == []
