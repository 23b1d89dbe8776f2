"""Configs: YAML files and `--set` become one checked object, and are trusted afterwards."""

from fuxictr_miss.config.files import (
    default_config,
    list_datasets,
    list_expids,
    load_config,
)
from fuxictr_miss.config.keys import Config

__all__ = [
    "Config",
    "default_config",
    "list_datasets",
    "list_expids",
    "load_config",
]
