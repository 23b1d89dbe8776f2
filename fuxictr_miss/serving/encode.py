"""Raw rows -> the arrays that a model takes, as training encoded its splits.

Ids are looked up by a cast to a polars Enum of the vocabulary, whose hash table is built once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fuxictr_miss.errors import InputError
from fuxictr_miss.raw_values import Never, broken_row, typed, wanted
from fuxictr_miss.serving.rows import check_present

_RESERVED = ("__PAD__", "__OOV__")
_REFUSED = -1  # in place of the id of a reserved token
_NO_ID = (
    "a history begins and ends with an id, and no id is __PAD__ or __OOV__: leave padding to the "
    "model"
)


class Encoder:
    """Encodes raw rows by what `vocab.json` says.

    Args:
        inputs: its `inputs`, those that the model reads.
        vocabularies: its `vocabularies`.
    """

    def __init__(
        self, inputs: Sequence[Mapping[str, Any]], vocabularies: Mapping[str, Mapping[str, Any]]
    ) -> None:
        fills: dict[str, set[str]] = {}
        for each in inputs:
            if each["type"] != "numeric":
                fills.setdefault(each["vocabulary"], set()).add(str(each["fill_na"]))
        tables = {name: _Vocabulary(vocabularies[name], each) for name, each in fills.items()}
        self._columns = [_Column(each, tables.get(each.get("vocabulary", ""))) for each in inputs]
        self._plans: dict[tuple[pl.DataType, ...], _Plan] = {}
        self.unknown = {each.raw: 0 for each in self._columns if each.vocabulary}

    @property
    def columns(self) -> list[str]:
        """The raw columns that rows must have."""
        return [each.raw for each in self._columns]

    def encode(self, rows: pl.DataFrame, place: str = "", before: int = 0) -> dict[str, np.ndarray]:
        """The arrays by name: (B,) ids or numbers, (B, max_len) ids of the newest behaviors.

        Args:
            rows: raw; other columns may be among them.
            place: of the rows, at the start of an error's sentence, such as "new.csv, ".
            before: how many rows stand before these, for the row that an error names.

        Raises:
            InputError: a column is missing, or of a type that cannot be used; or names a row,
                counted from 1, and its column.
        """
        plan = self._plan(rows, place)
        values = rows.select_seq(plan.selected)  # in this thread: a pool's would have to wake up
        for number, rule in enumerate(plan.rules):
            broken = values[f"rule {number}"]
            if broken.any():
                row = int(broken.arg_true()[0])
                value = rows[rule.column][row]
                raise broken_row(place, before + row, rule.column, value, rule.says)
        encoded = [(column, column.encode(values[column.name])) for column in self._columns]
        for column, each in encoded:
            if each.refused is not None:
                value = rows[column.raw][each.refused]
                raise broken_row(place, before + each.refused, column.raw, value, _NO_ID)
        for column, each in encoded:
            if column.vocabulary:
                self.unknown[column.raw] += each.unknown
        return {column.name: each.array for column, each in encoded}

    def _plan(self, rows: pl.DataFrame, place: str) -> _Plan:
        schema = rows.schema
        check_present(place, self.columns, schema)
        types = tuple(schema[raw] for raw in self.columns)
        if types not in self._plans:
            self._plans[types] = _plan(self._columns, types, place)
        return self._plans[types]


class _Rule(NamedTuple):
    column: str
    says: str


class _Plan(NamedTuple):
    """What to select from rows of some types; kept, as its expressions hold no rows."""

    selected: list[pl.Expr]  # the inputs, and whether a row breaks "rule 0", "rule 1", ...
    rules: list[_Rule]


def _plan(columns: list[_Column], types: Sequence[pl.DataType], place: str) -> _Plan:
    plan = _Plan([], [])
    for column, dtype in zip(columns, types, strict=True):
        values, never = column.typed(dtype, place)
        plan.selected.append(values.alias(column.name))
        for each in never:
            plan.selected.append(each.broken.alias(f"rule {len(plan.rules)}"))
            plan.rules.append(_Rule(column.raw, each.says))
    return plan


class _Vocabulary:
    """Token -> id, by the place of a token among all."""

    def __init__(self, entry: Mapping[str, Any], fills: set[str]) -> None:
        self.oov = entry["oov"]
        numbers = range(entry.get("size", 0))
        self.ids = entry.get("ids", {str(n): n for n in numbers if n != self.oov})
        tokens = [*self.ids, *sorted({"", *fills, *_RESERVED} - self.ids.keys())]
        self._places = {token: place for place, token in enumerate(tokens)}
        self.empty = self._places[""]
        self.unknown = len(tokens)  # the place of every other token
        known = pl.col("token").cast(pl.Enum(tokens), strict=False).to_physical()
        self._lookup = known.fill_null(self.unknown)

    def table(self, fill: str, filled: int | None) -> np.ndarray:
        """Place -> id.

        Args:
            fill: what stands for a missing value.
            filled: its id; None: as any token's.
        """
        table = np.full(self.unknown + 1, self.oov, np.int64)
        table[: len(self.ids)] = list(self.ids.values())
        for token in _RESERVED:
            table[self._places[token]] = _REFUSED
        table[self._places[fill]] = self.ids.get(fill, self.oov) if filled is None else filled
        return table

    def places(self, tokens: pl.Series) -> np.ndarray:
        return tokens.to_frame("token").select(self._lookup).to_series().to_numpy()


class _Column:
    """One input of the model."""

    def __init__(self, spec: Mapping[str, Any], vocabulary: _Vocabulary | None) -> None:
        self.name = spec["name"]
        self.raw = spec.get("column", self.name)
        self.vocabulary = vocabulary
        self._spec = {**spec, "name": self.raw}
        self._is_sequence = spec["type"] == "sequence"
        if vocabulary:
            padding = 0 if self._is_sequence else None
            self._table = vocabulary.table(str(spec["fill_na"]), padding)
        if self._is_sequence:
            places = np.arange(spec["max_len"])
            self._places = places[::-1] if spec["padding"] == "pre" else places

    def typed(self, dtype: pl.DataType, place: str) -> tuple[pl.Expr, list[Never]]:
        """The values of a raw column of this type: text, or float32; and what they may not be."""
        spec = self._spec
        column = typed(spec, dtype)
        if column is None:
            raise InputError(
                f"{place}column {self.raw!r} is {dtype}, where the model reads "
                f"{wanted(spec, dtype)}: convert the column."
            )
        values, never = column
        if spec["type"] == "numeric":
            return _normalized(values, spec.get("normalizer")).cast(pl.Float32), never
        return values.cast(pl.String).fill_null(str(spec["fill_na"])), never

    def encode(self, values: pl.Series) -> _Encoded:
        if self.vocabulary is None:
            return _Encoded(values.to_numpy())
        if self._is_sequence:
            return self._histories(values, self.vocabulary)
        places = self.vocabulary.places(values)
        ids = self._table[places]
        unknown = np.count_nonzero(places == self.vocabulary.unknown)
        return _Encoded(ids, int(unknown), _first(ids == _REFUSED))

    def _histories(self, texts: pl.Series, vocabulary: _Vocabulary) -> _Encoded:
        """Rows side by side are often of one user: a history is looked up once for all of them."""
        firsts = np.flatnonzero(texts.ne_missing(texts.shift()))
        repeats = np.diff(firsts, append=len(texts))
        if len(firsts) < len(texts):
            texts = texts.gather(firsts)
        tokens, longest = texts.str.split(self._spec["splitter"]), len(self._places)
        lengths = tokens.list.len().to_numpy()
        places = vocabulary.places(tokens.explode(empty_as_null=False))
        ends = np.cumsum(lengths)
        empty = places == vocabulary.empty
        padded = _first((lengths > 1) & (empty[ends - lengths] | empty[ends - 1]))
        if padded is not None:
            return _Encoded(refused=int(firsts[padded]))
        if lengths.max(initial=0) > longest:
            back = np.repeat(ends, lengths) - np.arange(len(places))  # 1 is the newest
            places, lengths = places[back <= longest], np.minimum(lengths, longest)
        ids = self._table[places]
        refused = _first(ids == _REFUSED)
        if refused is not None:
            refused = int(np.repeat(firsts, lengths)[refused])
        strangers = places == vocabulary.unknown
        unknown = np.repeat(repeats, lengths)[strangers].sum() if strangers.any() else 0
        array = np.zeros((len(texts), longest), np.int64)
        array[self._places < lengths[:, None]] = ids
        return _Encoded(np.repeat(array, repeats, axis=0), int(unknown), refused)


class _Encoded(NamedTuple):
    """An input of the model."""

    array: np.ndarray = np.empty(0)
    unknown: int = 0  # ids
    refused: int | None = None  # the first row with a token that is no id


def _first(found: np.ndarray) -> int | None:
    return int(np.argmax(found)) if found.any() else None


def _normalized(number: pl.Expr, normalizer: Mapping[str, Any] | None) -> pl.Expr:
    if normalizer is None:
        return number
    number = number.cast(pl.Float64)
    if normalizer["name"] == "StandardScaler":
        return (number - normalizer["mean"]) / normalizer["scale"]
    return number * normalizer["scale"] + normalizer["min"]
