"""Raw rows -> the arrays that a model takes, as training encoded its splits.

Ids are looked up by a cast to a polars Enum of the vocabulary, whose hash table is built once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fuxictr_miss.errors import InputError
from fuxictr_miss.serving.rows import check_present
from fuxictr_miss.text.id_text import RESERVED
from fuxictr_miss.text.raw_values import Never, broken_row, typed, wanted

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
        self._lookups = [each for column in self._columns for each in column.lookups]
        self._tokens = [each for column in self._columns for each in column.tokens]
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
        found = {each.name: each for each in values.get_columns()}
        looked_up = values.select_seq(self._lookups)
        for frame in (looked_up, looked_up.select_seq(self._tokens)):  # a list a column
            found |= {each.name: each[0] for each in frame.get_columns()}
        encoded = [(column, column.encode(found, len(rows))) for column in self._columns]
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
        self.oov, self.ids = entry["oov"], entry["ids"]
        tokens = [*self.ids, *sorted({"", *fills, *RESERVED} - self.ids.keys())]
        self._places = {token: place for place, token in enumerate(tokens)}
        self.empty = self._places[""]
        self.unknown = len(tokens)  # the place of every other token
        self._enum = pl.Enum(tokens)

    def places(self, tokens: pl.Expr) -> pl.Expr:
        """The place of each token. Keep the expression: it holds the hash table."""
        return tokens.cast(self._enum, strict=False).to_physical().fill_null(self.unknown)

    def table(self, fill: str, filled: int | None) -> np.ndarray:
        """Place -> id.

        Args:
            fill: what stands for a missing value.
            filled: its id; None: as any token's.
        """
        table = np.full(self.unknown + 1, self.oov, np.int64)
        table[: len(self.ids)] = list(self.ids.values())
        for token in RESERVED:
            table[self._places[token]] = _REFUSED
        table[self._places[fill]] = self.ids.get(fill, self.oov) if filled is None else filled
        return table


class _Column:
    """One input of the model."""

    def __init__(self, spec: Mapping[str, Any], vocabulary: _Vocabulary | None) -> None:
        self.name = spec["name"]
        self.raw = spec.get("column", self.name)
        self.vocabulary = vocabulary
        self._spec = {**spec, "name": self.raw}
        self._is_sequence = spec["type"] == "sequence"
        self.lookups: list[pl.Expr] = []  # of typed columns, each a list in one row
        self.tokens: list[pl.Expr] = []  # of those
        if vocabulary is None:
            return
        name, text = self.name, pl.col(self.name)
        self._table = vocabulary.table(str(spec["fill_na"]), 0 if self._is_sequence else None)
        if not self._is_sequence:
            self.lookups = [vocabulary.places(text).implode()]
            return
        # rows side by side are often of one user: a history is looked up once for all of them
        new, histories = text.ne_missing(text.shift()), pl.col(f"{name}: split")
        split = text.filter(new).str.split(spec["splitter"])
        self.lookups = [
            pl.arg_where(new).implode().alias(f"{name}: firsts"),
            split.implode().alias(f"{name}: split"),
        ]
        histories = histories.explode(empty_as_null=False)
        places = vocabulary.places(histories.explode(empty_as_null=False))
        self.tokens = [
            histories.list.len().implode().alias(f"{name}: lengths"),
            places.implode().alias(f"{name}: places"),
        ]
        order = np.arange(spec["max_len"])
        self._order = order[::-1] if spec["padding"] == "pre" else order

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

    def encode(self, found: Mapping[str, pl.Series], rows: int) -> _Encoded:
        """The array from typed and looked up columns."""
        vocabulary = self.vocabulary
        if vocabulary and self._is_sequence:
            return self._histories(found, rows, vocabulary)
        values = found[self.name].to_numpy()
        if vocabulary is None:
            return _Encoded(values)
        ids = self._table[values]
        unknown = np.count_nonzero(values == vocabulary.unknown)
        return _Encoded(ids, int(unknown), _first(ids == _REFUSED))

    def _histories(
        self, found: Mapping[str, pl.Series], rows: int, vocabulary: _Vocabulary
    ) -> _Encoded:
        firsts, lengths, places = (
            found[f"{self.name}: {each}"].to_numpy() for each in ("firsts", "lengths", "places")
        )
        repeats = np.diff(firsts, append=rows)
        longest = len(self._order)
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
        array = np.zeros((len(firsts), longest), np.int64)
        array[self._order < lengths[:, None]] = ids
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
