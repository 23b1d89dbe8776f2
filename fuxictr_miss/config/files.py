"""Folders of FuxiCTR's YAML configs: which experiments they have, and one experiment's keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuxictr_miss.config.keys import Config
from fuxictr_miss.config.places import with_found_paths
from fuxictr_miss.config.recipes import default_recipe, shipped_config
from fuxictr_miss.config.renamed import with_new_names
from fuxictr_miss.config.yaml_files import Entry, read_entries
from fuxictr_miss.errors import InputError, hint, unknown

_BASE = "Base"


def default_config() -> str:
    """`./config/`; if that does not exist, the folder that comes with the package."""
    return "config" if Path("config").is_dir() else str(shipped_config())


def list_expids(config_dir: str) -> list[str]:
    """All experiment ids in `config_dir`, sorted, without templates (names with a leading "_").

    Raises:
        InputError: the folder has no model config.
    """
    return sorted(name for name in _entries(config_dir, "model_config") if name != _BASE)


def list_datasets(config_dir: str) -> list[str]:
    """All data set ids in `config_dir`, sorted.

    Raises:
        InputError: the folder has no dataset config.
    """
    return sorted(_entries(config_dir, "dataset_config"))


def load_config(
    config_dir: str,
    expid: str,
    dataset_id: str | None = None,
    instead: Mapping[str, Entry] | None = None,
) -> Config:
    """Load an experiment, its parameters merged like in FuxiCTR's `load_config`.

    Relative paths to the data begin in the working folder; if that does not have it, in
    `config_dir` or one of the two folders above it, as FuxiCTR's own configs are written.

    Args:
        config_dir: contains `model_config` and `dataset_config`, as files or as folders of files.
        expid: key of the experiment in the model config.
        dataset_id: key in the dataset config; None takes the one that the experiment names.
        instead: entries that take the place of the folder's `model_config` or `dataset_config`.

    Raises:
        InputError: there is no such expid or data set (names the closest), a required key is
            missing, or a value is invalid.

    Example:
        >>> from fuxictr_miss.config import load_config
        >>> load_config("config", "DIN_MISS_demo").params["ssl_training"]
        'pretrain'
    """
    instead = instead or {}
    experiments = _entries(config_dir, "model_config", instead.get("model_config"))
    if expid not in experiments or expid == _BASE:
        raise _unknown_expid(config_dir, expid, set(experiments) - {_BASE})
    params: dict[str, Any] = {}
    places = {"": f"{experiments[expid].place}, {expid}"}
    for name in (_BASE, expid):
        if name in experiments:
            _merge(params, places, name, experiments[name])
    params["model_id"] = expid
    dataset_id = params.get("dataset_id") if dataset_id is None else dataset_id
    if dataset_id is None:
        raise InputError(f"{places['']}, has no dataset_id: name an entry of dataset_config.")
    datasets = _entries(config_dir, "dataset_config", instead.get("dataset_config"))
    if str(dataset_id) not in datasets:
        raise unknown(f"dataset_id of expid {expid}:", str(dataset_id), datasets)
    _merge(params, places, str(dataset_id), datasets[str(dataset_id)])
    params = with_found_paths(config_dir, {**params, "dataset_id": str(dataset_id)})
    recipe = params.get("ssl_recipe", default_recipe(str(params.get("model"))))
    return Config.of_experiment({**params, "ssl_recipe": recipe} if recipe else params, places)


def _entries(config_dir: str, name: str, instead: Entry | None = None) -> dict[str, Entry]:
    """All entries of `<name>.yaml` or `<name>/*.yaml`, or of `instead`, templates left out."""
    if instead is not None:
        if not isinstance(instead.value, dict):
            raise InputError(f"{instead.place}: {name} must have an entry for each name.")
        place = f"{instead.place}, {name}"
        return {str(key): Entry(value, place) for key, value in instead.value.items()}
    folder = Path(config_dir)
    files = [folder / f"{name}.yaml"]
    if not files[0].exists():
        files = sorted((folder / name).glob("*.yaml"))
    if not files:
        raise InputError(
            f"No {name}.yaml and no {name}/*.yaml in {config_dir!r}: set the folder by --config, "
            "or in a tuner's file by base_config."
        )
    entries: dict[str, Entry] = {}
    for path in files:
        for key, entry in read_entries(path).items():
            if key in entries:
                raise InputError(
                    f"{key} is twice in the config, in {entries[key].place} and in {entry.place}: "
                    "remove one of them."
                )
            if not key.startswith("_"):
                entries[key] = entry
    return entries


def _merge(params: dict[str, Any], places: dict[str, str], name: str, entry: Entry) -> None:
    """Update `params` and `places` with an entry of a config."""
    if not isinstance(entry.value, dict):
        what = "is empty" if entry.value is None else f"holds {entry.value!r}"
        raise InputError(
            f"{entry.place}: {name} {what}: it must have lines of the form key: value."
        )
    value = with_new_names(entry.value)  # entry by entry, so that the later one holds
    params.update(value)
    places.update(dict.fromkeys(value, f"{entry.place}, {name}"))


def _unknown_expid(config_dir: str, expid: str, valid: set[str]) -> InputError:
    return InputError(
        f"Unknown expid {expid!r}.{hint(expid, valid, 3)} `train --config {config_dir} --list` "
        f"prints all {len(valid)} of them."
    )
