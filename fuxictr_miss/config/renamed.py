"""Keys that have a new name: the old one is read for one release, with a warning."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

RENAMED = {"ssl_embedding_lr_scale": ("ssl_label_gradient", "ssl_other_gradient")}  # 0.3


def with_new_names(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys with an old name replaced by the new ones, which get its value."""
    new = dict(params)
    for old, names in RENAMED.items():
        if old in new:
            log.warning("%s is now %s: use the new names.", old, " and ".join(names))
            new.update(dict.fromkeys(names, new.pop(old)))
    return new
