"""Read YAML files strictly: no duplicate keys, names as text, line numbers in errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fuxictr_miss.errors import InputError

_MAPPING, _MERGE, _NULL, _TEXT = (
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "merge", "null", "str")
)
# Names are kept as text: YAML would read 2024_01 as the number 202401, and no as False.
_NAMES = {"base_expid", "dataset_id", "model", "model_id"}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader, except that 1e-3 is a number, as in YAML 1.2, instead of text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class Entry(NamedTuple):
    """A top-level key of a file with its value and position."""

    value: Any
    path: Path
    line: int

    @property
    def place(self) -> str:
        return f"{self.path}, line {self.line}"


def read_entries(path: Path) -> dict[str, Entry]:
    """Read the top-level entries of a file, by name.

    Raises:
        InputError: the file cannot be read, is not UTF-8, is not YAML, is not a mapping, or has a
            duplicate key.
    """
    text = _read(path)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return {}
        if root.tag != _MAPPING:
            raise InputError(f"{path} must have lines of the form `name: value`.")
        _check(root, path)
        for key, _ in root.value:
            if key.tag != _MERGE:
                key.tag = _TEXT
        values = loader.construct_document(root)
    except yaml.YAMLError as error:
        raise _syntax_error(path, text, error) from error
    except InputError:
        raise
    except Exception as error:  # PyYAML's, from a date such as 2024-13-45 or `!!bool maybe`
        raise InputError(f"{path} has a value that YAML cannot read ({error}).") from error
    return {
        key.value: Entry(values[key.value], path, key.start_mark.line + 1) for key, _ in root.value
    }


def read_values(path: Path) -> dict[str, Any]:
    """Read the top-level values of a file, by name. Raises like `read_entries`."""
    return {name: entry.value for name, entry in read_entries(path).items()}


def read_value(text: str) -> Any:
    """Parse a single YAML value, such as the text after a `key:`.

    Raises:
        InputError: it is not a YAML value.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except Exception as error:  # as above
        raise InputError(f"{text!r} is not a YAML value.") from error


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise InputError(
            f"{path}, line {line}, has the byte 0x{byte:02x}, which is not UTF-8: save it as UTF-8."
        ) from error


def _check(root: yaml.MappingNode, path: Path) -> None:
    """Refuse duplicate keys in any mapping, and tag names as text."""
    waiting: list[yaml.Node] = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            _refuse_duplicates(node, path, node is root)
            for key, value in node.value:
                waiting.append(value)
                scalars = isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
                if scalars and key.value in _NAMES and value.tag != _NULL:
                    value.tag = _TEXT


def _refuse_duplicates(mapping: yaml.MappingNode, path: Path, top: bool) -> None:
    """Refuse duplicate keys. Below the top level a null may come first, as in a FuxiCTR example."""
    lines: dict[str, int] = {}
    for key, value in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise InputError(
                f"{path} has {key.value!r} twice, in line {lines[key.value]} and in line {line}: "
                "remove one of them."
            )
        if top or value.tag != _NULL:
            lines[key.value] = line


def _syntax_error(path: Path, text: str, error: yaml.YAMLError) -> InputError:
    """The error for invalid YAML, with the line and the problem."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}.")
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    parts = (getattr(error, "context", None), getattr(error, "problem", None))
    problem = ", ".join(part for part in parts if part)
    if "python/" in problem:
        problem = "a Python object; write !!python/tuple [a, b] as [a, b]"
    if "\t" in line[: len(line) - len(line.lstrip())] or "\\t" in problem:
        problem = "there is a tab; YAML indents with spaces"
    return InputError(f"{path}, line {mark.line + 1}, is not valid YAML: {problem}.")
