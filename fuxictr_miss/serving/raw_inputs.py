"""What a model reads of a raw row: columns, vocabularies and scalings, as `vocab.json` has them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fuxictr.features import FeatureMap

from fuxictr_miss.config import Config
from fuxictr_miss.data.columns import IDS, feature_columns
from fuxictr_miss.data.encoded import numbered_ids
from fuxictr_miss.data.folder import FEATURE_MAP, PROCESSOR, VOCABULARY, read_stamp, unchanged
from fuxictr_miss.errors import InputError
from fuxictr_miss.text.id_text import RESERVED

_COPY = re.compile(r"copy_from(?:\((.*)\))?")  # FuxiCTR's only preprocess function
_WITHOUT_IDS = (
    "export a model that was trained on raw splits, or use --backbone "
    f"({FEATURE_MAP} and weights only)"
)


class RawInputs(NamedTuple):
    """The inputs of a model in the order of its feature map."""

    inputs: list[dict[str, Any]]
    vocabularies: dict[str, dict[str, Any]]

    def of(self, names: list[str]) -> RawInputs:
        """Those with these names, and their vocabularies."""
        inputs = [each for each in self.inputs if each["name"] in names]
        used = {each.get("vocabulary") for each in inputs}
        return RawInputs(inputs, {k: v for k, v in self.vocabularies.items() if k in used})


def raw_inputs(
    feature_map: FeatureMap, columns: Mapping[str, dict[str, Any]], sides: Mapping[str, str]
) -> RawInputs:
    """How each feature of a model is encoded from a raw row.

    Args:
        feature_map: of the model.
        columns: of `columns_of`.
        sides: {sequence: the side of its padding} where that is not the column's own.

    Raises:
        InputError: a column cannot be encoded from a raw row alone, or there is no vocabulary.
    """
    folder = Path(feature_map.data_dir)
    features = {n: spec for n, spec in feature_map.features.items() if spec["type"] != "meta"}
    encoded = any(spec["type"] in IDS for spec in features.values())
    vocabulary = numbered_ids(folder, _WITHOUT_IDS) if encoded else {}
    inputs: list[dict[str, Any]] = []
    vocabularies: dict[str, dict[str, Any]] = {}
    for name, spec in features.items():
        column = columns.get(name, {"dtype": "float" if spec["type"] == "numeric" else "str"})
        entry = {"name": name, "type": spec["type"], "dtype": column["dtype"]}
        if source := _source(name, column, columns):
            entry["column"] = source
        if spec["type"] == "numeric":
            scale = _normalizer(folder, name) if column.get("normalizer") else None
            entry |= {"fill_na": column.get("fill_na"), "normalizer": scale}
        elif spec["type"] in ("categorical", "sequence"):
            empty = "" if column["dtype"] == "str" else 0
            entry["fill_na"] = column.get("fill_na", empty)
            if spec["type"] == "sequence":
                entry["splitter"] = column.get("splitter", "^")
                entry["max_len"] = spec["max_len"]
                entry["padding"] = sides.get(name, column.get("padding", "post"))
            if name not in vocabulary:
                raise InputError(f"{folder / VOCABULARY} has no ids of {name!r}.")
            entry["vocabulary"] = _stored(name, vocabulary[name], vocabularies)
        else:
            raise InputError(
                f"{name!r} is of type {spec['type']}: such vectors cannot be read from raw rows; "
                "export a model without it, or use --backbone."
            )
        inputs.append(entry)
    return RawInputs(inputs, vocabularies)


def columns_of(feature_map: FeatureMap, config: Config | None) -> dict[str, dict[str, Any]]:
    """The checked `feature_cols` of encoded data, by name.

    Args:
        feature_map: with the folder of the data.
        config: describes data that somebody else encoded.

    Returns:
        {} where nothing describes them.
    """
    params = read_stamp(Path(feature_map.data_dir)).get("settings") or (config and config.params)
    if not (params and params.get("feature_cols")):
        return {}
    label = {"name": "-", "dtype": "float"}  # whichever it is
    columns = feature_columns({"feature_cols": params["feature_cols"], "label_col": label})
    return {column["name"]: column for column in columns}


def _stored(name: str, ids: dict[str, int], vocabularies: dict[str, dict[str, Any]]) -> str:
    """The name of an equal vocabulary that is stored already, or of this one, which is then."""
    tokens = {token: number for token, number in ids.items() if token not in RESERVED}
    entry = {"oov": ids["__OOV__"], "ids": tokens}
    known = next((other for other, stored in vocabularies.items() if stored == entry), None)
    if known is None:
        vocabularies[name] = entry
    return known or name


def _source(
    name: str, column: Mapping[str, Any], columns: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """The raw column that a feature is a copy of, if it is not read from its own."""
    if not column.get("preprocess"):
        return None
    copied = _COPY.fullmatch(column["preprocess"])
    source = (copied and copied[1]) or name
    if not copied or columns.get(source, {}).get("preprocess", copied[0]) != copied[0]:
        raise InputError(
            f"Column {name!r} is made by the preprocess function {column['preprocess']!r}, which a "
            "raw row cannot go through when it is scored: write its values into the data, and "
            "remove preprocess."
        )
    return source if source != name else None


def _normalizer(folder: Path, name: str) -> dict[str, Any]:
    """The fitted scaling of a numeric column."""
    stamp = read_stamp(folder)
    if not (stamp and unchanged(folder, stamp)):
        raise InputError(
            f"The normalizer of {name!r} is only in a pickle that this program did not write: "
            "encode the raw data here, and train on that."
        )
    with open(folder / PROCESSOR, "rb") as file:
        processor = pickle.load(file)
    scaler = processor.processor_dict[f"{name}::normalizer"].normalizer.__self__
    first = {"mean": scaler.mean_} if hasattr(scaler, "mean_") else {"min": scaler.min_}
    numbers = {key: float(value[0]) for key, value in {**first, "scale": scaler.scale_}.items()}
    return {"name": type(scaler).__name__, **numbers}
