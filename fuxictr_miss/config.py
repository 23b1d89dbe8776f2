"""FuxiCTR's YAML configs: expids, overrides from the command line, and keys that do not exist."""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import yaml

from fuxictr_miss.errors import InputError, unknown

# What FuxiCTR 2.3.10 itself reads from a config, beyond a model's own arguments.
FUXICTR_KEYS = set(
    """
    batch_size buffer_size data_block_size data_format data_loader data_root dataset_id debug_mode
    early_stop_patience embedding_dim embedding_regularizer epochs eval_steps feature_cols
    feature_config feature_specs gpu group_id label_col learning_rate loss loss_weight
    max_gradient_norm metrics min_categr_count model model_id model_root monitor monitor_mode
    net_regularizer num_buckets num_tasks num_workers optimizer pickle_feature_encoder
    rebuild_dataset reduce_lr_on_plateau save_best_only seed sep shuffle split_type task test_data
    test_size train_data use_features valid_data valid_size verbose
    """.split()  # noqa: SIM905
)
OWN_KEYS = """
    autocast label_noise_rate memory_budget_gb model_zoo_path preprocess_command train_sample_rate
    vocab_data vocab_scope
""".split()  # noqa: SIM905


def list_expids(config_dir: str) -> list[str]:
    """All experiment ids below `config_dir`, sorted; names with a leading "_" are templates.

    Raises:
        InputError: there is no model config there.
    """
    return sorted(name for name in _entries(config_dir, "model_config") if name != "Base")


def list_datasets(config_dir: str) -> list[str]:
    """All data sets below `config_dir`, sorted.

    Raises:
        InputError: there is no dataset config there.
    """
    return sorted(_entries(config_dir, "dataset_config"))


def load_params(config_dir: str, expid: str) -> dict[str, Any]:
    """The merged model and dataset parameters of an experiment, as FuxiCTR's `load_config`.

    Raises:
        InputError: the expid or its data set is not in the config; names the closest.
    """
    experiments = _entries(config_dir, "model_config")
    if expid not in experiments or expid == "Base":
        raise unknown("expid", expid, set(experiments) - {"Base"})
    params = {**experiments.get("Base", {}), **experiments[expid], "model_id": expid}
    dataset_id = params.get("dataset_id")
    datasets = _entries(config_dir, "dataset_config")
    if dataset_id not in datasets:
        raise unknown(f"dataset_id of expid {expid}:", str(dataset_id), datasets)
    return {**params, **datasets[dataset_id], "dataset_id": dataset_id}


def override(params: dict[str, Any], assignments: list[str], seed: int | None) -> dict[str, Any]:
    """Apply `--set key=value` and `--seed`; the run gets a model_id of its own.

    Raises:
        InputError: not of the form key=value, or no such key.
    """
    changed: dict[str, Any] = {}
    valid = {*params, *FUXICTR_KEYS, *OWN_KEYS}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set takes key=value, got {assignment!r}.")
        if key not in valid:
            raise unknown("key in --set", key, valid)
        changed[key] = _value(text)
    params = {**params, **changed}
    if changed:
        digest = hashlib.md5(repr(sorted(changed.items())).encode()).hexdigest()
        params["model_id"] += f"_{digest[:8]}"
    if seed is not None:
        params["seed"] = seed
        params["model_id"] += f"_seed{seed}"
    return params


def misspelt(params: Mapping[str, Any], arguments: set[str]) -> list[str]:
    """One sentence a key that neither FuxiCTR nor the model reads but that looks like one.

    A data set's entry names the fields of every model, in keys that end with `_field`.
    """
    valid = {*FUXICTR_KEYS, *OWN_KEYS, *arguments}
    sentences = []
    for key in params:
        if key not in valid and not key.startswith(("ssl_", "miss_")) and key[-6:] != "_field":
            close = difflib.get_close_matches(key, valid, n=1, cutoff=0.9)
            if close:
                sentences.append(f"Key {key!r} is ignored. Did you mean {close[0]!r}?")
    return sentences


def _value(text: str) -> Any:
    """A YAML value; "1e-3" is a number here too, which YAML 1.1 takes for a string."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set: {text!r} is not a YAML value.") from error
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def _entries(config_dir: str, name: str) -> dict[str, Any]:
    """All entries of `<name>.yaml` or `<name>/*.yaml`, templates left out."""
    files = glob.glob(os.path.join(config_dir, f"{name}.yaml"))
    files = files or sorted(glob.glob(os.path.join(config_dir, name, "*.yaml")))
    if not files:
        raise InputError(
            f"No {name}.yaml and no {name}/*.yaml in {config_dir!r}. Name the folder by --config."
        )
    entries: dict[str, Any] = {}
    for path in files:
        with open(path, encoding="utf-8") as file:
            try:
                content = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            except yaml.YAMLError as error:
                raise InputError(f"{path} is not valid YAML: {error}") from error
        entries.update({str(k): v for k, v in (content or {}).items() if str(k)[:1] != "_"})
    return entries
