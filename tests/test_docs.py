"""The pages in docs/ say what the code says, and every link on any page leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuxictr_miss.config import Config
from fuxictr_miss.config.settings import SSLSettings, keys_of
from fuxictr_miss.methods.base import get_method

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FOLDERS = (
    "docs",
    "examples",
    "benchmarks",
    "data_preprocess",
    "results",
    "model_zoo/*",
    "examples/serving",
    "examples/fuxictr_zoo/*",
)
PAGES = sorted([*ROOT.glob("*.md"), *(page for f in FOLDERS for page in ROOT.glob(f"{f}/*.md"))])
CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")
SHIPPED = (
    "CL4CTR",
    "CL4SRec",
    "DuoRec",
    "ICSRec",
    "IRSSL",
    "Item2Vec",
    "MAP",
    "MISS",
    "NextItem",
    "PPMI",
    "Rule",
    "S3Rec",
)


def test_configuration_is_what_its_generator_gives():
    """In a process of its own, where no other test has registered a method."""
    code = "from generate_configuration import page; print(page(), end='')"
    command = [sys.executable, "-X", "utf8", "-c", code]
    done = subprocess.run(
        command, cwd=DOCS, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == CONFIGURATION, "run: python docs/generate_configuration.py"


def test_configuration_has_every_key_once():
    documented = re.findall(r"^\| `(\w+)` \| \S", CONFIGURATION, re.MULTILINE)
    keys = [*Config.model_fields, *keys_of(SSLSettings, "ssl_").model_fields]
    for name in SHIPPED:
        keys += keys_of(get_method(name).Settings, f"{name.lower()}_").model_fields
    assert sorted(documented) == sorted(keys)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading_in_it(page):
    for file, heading in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
        target = page.parent / file if file else page
        assert target.exists(), file
        if heading and target.suffix == ".md":
            assert heading in anchors(target), f"{file}#{heading}"


def anchors(page: Path) -> list[str]:
    """The headings of a page as GitHub writes them in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_every_file_in_the_picture_exists():
    """Paths are relative to the package, or to methods/miss/, whose panel they stand in."""
    picture = (DOCS / "architecture.svg").read_text(encoding="utf-8")
    named = re.findall(r'class="file"[^>]*>([\w/]+(?:/|\.py))<', picture)
    package = ROOT / "fuxictr_miss"
    assert len(named) > 10
    for path in named:
        assert (package / path).exists() or (package / "methods" / "miss" / path).exists(), path
