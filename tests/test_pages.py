"""Commands and snippets of the pages in docs/ run as written, beside the trained demo."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_readme import README, ROOT, blocks, copy, run

__all__ = ["copy"]  # the fixture: a copy for this file
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


@pytest.fixture(scope="module")
def demo(copy: Path) -> Path:
    """The copy after README's demo."""
    run(["bash", "-ec", blocks("bash", README)[0]], copy)
    return copy


@pytest.mark.parametrize("page", [name for name, page in PAGES.items() if "```" in page])
def test_commands_and_snippets_of_a_page_run_as_written(demo, page):
    for block in blocks("bash", PAGES[page]):
        run(["bash", "-ec", block], demo)
    for block in blocks("python", PAGES[page]):
        run([sys.executable, "-c", block], demo)
