"""A config folder, of which the tuner's space is a part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from paper.conftest import place  # noqa: F401

from fuxictr_miss.tuning.space import Space, read_space


@pytest.fixture
def space_of(place: Path) -> Callable[..., Space]:  # noqa: F811
    """Reads a tuner_space over the experiment DIN_small."""

    def read(tuner_space: dict[str, Any] | str, **keys: Any) -> Space:
        content = {"base_config": "config", "base_expid": "DIN_small", "tuner_space": tuner_space}
        path = Path("my space.yaml")
        content = {k: v for k, v in {**content, **keys}.items() if v}
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return read_space(path)

    return read
