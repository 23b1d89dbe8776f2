"""Open the `vocab.json` of an artefact: how a raw row is encoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fuxictr_miss.errors import InputError, explained

FORMAT = 1
AGAIN = "export the model again"  # what to do with a damaged artefact


def read_vocabulary(folder: Path) -> dict[str, Any]:
    """Read the `vocab.json` in a folder.

    Raises:
        InputError: it is none, or of another version.
    """
    path = folder / "vocab.json"
    what = f"{path} cannot be read"
    with explained((OSError, ValueError), what, "name a folder that `fuxictr-miss export` wrote"):
        content = json.loads(path.read_text(encoding="utf-8"))
    form = content.get("format") if isinstance(content, dict) else None
    if form != FORMAT:
        raise InputError(
            f"{path} is of format {form!r}, and this version reads format {FORMAT}: {AGAIN} with "
            "this version, or install the one that wrote it."
        )
    return content
