"""Rows of a split: ids as they stand in a history, histories joined to text, Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK = 1 << 22  # tokens that become text at a time
_ROW_GROUP = 1 << 17


def item_tokens(items: pl.DataFrame) -> pl.DataFrame:
    """Ids as they stand in a `^`-joined history; distinct ids stay distinct."""
    return items.select(
        pl.all().str.replace_all("%", "%25", literal=True).str.replace_all("^", "%5E", literal=True)
    )


def history_name(column: str) -> str:
    return column.removesuffix("_id") + "_history"


def histories(
    tokens: pl.DataFrame, sequence: np.ndarray, first: np.ndarray, lengths: np.ndarray
) -> list[pl.Series]:
    """For each column of `tokens` the text of sequence[first : first + length], joined by `^`.

    Args:
        sequence: rows in `tokens`.
        first, lengths: (n,) of each history; an empty one is an empty text.
    """
    rows = sequence[ranges(first, lengths)]
    ends = pa.array(np.append(0, np.cumsum(lengths)), pa.int64())
    texts = []
    for column in tokens:
        name = history_name(column.name)
        lists = pa.LargeListArray.from_arrays(ends, column.gather(rows).to_arrow())
        # as a table: a Series of it lost strings or crashed before polars 1.44 (its issue 28626)
        texts.append(pl.DataFrame(pa.table({name: lists}))[name].list.join("^"))
    return texts


def ranges(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, .. (lengths[0] of them), first[1], .."""
    begins = np.cumsum(lengths) - lengths
    return np.repeat(first - begins, lengths) + np.arange(int(lengths.sum()))


def chunks(sizes: np.ndarray) -> Iterator[slice]:
    """Consecutive rows of together about `CHUNK` tokens; `sizes` has those of each row."""
    upto = np.cumsum(sizes + 1)
    cuts = np.searchsorted(upto, np.arange(CHUNK, upto[-1], CHUNK))
    bounds = np.unique([0, *cuts, len(sizes)])
    return map(slice, bounds[:-1], bounds[1:])


def write_parquet(frames: Iterable[pl.DataFrame], path: Path) -> None:
    """Write frames of one schema below each other, one at a time; at least one."""
    path.parent.mkdir(exist_ok=True)
    tables = (frame.to_arrow(compat_level=pl.CompatLevel.oldest()) for frame in frames)
    table = next(tables)
    try:
        with (
            open(path, "wb") as file,  # pyarrow would read a:b as an address
            pq.ParquetWriter(file, table.schema, compression="zstd", compression_level=1) as writer,
        ):
            for part in chain([table], tables):
                writer.write_table(part, row_group_size=_ROW_GROUP)
    except OSError as error:  # pyarrow names neither the file nor, in short, the reason
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
