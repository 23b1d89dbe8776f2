"""Number and encode the ids alike under both of FuxiCTR's processors.

Fault: the package and the repository (at 0245987) are both called 2.3.10, but their
`FeatureProcessor`s (fuxictr/preprocess/feature_processor.py) differ. The package's counts ids with
polars and encodes dicts of columns. The repository's counts one column after another with pandas in
a pool of processes, numbers ids of the same count in the order in which it meets them and those of
`meta` columns only while it encodes, casts what a `preprocess` function returns to the column's
dtype (2.5 becomes 2 where that is int), and encodes data frames.
Obsolete when FuxiCTR's repository counts with polars, as its package 2.3.10 does.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from fuxictr.preprocess import FeatureProcessor

FROM_PACKAGE = hasattr(FeatureProcessor, "_collect_statistics")  # else from the repository


class RepositoryProcessor(FeatureProcessor):
    """The repository's processor with the methods, ids and encoded columns of the package's."""

    dtype_dict: dict[str, Any]

    def preprocess(self, ddf: pl.LazyFrame) -> pl.LazyFrame:
        types = self.dtype_dict
        self.dtype_dict = dict.fromkeys(types, pl.Unknown)  # casts nothing
        with warnings.catch_warnings():  # of columns and types that are asked of a lazy frame
            warnings.simplefilter("ignore", pl.exceptions.PerformanceWarning)
            frame = super().preprocess(ddf)
        self.dtype_dict = types
        return frame

    def fit(self, train_ddf: pl.LazyFrame, meta_ddf: pl.LazyFrame, **options: Any) -> None:
        self._counted = self._collect_statistics(train_ddf, meta_ddf)
        options["rebuild_dataset"] = False  # it then reads no rows itself
        super().fit(None, **options)
        self.rebuild_dataset = True
        del self._counted

    def _collect_statistics(
        self, train_ddf: pl.LazyFrame, meta_ddf: pl.LazyFrame
    ) -> dict[str, dict[str, Any]]:
        """How often each id occurs, and two numbers that a scaler learns as much from as from all.

        Meta columns are counted in all splits, the others in `train_ddf`.
        """
        wanted = {}
        for column in self.feature_cols:
            name, kind = column["name"], column["type"]
            rows, values = meta_ddf if kind == "meta" else train_ddf, pl.col(name)
            if not column["active"] or (kind == "numeric" and "normalizer" not in column):
                continue
            if kind == "sequence":
                values = values.str.split(column.get("splitter", "^")).explode()
            if kind == "numeric":
                low, high = values.min(), values.max()
                if column["normalizer"] == "StandardScaler":
                    spread = values.std(ddof=0)
                    low, high = values.mean() - spread, values.mean() + spread
                wanted[name] = rows.select(low.alias("low"), high.alias("high"))
            elif kind != "embedding":
                ids = values.drop_nulls().alias("id")
                wanted[name] = rows.select(ids).group_by("id").len()
        tables = pl.collect_all(wanted.values(), engine="streaming")
        return {
            name: {"value_counts": dict(table.iter_rows())}
            if "id" in table.columns
            else {"two_numbers": table.row(0)}
            for name, table in zip(wanted, tables, strict=True)
        }

    def fit_meta_col(self, col: Mapping[str, Any]) -> None:
        super().fit_meta_col(col)
        if col.get("remap", True):
            self._number(col["name"])

    def fit_numeric_col(self, col: Mapping[str, Any], col_series: None) -> None:
        super().fit_numeric_col(col, col_series)
        if "normalizer" in col:
            two_numbers = np.array(self._counted[col["name"]]["two_numbers"])
            self.processor_dict[f"{col['name']}::normalizer"].fit(two_numbers)

    def fit_categorical_col(self, col: Mapping[str, Any], col_series: None, **options: Any) -> None:
        self._fit_ids(super().fit_categorical_col, col, options)

    def fit_sequence_col(self, col: Mapping[str, Any], col_series: None, **options: Any) -> None:
        self._fit_ids(super().fit_sequence_col, col, options)

    def _fit_ids(
        self, fit: Callable[..., None], column: Mapping[str, Any], options: Mapping[str, Any]
    ) -> None:
        """Let FuxiCTR describe the column as one of a known size, then number the counted ids."""
        name, target = column["name"], column.get("share_embedding")
        shared = self.processor_dict.get(f"{target}::tokenizer")
        before = dict(shared.vocab) if shared else {}
        fit({**column, "vocab_size": 2}, None, **options)
        tokenizer = self._number(name)
        if shared:
            shared.vocab = before  # without the ids of that size
            tokenizer.merge_vocab(shared)
        for feature in filter(None, (target, name)):
            numbers = {"oov_idx": tokenizer.vocab["__OOV__"], "vocab_size": tokenizer.vocab_size()}
            self.feature_map.features[feature].update(numbers)

    def _number(self, name: str) -> Any:
        """Number a column's ids: text by its frequency, numbers by their size."""
        tokenizer, counts = self.processor_dict[f"{name}::tokenizer"], self._counted[name]
        least = tokenizer._min_freq
        kept = sorted((-n, token) for token, n in counts["value_counts"].items() if n >= least)
        tokens = [token for _, token in kept]
        if tokens and not isinstance(tokens[0], str):
            tokens.sort()
        tokenizer.build_vocab(Counter(dict.fromkeys(tokens, least)))  # equal counts keep the order
        return tokenizer

    def transform(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        encoded = dict(batch)
        for name in batch.keys() & self.feature_map.features.keys():
            if tokenizer := self.processor_dict.get(f"{name}::tokenizer"):
                sequence = self.feature_map.features[name]["type"] == "sequence"
                encode = _encode_sequences if sequence else _encode_ids
                encoded[name] = encode(tokenizer, batch[name])
            elif normalizer := self.processor_dict.get(f"{name}::normalizer"):
                encoded[name] = normalizer.transform(batch[name])
        return encoded


def _encode_ids(tokenizer: Any, tokens: np.ndarray) -> np.ndarray:
    unknown = tokenizer.vocab["__OOV__"]
    return np.array([tokenizer.vocab.get(token, unknown) for token in tokens])


def _encode_sequences(tokenizer: Any, texts: np.ndarray) -> np.ndarray:
    """(rows, L); FuxiCTR pads by keras_preprocessing, which does not run with NumPy 2."""
    vocab, length = {**tokenizer.vocab, tokenizer._na_value: 0}, tokenizer.max_len
    unknown = vocab["__OOV__"]
    encoded = np.zeros((len(texts), length), dtype=np.int32)
    for row, text in zip(encoded, texts, strict=True):
        ids = [vocab.get(token, unknown) for token in text.split(tokenizer._splitter)]
        if tokenizer.padding == "pre":
            ids = ids[-length:]
            row[length - len(ids) :] = ids
        else:
            ids = ids[:length]
            row[: len(ids)] = ids
    return encoded


CountingProcessor: Any = FeatureProcessor if FROM_PACKAGE else RepositoryProcessor
