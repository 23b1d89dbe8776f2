"""Interaction logs from CSV or Parquet files: which files, and what makes a row of them whole."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import polars as pl

from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import matching_files
from fuxictr_miss.preprocess.csv_tables import CsvForm, CsvReader, TableRows
from fuxictr_miss.preprocess.event_labels import EventLabels
from fuxictr_miss.preprocess.event_times import DATE, ZONED, EventTimes
from fuxictr_miss.preprocess.left_out import STRICT, LeftOut
from fuxictr_miss.preprocess.parquet_tables import MAGIC, parquet_rows
from fuxictr_miss.preprocess.raw_lines import line_blocks


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
        found = [Path(pattern)] if Path(pattern).exists() else matching_files(pattern)
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


def read_tables(
    files: Sequence[Path],
    columns: Mapping[str, str],
    *,
    form: CsvForm | None = None,
    times: EventTimes | None = None,
    labels: EventLabels | None = None,
    member: str | None = None,
    left_out: LeftOut = STRICT,
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
        labels: reads the column `label`; None: there is none.
        member: the file to take from a zip that holds several.
        left_out: takes the malformed lines: those with too many columns, with a quote inside a
            field, without user, item or time, with a time of another kind than the log's, or
            without a label where there should be one.
            (Columns that a line lacks at its end are empty.)
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
    if all(parquet):
        tables = parquet_rows(files, columns)
    else:
        tables = _csv_rows(files, columns, form or CsvForm(), member, allow_truncated)
    times = times or EventTimes()
    rows = 0
    with closing(tables):
        for table in tables:
            unit = "line" if table.block else "row"
            place = f"{table.path}, {unit} {next(iter(table.numbers), 1)}"
            when = times.read(table.rows["time"], place)
            good = _good_rows(table.rows, when)
            read = [when.alias("time")]
            if labels:
                read.append(labels.read(table.rows["label"]).alias("label"))
                good &= read[-1].is_not_null()
            if table.malformed is not None or not good.all():
                left_out.add(table.path, _malformed(table, ~good, when, times, labels), unit)
            if good.any():
                rows += int(good.sum() or 0)
                yield table.rows.with_columns(read).filter(good)
    if not rows:
        names = ", ".join(map(str, files))
        if left_out:
            left_out.report()
            raise InputError(f"{names}: no row is left, all {len(left_out):,} are malformed.")
        raise InputError(f"{names}: no rows below the header.")


def _is_parquet(path: Path) -> bool:
    what = f"{path} cannot be read"
    with explained(OSError, what, "mend that, or name another file"), path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC or path.suffix in (".parquet", ".pq")


def _csv_rows(
    files: Sequence[Path],
    columns: Mapping[str, str],
    form: CsvForm,
    member: str | None,
    allow_truncated: bool,
) -> Generator[TableRows]:
    reader = CsvReader(form, columns)
    blocks = line_blocks(
        files, "log", encoding=form.encoding, allow_truncated=allow_truncated, member=member
    )
    with closing(blocks):
        for block in blocks:
            yield reader.read(block)


def _good_rows(frame: pl.DataFrame, when: pl.Series) -> pl.Series:
    """Whether a row has a user, an item and a time."""
    good = when.is_not_null()
    for name in ("user_id", "item_id"):
        good &= (frame[name] != "").fill_null(False)
    return good


def _malformed(
    table: TableRows,
    bad: pl.Series,
    when: pl.Series,
    times: EventTimes,
    labels: EventLabels | None,
) -> pl.DataFrame:
    """`line`, `why` and `text` of what is no row, blank lines aside."""
    time = pl.col("time")
    no_time = time.is_null()
    if table.rows["time"].dtype == pl.String:
        no_time |= time == ""
    elif table.rows["time"].dtype.is_float():
        no_time |= time.is_nan()
    bounds = ", or not of the years 1678 to 2261" if times.kind in (DATE, ZONED) else ""
    why = (
        pl.when((pl.col("user_id") == "").fill_null(True))
        .then(pl.lit("no user"))
        .when((pl.col("item_id") == "").fill_null(True))
        .then(pl.lit("no item"))
        .when(no_time)
        .then(pl.lit("no time"))
        .when(when.is_null())
        .then(pl.lit(f"a time that is not {times.kind}, as those before it are{bounds}"))
        .otherwise(pl.lit(labels.wrong if labels else None))
    )
    lines = table.rows.select(table.numbers.alias("line"), why=why).filter(bad)
    if table.malformed is not None:
        lines = pl.concat([lines, table.malformed]).sort("line")
    if table.block is None:
        return lines.with_columns(text=pl.lit(None, pl.String))
    return lines.join(table.block.texts(), on="line").filter(pl.col("text") != "").sort("line")
