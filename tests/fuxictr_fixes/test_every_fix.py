"""Each mend of FuxiCTR says what it mends and when it may go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fuxictr_miss.fuxictr_fixes

FILES = [
    file
    for file in Path(fuxictr_miss.fuxictr_fixes.__file__).parent.glob("*.py")
    if file.name != "__init__.py"
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_fix_begins_with_the_fault_and_its_end(file):
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    assert "Fault: " in text
    assert "\nObsolete when " in text
