"""Interaction logs from CSV or Parquet files: which files, and what makes a row of them whole."""

from __future__ import annotations

import glob
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import polars as pl

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.csv_tables import CsvForm, CsvReader
from fuxictr_miss.preprocess.event_times import EventTimes
from fuxictr_miss.preprocess.left_out import LeftOut
from fuxictr_miss.preprocess.parquet_tables import MAGIC, parquet_rows
from fuxictr_miss.preprocess.raw_lines import LineBlock, line_blocks


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files that names or globs mean, each glob's in alphabetical order.

    What exists under a name is meant by it, also if the name has brackets or stars in it.

    Raises:
        InputError: there is no such file, or one is named twice.
    """
    files: list[Path] = []
    for pattern in patterns:
        if Path(pattern).is_dir():
            raise InputError(f"{pattern} is a folder. Name its files, such as '{pattern}/*.csv'.")
        found = [Path(pattern)] if Path(pattern).exists() else _matching(Path(pattern))
        if not found:
            raise InputError(f"There is no file {pattern} ({Path.cwd()} is the working folder).")
        files += found
    seen: set[Path] = set()
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is no regular file. Write what comes from it into a file.")
        if file.resolve() in seen:
            raise InputError(f"--input names {file} twice; its rows would count twice.")
        seen.add(file.resolve())
    return files


def _matching(pattern: Path) -> list[Path]:
    known = Path()
    parts = list(pattern.parts)
    while parts and (known / parts[0]).exists():  # brackets in the name of a folder are no pattern
        known /= parts.pop(0)
    found = glob.glob(str(Path(*parts)), root_dir=known) if parts else []
    return [known / name for name in sorted(found) if (known / name).is_file()]


def read_tables(
    files: Sequence[Path],
    columns: Mapping[str, str],
    *,
    form: CsvForm | None = None,
    times: EventTimes | None = None,
    member: str | None = None,
    left_out: LeftOut | None = None,
    allow_truncated: bool = False,
) -> Generator[pl.DataFrame]:
    """Yield the rows of the files in their order. Close the generator before anything is printed.

    Every line of a CSV, and every row of a Parquet file, is a row of the result, a malformed line
    or blank.

    Args:
        files: all CSV (of any packing that `packed_files` knows; the first line is the header) or
            all Parquet.
        columns: name in the result -> name in the file. `user_id`, `item_id` and `time` must be
            among the former.
        form: how a CSV is written; None: commas, RFC 4180, UTF-8.
        times: reads the times; None: as `EventTimes()`.
        member: the file to take from a zip that holds several.
        left_out: takes the malformed lines: those with too many columns, with a quote inside a
            field, without user, item or time, or with a time of another kind than the log's. None:
            the first is an error. (Columns that a line lacks at its end are empty.)
        allow_truncated: go on with the whole lines of a cut-off packed file.

    Returns:
        Frames of `columns`: String (empty ones may be null), and `time` as Int64 (integers, or
        dates in nanoseconds) or Float64 (decimals). Int64 may turn into Float64 once, without loss.

    Raises:
        InputError: a file cannot be read, or not be understood; a line is malformed; it is empty.
    """
    parquet = [_is_parquet(path) for path in files]
    if any(parquet) and not all(parquet):
        raise InputError("--input mixes Parquet and CSV files. Convert one kind, or run it twice.")
    times = times or EventTimes()
    rows = 0
    with closing(
        _parquet_tables(files, columns, times, left_out)
        if all(parquet)
        else _csv_tables(
            line_blocks(
                files,
                "log",
                encoding=(form or CsvForm()).encoding,
                allow_truncated=allow_truncated,
                member=member,
            ),
            CsvReader(form or CsvForm(), columns),
            times,
            left_out,
        )
    ) as tables:
        for frame in tables:
            rows += frame.height
            if frame.height:
                yield frame
    if not rows:
        names = ", ".join(map(str, files))
        if left_out:
            left_out.report()
            raise InputError(f"{names}: no row is left, all {len(left_out):,} are malformed.")
        raise InputError(f"{names}: no rows below the header.")


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC or path.suffix in (".parquet", ".pq")
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error


def _csv_tables(
    blocks: Generator[LineBlock], reader: CsvReader, times: EventTimes, left_out: LeftOut | None
) -> Generator[pl.DataFrame]:
    with closing(blocks):
        for block in blocks:
            frame, lines, malformed = reader.read(block)
            where = f"{block.path}, line {max(block.first_line, 2)}"
            when = times.read(frame["time"], where)
            good = _good_rows(frame, when)
            if lines is None and not good.all():  # which of the lines are blank?
                frame, lines, malformed = reader.read_lines(block)
                when = times.read(frame["time"], where)
                good = _good_rows(frame, when)
            if lines is not None:
                bad = _why(frame, when, times).insert_column(0, lines).filter(~good)
                malformed = pl.concat([malformed, bad]).sort("line")
            if malformed.height:
                if left_out is None:
                    line, why = malformed.row(0)
                    raise _malformed(block, line, why)
                left_out.add(block.path, malformed)
            yield frame.with_columns(when.alias("time")).filter(good)


def _malformed(block: LineBlock, line: int, why: str) -> InputError:
    shown = block.text.split(b"\n", line - block.first_line + 1)[line - block.first_line]
    return InputError(
        f"{block.path}, line {line}: {shown.decode()[:60]!r} has {why}. Repair the line, or leave "
        f"such lines out by --skip-malformed."
    )


def _parquet_tables(
    files: Sequence[Path], columns: Mapping[str, str], times: EventTimes, left_out: LeftOut | None
) -> Generator[pl.DataFrame]:
    with closing(parquet_rows(files, columns)) as tables:
        for path, first_row, frame in tables:
            when = times.read(frame["time"], f"{path}, row {first_row}")
            good = _good_rows(frame, when)
            if not good.all():
                row = pl.int_range(frame.height, eager=True).alias("line") + first_row
                malformed = _why(frame, when, times).insert_column(0, row).filter(~good)
                if left_out is None:
                    row_number, why = malformed.row(0)
                    raise InputError(
                        f"{path}, row {row_number} has {why}. Repair it, or leave such rows out by "
                        f"--skip-malformed."
                    )
                left_out.add(path, malformed, "row")
            yield frame.with_columns(when.alias("time")).filter(good)


def _good_rows(frame: pl.DataFrame, when: pl.Series) -> pl.Series:
    """Whether a row has a user, an item and a time."""
    good = when.is_not_null()
    for name in ("user_id", "item_id"):
        good &= (frame[name] != "").fill_null(False)
    return good


def _why(frame: pl.DataFrame, when: pl.Series, times: EventTimes) -> pl.DataFrame:
    """`why` a row is malformed, if it is."""
    no_time = frame["time"].is_null()
    if frame["time"].dtype == pl.String:
        no_time |= (frame["time"] == "").fill_null(True)
    elif frame["time"].dtype.is_float():
        no_time |= frame["time"].is_nan().fill_null(True)
    return frame.select(
        why=pl.when((pl.col("user_id") == "").fill_null(True))
        .then(pl.lit("no user"))
        .when((pl.col("item_id") == "").fill_null(True))
        .then(pl.lit("no item"))
        .when(no_time)
        .then(pl.lit("no time"))
        .otherwise(pl.lit(f"a time that is not {times.kind}, as those before it are"))
    )
