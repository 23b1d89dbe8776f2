"""FuxiCTR's processor, with a look at the tokens of the ids before it numbers them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl
from fuxictr.preprocess import FeatureProcessor

from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.feature_processor import CountingProcessor
from fuxictr_miss.text.id_text import RESERVED

log = logging.getLogger(__name__)

_BLANK_SHARE = 0.1  # of the ids of a history


class Processor(CountingProcessor):
    """A `FeatureProcessor` that refuses tokens which cannot become a vocabulary."""

    feature_cols: list[dict[str, Any]]

    @classmethod
    def of(cls, own: type[FeatureProcessor]) -> type[Processor]:
        """The same with the functions of a user's processor."""
        return cls if own is FeatureProcessor else type("Processor", (cls, own), {})

    def count(
        self, ids: pl.LazyFrame, train: pl.LazyFrame, everything: pl.LazyFrame, least: int
    ) -> None:
        """Count what `fit` numbers, once for both.

        Args:
            ids: the rows of the vocabularies.
            train: the training rows, from which alone a scaler learns.
            everything: the rows of the splits.
            least: the config's min_categr_count.

        Raises:
            InputError: names the column and a token.
        """
        statistics = super()._collect_statistics(ids, everything)
        if scaled := [column for column in self.feature_cols if column["type"] == "numeric"]:
            every, self.feature_cols = self.feature_cols, scaled
            statistics |= super()._collect_statistics(train, everything)
            self.feature_cols = every
        counts = {
            column["name"]: _counts(column, statistics)
            for column in self.feature_cols
            if "value_counts" in statistics.get(column["name"], {})
        }
        for column in self.feature_cols:
            if column["name"] in counts:
                _check_tokens(column, counts[column["name"]], least)
                if column.get("share_embedding") in counts:
                    _check_common(column, counts)
                    _check_splitter(column, counts)
        self._statistics = statistics

    def _collect_statistics(self, *_: Any) -> dict[str, Any]:
        return self.__dict__.pop("_statistics")

    def save_pickle(self, pickle_file: str) -> None:
        """Write nothing: `fit` would, before the folder is settled, and a user's class may not."""

    def as_fuxictrs(self) -> FeatureProcessor:
        """Itself, of FuxiCTR's class, so that its pickle opens without this package."""
        self.__class__ = FeatureProcessor
        return self


def _counts(column: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[Any, int]:
    """How often each token occurs that is not the one for a missing value."""
    counts = dict(statistics[column["name"]]["value_counts"])
    counts.pop(column.get("fill_na", ""), None)
    return counts


def _check_tokens(column: Mapping[str, Any], counts: Mapping[Any, int], least: int) -> None:
    name = column["name"]
    least = 1 if column["type"] == "meta" else column.get("min_categr_count") or least
    if not counts:
        raise InputError(f"Column {name!r} is empty in every row: set active: False for it.")
    most = max(counts, key=lambda token: counts[token])
    if counts[most] < least:
        raise InputError(
            f"Column {name!r}: no id occurs min_categr_count={least} times ({most!r} has "
            f"{counts[most]}); lower min_categr_count or set active: False for it."
        )
    for token in RESERVED:
        if token in counts:
            raise InputError(f"Column {name!r} holds {token!r}, which FuxiCTR reserves; rename it.")
    texts = [token for token in counts if isinstance(token, str) and token.endswith(".0")]
    if twice := next((token for token in texts if token[:-2] in counts), None):
        log.warning(
            "Column %r holds %r and %r, which are two ids. Where pandas has written whole numbers "
            "with a missing one among them as decimals, write them alike in all splits.",
            name, twice[:-2], twice,
        )  # fmt: skip
    if not column.get("remap", True):
        bad = next((token for token in counts if not _is_number(token)), None)
        if bad is not None:
            raise InputError(
                f"Column {name!r} holds {bad!r}, but remap: False takes whole numbers from 0 only."
            )


def _check_common(column: Mapping[str, Any], counts: Mapping[str, Mapping[Any, int]]) -> None:
    name, target = column["name"], column["share_embedding"]
    if counts[target].keys().isdisjoint(counts[name]):
        raise InputError(
            f"{name!r} shares the embedding of {target!r}, but no id is in both: {target!r} holds "
            f"{_sample(counts[target])}, {name!r} {_sample(counts[name])}. Write both in one form, "
            "check splitter, or remove share_embedding."
        )


def _check_splitter(column: Mapping[str, Any], counts: Mapping[str, Mapping[Any, int]]) -> None:
    """Refuse a splitter that leaves blanks at the ids of a history, or that ids have in them."""
    name, target = column["name"], column["share_embedding"]
    if column["type"] != "sequence":
        return
    splitter, known = column.get("splitter", "^"), counts[target]
    blank = [each for each in counts[name] if each[:1] == " " and each.lstrip() in known]
    if len(blank) > _BLANK_SHARE * len(counts[name]):
        raise InputError(
            f"{name!r} holds {blank[0]!r}, and {target!r} {blank[0].lstrip()!r}, which would be "
            f"two ids: set splitter to {splitter + ' '!r}."
        )
    cut = next((each for each in known if splitter in str(each)), None)
    if cut is not None:
        raise InputError(
            f"{target!r} holds {cut!r}, which the splitter {splitter!r} of {name!r} would cut: "
            "join the histories by another one, and set splitter to it."
        )


def _sample(tokens: Iterable[Any]) -> str:
    return " and ".join(repr(token) for token in sorted(tokens, key=str)[:2])


def _is_number(token: Any) -> bool:
    return str(token).isdecimal()
