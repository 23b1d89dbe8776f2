"""The columns of a data set's config, checked before any data is read."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fuxictr_miss.config.feature_names import check_feature_name, names_of
from fuxictr_miss.errors import InputError, hint, unknown

IDS = ("categorical", "sequence", "meta")
TYPES = (*IDS, "numeric", "embedding")
NORMALIZERS = ("StandardScaler", "MinMaxScaler")
_DTYPES = ("str", "int", "float")
_HAS_TABLE = ("categorical", "sequence")
# what FuxiCTR 2.3.10 or this package reads of a column
_KEYS = (
    "active", "category_processor", "dtype", "emb_output_dim", "embedding_dim", "feature_encoder",
    "fill_na", "freeze_emb", "max_len", "min_categr_count", "name", "normalizer", "num_buckets",
    "padding", "preprocess", "pretrain_dim", "pretrain_usage", "pretrained_emb", "remap",
    "share_embedding", "source", "splitter", "type",
)  # fmt: skip
_NO_ID = -(2**31)  # where an int id is missing: FuxiCTR's own filling, 0, may be one
_ALIKE = 0.8  # of a misspelt key and the one that was meant, as difflib counts


def feature_columns(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The active of FuxiCTR's `feature_cols`, one entry a feature, every value one it can use.

    Columns that share an embedding table get one type: text, unless all of them are numbers.

    Raises:
        InputError: names the feature, the key and what it may be.
    """
    named = _expanded(params.get("feature_cols"), "feature_cols")
    for column in named:
        _check_keys(column)
    columns = [_checked(column) for column in named if column.get("active", True)]
    if not columns:
        raise InputError("No entry of feature_cols is active.")
    times = Counter(column["name"] for column in (*columns, *label_columns(params)))
    name, most = times.most_common(1)[0]
    if most > 1:
        raise InputError(f"The data set's config names the column {name!r} twice.")
    _check_sharing(columns)
    _check_group_id(params, columns)
    _one_type_a_table(columns)
    return columns


def label_columns(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """FuxiCTR's `label_col`, as a list; `binary` says whether a label is one of 0 and 1.

    Raises:
        InputError: it names no label, or one without a usable type.
    """
    labels = _expanded(params.get("label_col"), "label_col")
    for place, label in enumerate(labels):
        dtype = _dtype(label, f"Label {label['name']!r}")
        if dtype == "str":
            raise InputError(f"Label {label['name']!r} must have dtype float or int, not str.")
        label |= {"type": "label", "dtype": dtype, "binary": is_binary(params, place)}
    return labels


def is_binary(params: Mapping[str, Any], place: int) -> bool:
    """Whether the label at a place in `label_col` is one of 0 and 1."""
    task = params.get("task") or "binary_classification"
    if isinstance(task, list | tuple):
        task = task[place] if place < len(task) else "binary_classification"
    return task == "binary_classification"


def _expanded(columns: Any, key: str) -> list[dict[str, Any]]:
    """One entry a name, as FuxiCTR lets a list of names share their settings."""
    if isinstance(columns, Mapping):
        columns = [columns]
    if not isinstance(columns, list | tuple) or not columns:
        raise InputError(f"The data set's config names no {key}; got {columns!r}.")
    expanded: list[dict[str, Any]] = []
    for column in columns:
        if not isinstance(column, Mapping) or not column.get("name"):
            raise InputError(f"Every entry of {key} needs a name; got {column!r}.")
        for name in names_of(column):
            if not isinstance(name, str):
                raise InputError(f"A name in {key} must be text; put {name!r} in quotes.")
            expanded.append({**column, "name": name})
    return expanded


def _check_keys(column: Mapping[str, Any]) -> None:
    """Refuse a misspelt key, which FuxiCTR would not read; other unknown ones are somebody's."""
    active = column.get("active", True)
    if not isinstance(active, bool | int):
        raise InputError(
            f"Feature {column['name']!r}: active must be True or False, not {active!r}."
        )
    for key in column.keys() - set(_KEYS):
        if meant := difflib.get_close_matches(str(key).lower(), _KEYS, 1, _ALIKE):
            raise InputError(
                f"Feature {column['name']!r} has the key {key!r}, which nothing reads: write "
                f"{meant[0]!r}, or remove it."
            )


def _checked(column: dict[str, Any]) -> dict[str, Any]:
    name, kind = column["name"], column.get("type")
    if kind not in TYPES:
        raise unknown(f"type of feature {name!r}:", str(kind), TYPES)
    column = {"active": True, **column, "dtype": _dtype(column, f"Feature {name!r}")}
    if kind != "meta":
        check_feature_name(name)
    if kind == "numeric":
        _check_numeric(column)
    elif kind == "sequence":
        _check_sequence(column)
    elif kind == "embedding":
        _check_whole(column, "pretrain_dim", least=1)
        column["dtype"] = "list"  # a type that FuxiCTR fills nothing into
    if "category_processor" in column:
        raise InputError(
            f"Feature {name!r}: category_processor does not run in FuxiCTR 2.3.10; put the buckets "
            "into the data and remove the key."
        )
    if column.get("preprocess"):  # its function expects what the config declares
        column["declared"] = {key: column[key] for key in ("dtype", "fill_na") if key in column}
    if column.get("min_categr_count") is not None:
        _check_whole(column, "min_categr_count", least=1)
    return column


def _dtype(column: Mapping[str, Any], who: str) -> str:
    dtype = column.get("dtype")
    name = dtype.__name__ if isinstance(dtype, type) else dtype
    if name not in _DTYPES and column.get("type") != "embedding":
        raise InputError(f"{who} must have dtype {', '.join(_DTYPES)}; got {dtype!r}.")
    return str(name)


def _check_numeric(column: Mapping[str, Any]) -> None:
    name, fill = column["name"], column.get("fill_na")
    if column["dtype"] == "str":
        raise InputError(f"Numeric feature {name!r} must have dtype float or int, not str.")
    if fill is not None and not (_is_number(fill) and math.isfinite(fill)):
        raise InputError(f"Numeric feature {name!r}: fill_na must be a number; got {fill!r}.")
    if "normalizer" in column and column["normalizer"] not in NORMALIZERS:
        raise unknown(f"normalizer of {name!r}:", str(column["normalizer"]), NORMALIZERS)


def _check_sequence(column: Mapping[str, Any]) -> None:
    name = column["name"]
    if column.get("max_len"):
        _check_whole(column, "max_len", least=1)
    if column.get("padding", "post") not in ("pre", "post"):
        raise unknown(f"padding of {name!r}:", str(column["padding"]), ("pre", "post"))
    splitter = column.get("splitter", "^")
    if not isinstance(splitter, str) or not splitter:
        raise InputError(f"Sequence {name!r}: splitter must be text; got {splitter!r}.")


def _check_whole(column: Mapping[str, Any], key: str, least: int) -> None:
    value = column.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(
            f"Feature {column['name']!r}: {key} must be a whole number of {least} or more; "
            f"got {value!r}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_sharing(columns: list[dict[str, Any]]) -> None:
    before: list[str] = []
    for column in columns:
        target = column.get("share_embedding")
        if target is not None and target not in before:
            raise InputError(
                f"Feature {column['name']!r} shares the embedding of {target!r}, which is not an "
                f"active categorical or sequence column before it in feature_cols."
                f"{hint(target, before)}"
            )
        if column["type"] in _HAS_TABLE:
            before.append(column["name"])


def _check_group_id(params: Mapping[str, Any], columns: list[dict[str, Any]]) -> None:
    group_id, names = params.get("group_id"), [column["name"] for column in columns]
    if group_id is not None and group_id not in names:
        raise InputError(
            f"group_id {group_id!r} is not an active column of feature_cols.{hint(group_id, names)}"
        )


def _one_type_a_table(columns: list[dict[str, Any]]) -> None:
    """Of the ids of a table: text, unless every column of it is declared int.

    Otherwise 4 in one column and "4" in another would be two rows of the table.
    """
    table = {column["name"]: column.get("share_embedding") for column in columns}
    text: set[str] = set()  # the first columns of such tables

    def first(name: str) -> str:
        while table.get(name):
            name = str(table[name])
        return name

    for column in columns:
        whole = column["dtype"] == "int" and column["type"] != "sequence"
        if column["type"] in IDS and not whole:
            text.add(first(column["name"]))
    for column in columns:
        if column["type"] == "meta" and not column.get("remap", True):
            column["dtype"] = "int"
        elif column["type"] in IDS and first(column["name"]) in text:
            column["dtype"] = "str"
            if "fill_na" in column:
                fill = column["fill_na"]
                whole = isinstance(fill, float) and fill.is_integer()
                column["fill_na"] = str(int(fill) if whole else fill)
        if column["type"] == "categorical" and column["dtype"] == "int":
            column.setdefault("fill_na", _NO_ID)
        fill = column.get("fill_na", 0)
        if column["type"] in IDS and column["dtype"] == "int" and not isinstance(fill, int):
            raise InputError(f"Feature {column['name']!r}: fill_na must be an int; got {fill!r}.")
