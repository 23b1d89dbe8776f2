"""Columns of CSV or Parquet files, block by block: one or many files, plain, gzip or zip."""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from fuxictr_miss.errors import InputError, unknown
from raw_lines import LineBlock, line_blocks

_BATCH_ROWS = 1 << 20


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files that names or globs mean, each glob's in alphabetical order."""
    files = []
    for pattern in patterns:
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern))
        found = [name for name in found if Path(name).is_file()]
        if not found:
            raise InputError(f"There is no file {pattern} ({Path.cwd()} is the working folder).")
        files += [Path(name) for name in found]
    return files


def read_tables(
    files: Sequence[Path],
    columns: Mapping[str, str],
    *,
    separator: str = ",",
    member: str | None = None,
    skip_malformed: bool = False,
    allow_truncated: bool = False,
) -> Iterator[tuple[pl.DataFrame, int]]:
    """Yield (rows, malformed lines skipped among them) in the order of the files.

    Args:
        files: all CSV (of any packing `raw_lines` knows; the first line is the header) or all
            Parquet (by the name's ending).
        columns: name in the result -> name in the file. `user_id`, `item_id` and `time` must be
            among the former.
        separator: between the columns of a CSV.
        member: the file to take from a zip that holds several.
        skip_malformed: leave out and count lines with too many columns, without user or item, or
            with a time that is none. (Columns that a line lacks at its end are empty.)
        allow_truncated: go on with the whole lines of a cut-off packed file.

    Returns:
        Frames of `columns`: String (in Parquet, the file's type), `time` as Int64 (integers as
        they are, dates in microseconds) or Float64 (decimals), the same in all of them.

    Raises:
        InputError: a column is missing, a line is malformed, a file is cut off, nothing is in it.
    """
    parquet = [path.suffix in (".parquet", ".pq") for path in files]
    if any(parquet) and not all(parquet):
        raise InputError("--input mixes Parquet and CSV files. Convert one kind, or run it twice.")
    if all(parquet):
        tables = _parquet_tables(files, columns, skip_malformed)
    else:
        blocks = line_blocks(
            files, "log", allow_truncated=allow_truncated, quoted=True, member=member
        )
        tables = _csv_tables(blocks, columns, separator, skip_malformed)
    rows = 0
    for frame, skipped in tables:
        rows += frame.height
        yield frame, skipped
    if not rows:
        raise InputError(f"{', '.join(map(str, files))}: no rows below the header.")


def _csv_tables(
    blocks: Iterator[LineBlock], columns: Mapping[str, str], separator: str, skip_malformed: bool
) -> Iterator[tuple[pl.DataFrame, int]]:
    header: list[str] = []
    kind = ""
    for block in blocks:
        if block.first_line == 1:
            head, _, text = block.text.partition(b"\n")
            fields = csv.reader([head.decode("utf-8-sig", "replace")], delimiter=separator)
            header = next(fields, [])
            _check_columns(block.path, columns, header)
            block = LineBlock(block.path, 2, text)
        if not block.text.strip():
            continue
        lines: list[int] = []
        try:
            rows = pl.read_csv(
                block.text,
                has_header=False,
                schema={f"column_{n}": pl.String for n in range(1, len(header) + 1)},
                separator=separator,
            ).select(
                pl.col(f"column_{header.index(column) + 1}").alias(name)
                for name, column in columns.items()
            )
        except pl.exceptions.PolarsError:
            rows, lines = _line_by_line(block, columns, header, separator)
        kind = kind or _kind_of_time(rows["time"], f"{block.path}, line {block.first_line}")
        frame = rows.with_columns(_as_time(rows["time"], kind))
        bad = _bad_rows(frame)
        if bad.any() and not lines:
            rows, lines = _line_by_line(block, columns, header, separator)
            frame = rows.with_columns(_as_time(rows["time"], kind))
            bad = _bad_rows(frame)
        if bad.any() and not skip_malformed:
            line = lines[bad.arg_true()[0]]
            shown = block.text.split(b"\n")[line - block.first_line][:60]
            raise InputError(
                f"{block.path}, line {line}: {shown.decode('utf-8', 'replace').strip()!r} is "
                f"malformed: it needs a user, an item, {kind} for a time as the lines before it, "
                f"and no more than {len(header)} columns. Repair the line, or leave such lines "
                f"out by --skip-malformed."
            )
        yield frame.filter(~bad), int(bad.sum())


def _line_by_line(
    block: LineBlock, columns: Mapping[str, str], header: Sequence[str], separator: str
) -> tuple[pl.DataFrame, list[int]]:
    """The slow way through a block with something wrong in it: the rows, and where each begins.

    A row with too many columns is empty; the columns that a short one lacks are.
    """
    reader = csv.reader(
        io.StringIO(block.text.decode("utf-8", "replace"), newline=""), delimiter=separator
    )
    places = [header.index(column) for column in columns.values()]
    rows: list[list[str | None]] = []
    lines: list[int] = []
    begins = block.first_line
    try:
        for fields in reader:
            if fields:
                known = fields if len(fields) <= len(header) else []
                rows.append([known[at] or None if at < len(known) else None for at in places])
                lines.append(begins)
            begins = block.first_line + reader.line_num
    except csv.Error as error:
        raise InputError(
            f"{block.path}, line {begins}: {error}. Is there a double quote that is never closed?"
        ) from error
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row"), lines


def _parquet_tables(
    files: Sequence[Path], columns: Mapping[str, str], skip_malformed: bool
) -> Iterator[tuple[pl.DataFrame, int]]:
    kind = ""
    with tqdm(desc="log", unit=" rows", unit_scale=True, mininterval=0.5) as bar:
        for path in files:
            try:
                file = pq.ParquetFile(path)
            except pa.ArrowInvalid as error:
                raise InputError(f"{path} is no Parquet file, or is cut off: {error}") from error
            bar.total = (bar.total or 0) + file.metadata.num_rows
            _check_columns(path, columns, file.schema_arrow.names)
            before = 0
            for batch in file.iter_batches(
                _BATCH_ROWS, columns=list(dict.fromkeys(columns.values()))
            ):
                table = pl.DataFrame(pl.from_arrow(batch))
                frame = table.select(pl.col(column).alias(name) for name, column in columns.items())
                if frame.is_empty():
                    continue
                kind = kind or _kind_of_time(frame["time"], f"{path}, row {before + 1}")
                frame = frame.with_columns(_as_time(frame["time"], kind))
                bad = _bad_rows(frame)
                if bad.any() and not skip_malformed:
                    raise InputError(
                        f"{path}, row {before + int(bad.arg_true()[0]) + 1} lacks a user, an item "
                        f"or a time. Repair it, or leave such rows out by --skip-malformed."
                    )
                before += frame.height
                bar.update(frame.height)
                yield frame.filter(~bad), int(bad.sum())


def _check_columns(path: Path, columns: Mapping[str, str], header: Sequence[str]) -> None:
    for column in columns.values():
        if column not in header:
            raise unknown(f"column of {path}:", column, header)


# what a time may be -> how it is read; the first that reads all of a log's first lines is taken
_TIMES = {
    "an integer": lambda time: time.cast(pl.Int64, strict=False),
    "a number": lambda time: time.cast(pl.Float64, strict=False).fill_nan(None),
    "a date": lambda time: _dates(time),
}


def _dates(time: pl.Series) -> pl.Series:
    if time.dtype == pl.String:
        try:
            time = time.str.to_datetime(time_unit="us", strict=False)
        except pl.exceptions.ComputeError:  # no format at all
            return pl.Series(time.name, [None] * len(time), pl.Int64)
    elif time.dtype.is_temporal():
        time = time.cast(pl.Datetime("us"), strict=False)
    return time.cast(pl.Int64, strict=False)


def _kind_of_time(time: pl.Series, where: str) -> str:
    """The first kind of time that reads the whole column, or else the one that reads most of it."""
    if time.dtype.is_temporal():
        return "a date"
    kinds = [kind for kind in _TIMES if kind != "an integer" or not time.dtype.is_float()]
    unread: dict[str, int] = {}
    for kind in kinds:
        unread[kind] = _as_time(time, kind).null_count() - time.null_count()
        if unread[kind] <= 0:
            return kind
    best = min(kinds, key=lambda kind: unread[kind])
    if unread[best] < len(time) - time.null_count():
        return best
    raise InputError(
        f"{where}: the time {time.drop_nulls()[0]!r} is neither a number nor a date such as "
        f"2015-07-01 12:30:00. Name another column by --time, or convert it."
    )


def _as_time(time: pl.Series, kind: str) -> pl.Series:
    return _TIMES[kind](time).alias("time")


def _bad_rows(frame: pl.DataFrame) -> pl.Series:
    """Whether a row lacks what it needs."""
    bad = frame["time"].is_null()
    for name in ("user_id", "item_id"):
        bad |= frame[name].is_null()
        if frame[name].dtype == pl.String:
            bad |= (frame[name] == "").fill_null(True)
    return bad
