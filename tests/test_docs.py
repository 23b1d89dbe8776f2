"""The pages in docs/ say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuxictr_miss.config import Config
from fuxictr_miss.config.settings import SSLSettings, keys_of
from fuxictr_miss.methods.base import get_method

DOCS = Path(__file__).resolve().parents[1] / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")
SHIPPED = ("CL4SRec", "IRSSL", "MISS", "Rule", "S3Rec")


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


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_linked_file_exists(page):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert all((page.parent / link).exists() for link in links)
