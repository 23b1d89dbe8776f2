"""Recipes: named sets of values for the keys that a config leaves out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fuxictr_miss.config.yaml_files import read_values
from fuxictr_miss.errors import unknown

_FILE = "recipes.yaml"


def shipped_config() -> Path:
    """The config folder that comes with the package: beside it in a checkout, else inside."""
    package = Path(__file__).resolve().parents[1]
    places = package.parent / "config", package / "shipped_config"
    return next((each for each in places if (each / _FILE).exists()), places[1])


def default_recipe(model: str) -> str | None:
    """The recipe of a model whose config names none: "recommended" for `_MISS` and `_PPMI`."""
    return "recommended" if model.rpartition("_")[2] in ("MISS", "PPMI") else None


def read_recipe(name: str) -> dict[str, Any]:
    """The `ssl_` and `miss_` keys of a recipe, from the package's own recipes.yaml.

    Raises:
        InputError: there is no recipe of this name.
    """
    recipes = _recipes()
    if name not in recipes:
        raise unknown("ssl_recipe", str(name), recipes)
    return {"ssl_recipe": name, **copy.deepcopy(recipes[name])}


def with_recipe(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys, and below them those of the recipe that `ssl_recipe` names.

    Raises:
        InputError: there is no recipe of this name.
    """
    name = params.get("ssl_recipe")
    return dict(params) if name is None else {**read_recipe(name), **params}


@cache
def _recipes() -> dict[str, Any]:
    return read_values(shipped_config() / _FILE)
