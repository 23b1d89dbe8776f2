"""FuxiCTR's YAML configs: experiment ids, command-line overrides, and unknown keys."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuxictr_miss.config_keys import NAMES, REQUIRED, Keys, checked
from fuxictr_miss.errors import InputError, closest, unknown
from fuxictr_miss.settings import SSLSettings, keys_of, read_settings
from fuxictr_miss.yaml_files import Entry, read_entries, read_value

_BASE = "Base"


def default_config() -> str:
    """`./config/`; if that does not exist, the folder that comes with the package."""
    package = Path(__file__).resolve().parent
    places = [Path("config"), package.parent / "config", package / "shipped_config"]
    return str(next((each for each in places if each.is_dir()), places[0]))


def list_expids(config_dir: str) -> list[str]:
    """All experiment ids in `config_dir`, sorted, without templates (names with a leading "_").

    Raises:
        InputError: the folder has no model config.
    """
    return sorted(name for name in _entries(config_dir, "model_config") if name != "Base")


def list_datasets(config_dir: str) -> list[str]:
    """All data set ids in `config_dir`, sorted.

    Raises:
        InputError: the folder has no dataset config.
    """
    return sorted(_entries(config_dir, "dataset_config"))


def load_params(config_dir: str, expid: str, dataset_id: str | None = None) -> dict[str, Any]:
    """Load the merged model and dataset parameters of an experiment, like FuxiCTR's `load_config`.

    Args:
        config_dir: contains `model_config` and `dataset_config`, as files or as folders of files.
        expid: key of the experiment in the model config.
        dataset_id: key in the dataset config; None takes the one that the experiment names.

    Raises:
        InputError: there is no such expid or data set (names the closest), a required key is
            missing, or a value is invalid.

    Example:
        >>> from fuxictr_miss.config import load_params
        >>> load_params("config", "DIN_MISS_demo")["ssl_training"]
        'pretrain'
    """
    model, data, places = load_parts(config_dir, expid, dataset_id)
    params = {**model, **data}
    for key in REQUIRED:
        if key not in params:
            raise InputError(f"{places['']}, has no {key}: add it there or to {_BASE}.")
    return check(params, places)


def load_parts(
    config_dir: str, expid: str, dataset_id: str | None = None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Load the model and the dataset parameters separately and unchecked.

    Returns:
        The model parameters, the dataset parameters, and the place (file and line) of each key.

    Raises:
        InputError: there is no such entry.
    """
    experiments = _entries(config_dir, "model_config")
    if expid not in experiments or expid == _BASE:
        raise _unknown_expid(config_dir, expid, set(experiments) - {_BASE})
    model: dict[str, Any] = {}
    places = {"": f"{experiments[expid].place}, {expid}"}
    for name in (_BASE, expid):
        if name in experiments:
            _merge(model, places, name, experiments[name])
    dataset_id = model.get("dataset_id") if dataset_id is None else dataset_id
    if dataset_id is None:
        raise InputError(f"{places['']}, has no dataset_id: name an entry of dataset_config.")
    datasets = _entries(config_dir, "dataset_config")
    if str(dataset_id) not in datasets:
        raise unknown(f"dataset_id of expid {expid}:", str(dataset_id), datasets)
    data: dict[str, Any] = {}
    _merge(data, places, str(dataset_id), datasets[str(dataset_id)])
    return {**model, "model_id": expid}, {**data, "dataset_id": str(dataset_id)}, places


def check(params: Mapping[str, Any], places: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Validate FuxiCTR's keys and ours, and return `params` with each value converted to its type.

    Args:
        params: the whole config of an experiment.
        places: where each key was read, for the error message.

    Raises:
        InputError: names the place, the key, the value, and the allowed values.
    """
    params = checked(params, places)
    try:
        read_settings(SSLSettings, "ssl_", params)
    except InputError as error:
        place = (places or {}).get("")
        raise InputError(f"{place}: {error}" if place else str(error)) from None
    return params


def override(params: dict[str, Any], assignments: list[str], seed: int | None) -> dict[str, Any]:
    """Apply `--set key=value` and `--seed`, and extend model_id so that the run has its own files.

    Raises:
        InputError: an assignment is not key=value, has an unknown key, or an invalid value.
    """
    changed: dict[str, Any] = {}
    valid = {*params, *Keys.model_fields, *keys_of(SSLSettings, "ssl_")}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set takes key=value, got {assignment!r}.")
        if key not in valid:
            raise unknown("key in --set", key, valid)
        if key in changed:
            raise InputError(f"--set gives {key} twice: remove one of them.")
        changed[key] = text if key in NAMES and text not in ("", "~", "null") else read_value(text)
    if "gpu" in changed:
        raise InputError("--set cannot change gpu: use the option --gpu.")
    if "dataset_id" in changed and changed["dataset_id"] != params.get("dataset_id"):
        raise InputError(
            "--set cannot change dataset_id, which selects all keys of a data set: "
            "give an --expid of that data set."
        )
    seeds = {} if seed is None else {"seed": seed}
    places = {**dict.fromkeys(changed, "--set"), **dict.fromkeys(seeds, "--seed"), "": "--set"}
    params = check({**params, **changed, **seeds}, places)
    if changed:
        items = sorted((key, params[key]) for key in changed)
        params["model_id"] += f"_{hashlib.md5(repr(items).encode()).hexdigest()[:8]}"
    if seed is not None:
        params["model_id"] += f"_seed{seed}"
    return params


def misspelled_keys(params: Mapping[str, Any], arguments: set[str]) -> list[str]:
    """A warning for each ignored key that resembles a key of FuxiCTR or of the model.

    Keys that end with `_field` are skipped: a data set's entry has those of every model.
    """
    valid = {*Keys.model_fields, *arguments}
    sentences = []
    for key in params:
        if key not in valid and not key.startswith(("ssl_", "miss_")) and key[-6:] != "_field":
            close = difflib.get_close_matches(key, valid, n=1, cutoff=0.9)
            if close:
                sentences.append(f"Key {key!r} is ignored. Did you mean {close[0]!r}?")
    return sentences


def _entries(config_dir: str, name: str) -> dict[str, Entry]:
    """All entries of `<name>.yaml` or `<name>/*.yaml`, templates left out."""
    folder = Path(config_dir)
    files = [folder / f"{name}.yaml"]
    if not files[0].exists():
        files = sorted((folder / name).glob("*.yaml"))
    if not files:
        raise InputError(
            f"No {name}.yaml and no {name}/*.yaml in {config_dir!r}: set the folder by --config."
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
    params.update(entry.value)
    places.update(dict.fromkeys(entry.value, f"{entry.place}, {name}"))


def _unknown_expid(config_dir: str, expid: str, valid: set[str]) -> InputError:
    close = " or ".join(repr(name) for name in closest(expid, valid, 3))
    hint = f" Did you mean {close}?" if close else ""
    return InputError(
        f"Unknown expid {expid!r}.{hint} {config_dir} has {len(valid)}: --list prints them."
    )
