"""Read YAML files strictly: no duplicate keys, names as text, line numbers in errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fuxictr_miss.errors import InputError

_FLOAT, _INT, _MAPPING, _MERGE, _NULL, _TEXT, _TUPLE = (
    f"tag:yaml.org,2002:{kind}"
    for kind in ("float", "int", "map", "merge", "null", "str", "python/tuple")
)
# Names are kept as text: YAML would read 2024_01 as the number 202401, and no as False.
_NAMES = {"base_expid", "dataset_id", "group_id", "model", "model_id"}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader, except that it keeps names as text, refuses duplicate keys and numbers such
    as 0100 (64, octal) and 1:30 (90, of base 60), that 1e-3 is a number, as in YAML 1.2, and that
    `!!python/tuple`, which FuxiCTR's configs have, is a tuple.
    """

    def __init__(self, text: str, path: Path | str = "") -> None:
        super().__init__(text)
        self.path = path
        self.checked: list[yaml.Node] = []

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Check a mapping before its merge keys are replaced by what they name."""
        if not any(node is each for each in self.checked):
            self._check(node)
            self.checked.append(node)
        super().flatten_mapping(node)

    def _check(self, node: yaml.MappingNode) -> None:
        """Below the top level a null may come before the value, as in an example of FuxiCTR's."""
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise InputError(
                    f"{self.path} has {key.value!r} twice, in line {lines[key.value]} and in line "
                    f"{line}: remove one of them."
                )
            if value.tag != _NULL or not self.checked:
                lines[key.value] = line
            if key.value in _NAMES and isinstance(value, yaml.ScalarNode) and value.tag != _NULL:
                value.tag = _TEXT

    def as_number(self, node: yaml.ScalarNode) -> int | float:
        """The number that a reader of the file sees."""
        read = self.construct_yaml_float if node.tag == _FLOAT else self.construct_yaml_int
        number: int | float = read(node)
        if re.match(r"[-+]?(0[0-7_]+$|[0-9_]+:)", node.value):
            line = node.start_mark.line + 1
            raise InputError(
                f"{self.path}, line {line}: YAML takes {node.value} for the number {number}. "
                "Write the one you mean without a leading 0 or a colon, or in quotes if it is text."
            )
        return number


_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
_Loader.add_constructor(_INT, _Loader.as_number)
_Loader.add_constructor(_FLOAT, _Loader.as_number)
_Loader.add_constructor(_TUPLE, lambda loader, node: tuple(loader.construct_sequence(node, True)))


class Entry(NamedTuple):
    """The value of a top-level key of a file, and the file and line where it stands."""

    value: Any
    place: str


def read_entries(path: Path) -> dict[str, Entry]:
    """Read the top-level entries of a file, by name.

    Raises:
        InputError: the file cannot be read, is not UTF-8, is not YAML, is not a mapping, or has a
            duplicate key.
    """
    text = _read(path)
    try:
        loader = _Loader(text, path)
        root = loader.get_single_node()
        if root is None:
            return {}
        if root.tag != _MAPPING:
            raise InputError(f"{path} must have lines of the form `name: value`.")
        for key, _ in root.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise InputError(f"{path}, line {line}: a name must be text, no list or mapping.")
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
        key.value: Entry(values[key.value], f"{path}, line {key.start_mark.line + 1}")
        for key, _ in root.value
    }


def read_values(path: Path) -> dict[str, Any]:
    """Read the top-level values of a file, by name. Raises like `read_entries`."""
    return {name: entry.value for name, entry in read_entries(path).items()}


def read_value(key: str, text: str) -> Any:
    """Read the text after a `key:` as a file would be.

    Raises:
        InputError: it is not a YAML value.
    """
    try:
        return yaml.load(f"{key}: {text}", Loader=_Loader)[key]
    except InputError as error:
        raise InputError(str(error).removeprefix(", line 1: ")) from error
    except Exception as error:  # as above
        raise InputError(f"{text!r} is not a YAML value.") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise InputError(
            f"{path}, line {line}, has the byte 0x{byte:02x}, which is not UTF-8: save it as UTF-8."
        ) from error


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
        problem = "a Python object; only !!python/tuple [a, b] is read"
    if "\t" in line[: len(line) - len(line.lstrip())] or "\\t" in problem:
        problem = "there is a tab; YAML indents with spaces"
    return InputError(f"{path}, line {mark.line + 1}, is not valid YAML: {problem}.")
