"""Where the relative paths of a config begin: the working folder, or one of the config's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuxictr_miss.errors import InputError
from fuxictr_miss.files import matching_files

_READ = ("train_data", "valid_data", "test_data", "vocab_data")
_OF_A_FEATURE = "pretrained_emb"
_LEVELS = 3  # the config's folder, FuxiCTR's model folder around it, and that of FuxiCTR's demo


def with_found_paths(config_dir: str | Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an experiment with paths that lead to its data.

    FuxiCTR's configs are written for the folder in which its scripts stand. So if the working
    folder does not have the data, but the config's folder or one of the two above it does, every
    relative path of the data begins there. If nobody has it, nothing changes.

    Raises:
        InputError: more than one of these has the data.
    """
    if _has_data(Path(), params):
        return dict(params)
    config = Path(config_dir).absolute()
    having = [each for each in (config, *config.parents)[:_LEVELS] if _has_data(each, params)]
    if len(having) > 1:
        raise InputError(
            f"The data of {params.get('dataset_id')} is in {' and in '.join(map(str, having))}: "
            "start in the folder that is meant, or write the paths in dataset_config in full."
        )
    return _moved(params, having[0]) if having else dict(params)


def _has_data(start: Path, params: Mapping[str, Any]) -> bool:
    """Whether a folder leads to the training split or to encoded data."""
    encoded = start / str(params.get("data_root")) / str(params.get("dataset_id"))
    if _exists(start, params.get("train_data"), params.get("data_format")):
        return True
    return (encoded / "feature_map.json").exists()


def _exists(start: Path, path: Any, ending: Any = None) -> bool:
    if not isinstance(path, str) or not path:
        return False
    place = str(start / path)
    there = os.path.exists(place) or os.path.exists(f"{place}.{ending}")
    return there or bool(matching_files(place))


def _moved(params: Mapping[str, Any], start: Path) -> dict[str, Any]:
    def moved(path: Any) -> Any:
        return os.path.normpath(start / path) if _exists(start, path) else path

    new = {**params, **{key: moved(params[key]) for key in _READ if key in params}}
    file, colon, kind = str(params.get("feature_processor")).rpartition(":")
    if colon:
        new["feature_processor"] = f"{moved(file)}:{kind}"
    if isinstance(params.get("data_root"), str):  # may be written first by us
        new["data_root"] = os.path.normpath(start / params["data_root"])
    if isinstance(params.get("feature_cols"), list):
        new["feature_cols"] = [
            {**column, _OF_A_FEATURE: moved(column[_OF_A_FEATURE])}
            if isinstance(column, dict) and _OF_A_FEATURE in column
            else column
            for column in params["feature_cols"]
        ]
    return new
