"""Score files of raw rows, larger than memory, into one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import atomic_write, files_at, writable
from fuxictr_miss.serving.scorer import Scorer
from fuxictr_miss.serving.tables import SEPARATORS, parts

_OUTPUTS = (".parquet", ".csv")


def input_files(path: str) -> list[str]:
    """The files that a path names: itself, those in a folder, or those that a pattern matches.

    Raises:
        InputError: there are none, or those in a folder have several endings.
    """
    endings = (".parquet", *SEPARATORS)
    place = Path(path)
    if place.is_dir():
        tables = sorted(
            f for f in place.iterdir() if f.suffix.lower() in endings and f.name[0] != "."
        )
        other = next((file for file in tables if file.suffix != tables[0].suffix), None)
        if other is not None:
            raise InputError(
                f"{path} holds {tables[0].name} and {other.name}: name the files of one ending, as "
                f"in '{place / '*'}{other.suffix}'."
            )
    named = place.suffix in endings
    for ending in [place.suffix] if named else endings:
        if files := files_at(path, ending[1:]):
            return files
    raise InputError(f"{path} is no file and no folder of .parquet, .csv or .tsv files.")


def check_output(output: Path, inputs: Sequence[str]) -> None:
    """Refuse, before anything is read, an output that cannot be or would replace a file.

    Raises:
        InputError: it exists, is an input, or ends in something else than .parquet or .csv.
    """
    if output.suffix not in _OUTPUTS:
        raise InputError(f"{output} must end in .parquet or .csv.")
    if any(output.resolve() == Path(file).resolve() for file in inputs):
        raise InputError(f"{output} is the input: name another output.")
    if not writable(output.parent):
        raise InputError(f"{output.parent} cannot be written: name another folder.")
    if output.exists() or output.is_symlink():
        raise InputError(f"{output} exists: remove it, or name another output.")


def score_files(
    scorer: Scorer,
    inputs: Sequence[str],
    output: Path,
    keep: Sequence[str] = (),
    separator: str | None = None,
    progress: Callable[[int, float], None] = lambda rows, share: None,
) -> int:
    """Write a score for each row, in order: the columns to keep, then one for each output.

    Args:
        scorer: the model.
        inputs: CSV, TSV or Parquet files; one after another.
        output: .parquet or .csv; there is none yet.
        keep: columns of the inputs, written as they are.
        separator: of a CSV.
        progress: called with the rows so far and their share of all.

    Returns:
        The number of rows.

    Raises:
        InputError: a file cannot be read, or a row of it, which is named. No file is written.
    """
    check_output(output, inputs)
    columns = list(dict.fromkeys([*scorer.columns, *keep]))
    twice = [name for name, times in Counter([*keep, *scorer.outputs]).items() if times > 1]
    if twice:
        raise InputError(f"The output would have two columns {twice[0]!r}: keep others.")
    scored = _scored(scorer, inputs, columns, keep, separator, progress)
    first = next(scored)
    failures: list[Exception] = []
    rows = 0

    def source(*_: Any) -> Iterator[pl.DataFrame]:
        nonlocal rows
        try:
            for part in chain([first], scored):
                rows += len(part)
                yield part
        except Exception as error:  # polars would make a text of it
            failures.append(error)
            raise

    table = register_io_source(source, schema=first.schema)
    what = f"{output} cannot be written"
    then = "write .parquet, which holds every type"
    if output.suffix == ".parquet":
        then = "free some space or name another folder"
    with atomic_write(output) as unfinished, explained(pl.exceptions.PolarsError, what, then):
        try:
            if output.suffix == ".parquet":
                table.sink_parquet(unfinished)
            else:
                table.sink_csv(unfinished)
        except pl.exceptions.PolarsError:
            if failures:
                raise failures[0] from None
            raise
    return rows


def _scored(
    scorer: Scorer,
    inputs: Sequence[str],
    columns: Sequence[str],
    keep: Sequence[str],
    separator: str | None,
    progress: Callable[[int, float], None],
) -> Iterator[pl.DataFrame]:
    rows, kept = 0, None
    for number, file in enumerate(inputs):
        for part in parts(file, columns, separator):
            scores = scorer.score_frame(part.rows, f"{file}, ", part.before)
            table = part.rows.select(keep)
            kept = kept or table.schema
            if table.schema != kept:
                raise InputError(
                    f"{file}: the kept columns are {_types(table.schema)}, where those of "
                    f"{inputs[0]} are {_types(kept)}: write all files alike."
                )
            rows += len(part.rows)
            yield table.with_columns(**{name: pl.Series(each) for name, each in scores.items()})
            progress(rows, (number + part.share) / len(inputs))
    if not rows:  # one part of several may be empty, as Spark writes them
        raise InputError(f"{', '.join(inputs)} holds no rows.")


def _types(schema: pl.Schema) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in schema.items())
