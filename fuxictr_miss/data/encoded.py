"""Data that is encoded already, by FuxiCTR or by another config: read, and never written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fuxictr_miss.config import Config
from fuxictr_miss.data.column_files import column_files
from fuxictr_miss.data.columns import IDS, TYPES, feature_columns, is_binary, label_columns
from fuxictr_miss.data.folder import FEATURE_MAP, SPLITS, VOCABULARY, read_stamp
from fuxictr_miss.errors import InputError, explained, unknown

_ONLY_ENCODED = ("npz", "h5")  # formats that no raw data has
_WIDTH = {"sequence": "max_len", "embedding": "pretrain_dim"}  # the key that says how wide
_NEEDS = {"categorical": ("vocab_size",), "sequence": ("vocab_size", "max_len"),
          "embedding": ("pretrain_dim",)}  # fmt: skip


def is_encoded(config: Config) -> bool:
    """Whether a data set is used as it is: a feature map that is not ours, or its format, says so.

    Raises:
        InputError: it has to be encoded already, and has no feature map.
    """
    folder = encoded_folder(config)
    by_format = config.data_format in _ONLY_ENCODED
    if os.path.lexists(folder / FEATURE_MAP):
        return by_format or not (config.feature_cols and read_stamp(folder))
    if config.data_format == "csv" or (config.feature_cols and not by_format):
        return False
    what = f"data_format {config.data_format}" + ("" if by_format else " without feature_cols")
    raise InputError(
        f"{folder / FEATURE_MAP} is not there, and {what} is data that is encoded already: set "
        "data_root and dataset_id to its folder, or give feature_cols and raw csv or parquet files."
    )


def encoded_folder(config: Config) -> Path:
    """Where a data set's feature map is or will be."""
    return Path(config.data_root) / config.dataset_id


def numbered_ids(folder: Path, then: str) -> dict[str, dict[str, int]]:
    """The ids of each feature of encoded data with a vocabulary, and the number of each.

    Args:
        folder: of the encoded data.
        then: what to do where there is no vocabulary.

    Raises:
        InputError: it is not there, or damaged.
    """
    path = folder / VOCABULARY
    with explained((OSError, ValueError), f"The vocabulary {path} cannot be read", then):
        return json.loads(path.read_text(encoding="utf-8"))


def unknown_id(spec: Mapping[str, Any]) -> int:
    """The id of what is out of a feature's vocabulary; -1 where all is in it, as in a meta column.

    Args:
        spec: of the feature in the feature map, which has `oov_idx` only beside a pretrained_emb:
            the ids of that file alone stand behind it.
    """
    return int(spec.get("oov_idx", spec.get("vocab_size", 0) - 1))


def encoded_splits(config: Config) -> dict[str, str]:
    """The files, or folders of files, of the splits of a data set that is used as it is.

    As FuxiCTR does, raw data leads to the files that stand beside the feature map, and encoded
    data is read from where the config says.

    Raises:
        InputError: the feature map is of other data or cannot be used, or a split is missing.
    """
    folder = encoded_folder(config)
    _check_feature_map(folder / FEATURE_MAP, config)
    named = {split: getattr(config, f"{split}_data") for split in SPLITS}
    named["valid"] = named["valid"] or (config.valid_size and "valid")
    named["test"] = named["test"] or (config.test_size and "test")
    splits = {split: _place(config, folder, split, path) for split, path in named.items() if path}
    if "train" not in splits:
        raise InputError(f"Data set {config.dataset_id!r} names no train_data.")
    return splits


def _place(config: Config, folder: Path, split: str, path: str) -> str:
    beside = [str(folder / f"{split}.parquet"), str(folder / split)]
    there = [path, f"{path}.{config.data_format}"]
    if config.data_format == "csv":
        places = beside
    elif config.data_format == "parquet" and config.feature_cols:
        places = there if Path(path).resolve().parent == folder.resolve() else [*beside, *there]
    else:
        places = there
    found = next((place for place in places if column_files(place)), None)
    if found is None:
        raise InputError(
            f"The {split} split is not there: {' or '.join(places)}. The data of "
            f"{folder / FEATURE_MAP} is used as it is: complete it, or set another data_root or "
            "dataset_id to encode raw data."
        )
    return found


def _check_feature_map(path: Path, config: Config) -> None:
    then = "name the folder of a data set that FuxiCTR 2 encoded"
    with explained((OSError, ValueError), f"{path} cannot be read", then):
        content = json.loads(path.read_text(encoding="utf-8"))
    try:
        labels = list(content["labels"])
        specs = {name: dict(spec) for entry in content["features"] for name, spec in entry.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no feature map of FuxiCTR 2: {then}.") from error
    if content.get("dataset_id") != config.dataset_id:
        raise InputError(
            f"{path} is of the data set {content.get('dataset_id')!r}, not {config.dataset_id!r}: "
            "name the entry of dataset_config and the folder after it."
        )
    for name, spec in specs.items():
        if spec.get("type") not in TYPES:
            raise unknown(f"type of {name!r} in {path}:", str(spec.get("type")), TYPES)
        lacks = [key for key in _NEEDS.get(spec["type"], ()) if not isinstance(spec.get(key), int)]
        if lacks:
            raise InputError(f"{path} has no {lacks[0]} for {name!r}: encode the data again.")
    if config.feature_cols:
        _check_same(path, "feature_cols", specs, feature_columns(config.params))
    if config.label_col:
        _check_same(path, "label_col", labels, label_columns(config.params))
    config.check_names(list(specs))


def _check_same(path: Path, key: str, has: Iterable[str], named: list[dict[str, Any]]) -> None:
    names = [column["name"] for column in named]
    if set(has) != set(names):
        raise InputError(
            f"{path} has the columns {', '.join(has)}, but {key} names {', '.join(names)}: set "
            f"another dataset_id to encode the raw data, or remove {key} to use what is encoded."
        )


def check_encoded(
    columns: dict[str, Tensor], feature_map: Any, params: Mapping[str, Any], path: str
) -> None:
    """Check the columns of a split against the feature map; whole ids in floats become int64.

    Args:
        columns: {name: (rows,) or (rows, width)}.
        feature_map: FuxiCTR's FeatureMap.
        params: the config; its `task` says which labels are 0 or 1.
        path: of the split, for the error.

    Raises:
        InputError: a column has another width, an id that has no row in its table, or a value that
            is not finite; a binary label is not 0 or 1.
    """
    for name, spec in feature_map.features.items():
        width, kind = spec.get(_WIDTH.get(spec["type"])), spec["type"]
        if list(columns[name].shape[1:]) != ([] if width is None else [width]):
            raise _misfit(path, name, f"rows of shape {tuple(columns[name].shape[1:])}", spec)
        if kind in IDS and columns[name].is_floating_point():
            whole = columns[name].long()
            if not columns[name].equal(whole.to(columns[name].dtype)):
                raise _misfit(path, name, "fractions", spec)
            columns[name] = whole
        values = columns[name]
        if kind in _NEEDS and kind in IDS:
            low, high = values.aminmax()
            if low < 0 or high >= spec["vocab_size"]:
                raise _misfit(path, name, f"the id {int(low if low < 0 else high)}", spec)
        elif not values.isfinite().all():
            raise _misfit(path, name, "a value that is not finite", spec)
    for place, name in enumerate(feature_map.labels):
        values, binary = columns[name], is_binary(params, place)
        if values.ndim != 1 or not values.isfinite().all():
            raise InputError(f"{path}: the label {name!r} must be one finite number a row.")
        if binary and not ((values == 0) | (values == 1)).all():
            bad = values[(values != 0) & (values != 1)][0].item()
            raise InputError(
                f"{path}: the label {name!r} is {bad:g} in a row; a label of binary_classification "
                "is 0 or 1: map the labels, or set task: regression with a loss for it."
            )


def _misfit(path: str, name: str, holds: str, spec: Mapping[str, Any]) -> InputError:
    keys = _NEEDS.get(spec["type"], ())
    says = ", ".join([spec["type"], *(f"{key} {spec[key]}" for key in keys)])
    return InputError(
        f"{path}: column {name!r} holds {holds}, but {FEATURE_MAP} says {says}: they are of "
        "different data, so encode it again or name the right files."
    )
