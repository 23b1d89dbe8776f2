"""Rows of the splits: encoded ones to trace and check a model with, and ten raw ones to show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from fuxictr.features import FeatureMap
from torch import Tensor

from fuxictr_miss.adapt import padded
from fuxictr_miss.data.column_files import column_files, opened
from fuxictr_miss.data.folder import SPLITS, read_stamp
from fuxictr_miss.errors import InputError
from fuxictr_miss.serving.raw_inputs import RawInputs
from fuxictr_miss.text.id_text import id_text

_ROWS, _SHOWN = 1000, 10  # of encoded rows, of raw rows
_JSON = (pl.String, pl.Boolean, pl.Null)


class Sample:
    """The first rows of the test split, or of the next best, and one without a history.

    Args:
        feature_map: of the model, with the folder of its encoded data.

    Raises:
        InputError: there is no encoded split.
    """

    def __init__(self, feature_map: FeatureMap) -> None:
        self.folder = Path(feature_map.data_dir)
        files: Mapping[str, list[str]] = getattr(feature_map, "files", None) or {
            split: column_files(str(self.folder / f"{split}.parquet")) for split in SPLITS
        }
        self.split = next((split for split in reversed(SPLITS) if files.get(split)), "")
        if not self.split:
            raise InputError(f"{self.folder} holds no encoded split: build the data set again.")
        specs = {n: spec for n, spec in feature_map.features.items() if spec["type"] != "meta"}
        with opened(files[self.split][0]) as file:
            forms = file.forms(list(specs))
            first = {n: next(iter(file.parts(n, form)))[:_ROWS] for n, form in forms.items()}
        self.columns = {
            name: _and_one_more(torch.tensor(values), specs[name]["type"])
            for name, values in first.items()
        }

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))

    def arrays(self, rows: int) -> dict[str, np.ndarray]:
        """The first of the encoded rows as ONNX Runtime takes them."""
        return {name: values[:rows].numpy() for name, values in self.columns.items()}

    def sides(self, feature_map: FeatureMap, padding: str | None, foreign: bool) -> dict[str, str]:
        """Move the padding to the side that the model expects.

        Args:
            feature_map: of the model.
            padding: the side that it expects of sequences which are not pooled; None: any.
            foreign: nothing says on which side the data has it.

        Returns:
            {sequence: its side} where that may not be the column's own.
        """
        sides = {}
        for name, spec in feature_map.features.items():
            if spec["type"] != "sequence":
                continue
            if padding and not spec.get("feature_encoder"):
                (self.columns[name],) = padded([self.columns[name]], padding)
                sides[name] = padding
            elif foreign:
                ids = self.columns[name] != 0
                sides[name] = "pre" if bool((~ids[:, 0] & ids[:, -1]).any()) else "post"
        return sides

    def raw(self, inputs: RawInputs) -> list[dict[str, Any]]:
        """The first raw rows: of the raw split, or decoded by the vocabulary if that is gone."""
        return self._from_split(inputs) or self._decoded(inputs)

    def _from_split(self, inputs: RawInputs) -> list[dict[str, Any]]:
        stamp = read_stamp(self.folder)
        digests = stamp.get("content", {}).get(self.split)
        if not digests or (self.split == "train" and "divided" in stamp["settings"]):
            return []
        path, seen = next((p, f) for p, f in stamp["files"].items() if f["digest"] == digests[0])
        if not Path(path).is_file() or Path(path).stat().st_mtime_ns != seen["mtime_ns"]:
            return []
        if Path(path).suffix == ".csv":
            separator = stamp["settings"].get("sep") or ","
            lazy = pl.scan_csv(path, infer_schema=False, separator=separator, glob=False)
        else:
            lazy = pl.scan_parquet(path, glob=False)
        ids: dict[str, bool] = {}
        for each in inputs.inputs:
            raw = each.get("column", each["name"])
            ids[raw] = ids.get(raw, False) or each["type"] != "numeric"
        rows = lazy.select(list(ids)).head(_SHOWN).collect()
        shown = (_shown(pl.col(name), rows.schema[name], ids[name]) for name in ids)
        return rows.select(shown).to_dicts()

    def _decoded(self, inputs: RawInputs) -> list[dict[str, Any]]:
        decoded = {}
        # of two histories that are one raw column, the longer comes last and stays
        for each in sorted(inputs.inputs, key=lambda each: each.get("max_len", 0)):
            values = self.columns[each["name"]][:-1][:_SHOWN].tolist()
            if each["type"] == "numeric":
                numbers = (_unscaled(value, each["normalizer"]) for value in values)
                whole = each["dtype"] == "int"
                decoded[each["name"]] = [round(n) if whole else n for n in numbers]
                continue
            ids = inputs.vocabularies[each["vocabulary"]]["ids"]
            tokens = {0: "", **{number: token for token, number in ids.items()}}
            stranger = _stranger(ids, each["dtype"])
            if each["type"] == "categorical":
                decoded[each["name"]] = [tokens.get(value, stranger) for value in values]
            else:
                histories = ([tokens.get(value, stranger) for value in row] for row in values)
                decoded[each["name"]] = [
                    each["splitter"].join(_without_padding(history)) for history in histories
                ]
        names = {each["name"]: each.get("column", each["name"]) for each in inputs.inputs}
        return [
            {names[name]: value for name, value in zip(decoded, row, strict=True)}
            for row in zip(*decoded.values(), strict=True)
        ]


def _and_one_more(values: Tensor, kind: str) -> Tensor:
    """The rows as a model takes them, and the first again with no history."""
    values = torch.cat([values, values[:1] * (kind != "sequence")])
    return values.float() if kind == "numeric" else values.long()


def _shown(raw: pl.Expr, dtype: Any, ids: bool) -> pl.Expr:
    """A raw column as JSON has it: ids of a type that it lacks are the text that training reads."""
    if isinstance(dtype, pl.Array):
        return _shown(raw.arr.to_list(), pl.List(dtype.inner), ids)
    if isinstance(dtype, pl.List):
        return raw.list.eval(_shown(pl.element(), dtype.inner, ids))
    if dtype in _JSON or dtype.is_integer():
        return raw
    return id_text(raw, dtype) if ids else raw.cast(pl.Float64).fill_nan(None)


def _stranger(ids: Mapping[str, int], dtype: str) -> str:
    """An id that is not in a vocabulary."""
    if dtype == "int":
        return str(max(map(int, ids)) + 1)
    return next(name for n in range(1, len(ids) + 2) if (name := "?" * n) not in ids)


def _without_padding(history: list[str]) -> list[str]:
    used = [place for place, token in enumerate(history) if token]
    return history[used[0] : used[-1] + 1] if used else []


def _unscaled(value: float, normalizer: Mapping[str, Any] | None) -> float:
    if normalizer is None:
        return value
    if "mean" in normalizer:
        return value * normalizer["scale"] + normalizer["mean"]
    return (value - normalizer["min"]) / normalizer["scale"]
