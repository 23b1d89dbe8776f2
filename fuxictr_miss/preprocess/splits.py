"""The splits of an interaction log as files, with the statistics of Table II."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import polars as pl
from tqdm import tqdm

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.coded_log import CodedLog
from fuxictr_miss.preprocess.instances import item_tokens, write_parquet
from fuxictr_miss.preprocess.left_out import LeftOut
from fuxictr_miss.preprocess.output_folder import OutputFolder
from fuxictr_miss.preprocess.protocol import (
    SHORTEST,
    SPLITS,
    Protocol,
    Record,
    Statistics,
    filter_log,
    split_frames,
    statistics,
)


def splits_folder(output: Path, inputs: Sequence[Path]) -> OutputFolder:
    """The folder that splits of these files are written into; `work` it before a log is read."""
    return OutputFolder(
        output,
        names=(*SPLITS, *(f"{name}.parquet" for name in (*SPLITS, "items"))),
        stamp="statistics.json",
        legacy=frozenset({"users", "instances", "interactions", "k_core"}),
        inputs=inputs,
    )


def write_splits(
    record: Record,
    protocol: Protocol,
    output: OutputFolder,
    source: Mapping[str, object],
    shards: int = 1,
) -> None:
    """Write `train`, `valid`, `test` and `items` (.parquet) and `statistics.json` into `output`.

    With several shards a split is a folder `train/part-000000.parquet`, ..: what FuxiCTR's block
    loader and Ray Data read. `items.parquet` has one row for each item of the filtered log with its
    attributes: the vocabulary that Table II counts, of which cut histories may lack some.

    The statistics come last, so that a folder with them is complete. The same log, protocol, shards
    and versions give the same bytes.

    Args:
        output: as `work` yields its working folder.
        source: what else the statistics should say about where the record comes from.
    """
    new = output.new()
    with tqdm(total=len(SPLITS) * shards, desc="splits", unit=" files") as bar:
        for number, part in enumerate(record.parts()):
            parts = groupby(split_frames(record, part, protocol), itemgetter(0))
            for split, frames in parts:
                name = f"{split}.parquet" if shards == 1 else f"{split}/part-{number:06d}.parquet"
                write_parquet(map(itemgetter(1), frames), new / name)
                bar.update()
    write_parquet([item_tokens(record.items)], new / "items.parquet")
    output.replace(
        {
            **statistics(record, protocol)._asdict(),
            "interactions": int(record.item_counts.sum()),
            "short_users": record.short_users,
            **asdict(protocol),
            **source,
        }
    )


def make_splits(
    name: str,
    log: Generator[pl.DataFrame],
    output: OutputFolder,
    protocol: Protocol,
    options: argparse.Namespace,
    left_out: LeftOut,
    *,
    attributes: Sequence[str] = (),
    complete: Callable[[Record], tuple[Record, dict[str, object]]] | None = None,
    paper: Statistics | None = None,
) -> None:
    """Read a log, filter it, print its statistics and write its splits.

    Args:
        name: of the data set.
        log: blocks as `CodedLog.add` takes them; closed at the end.
        options: of `add_common_options`.
        left_out: takes the malformed lines of `log`.
        complete: adds what a second file says of the items, and what the statistics say of that.
        paper: the row of Table II.
    """
    with output.work() as folder:
        coded = CodedLog(attributes, options.shards, folder if options.shards > 1 else None)
        with closing(log):
            for frame in log:
                coded.add(frame)
        record = filter_log(coded, protocol.k_core)
        more: dict[str, object] = {}
        if complete:
            record, more = complete(record)
        left_out.report()
        report(name, record, protocol, paper, getattr(options, "expect_paper", False))
        source = {
            "raw_rows": coded.rows,
            "raw_interactions": coded.interactions,
            "skipped_lines": len(left_out),
        }
        write_splits(record, protocol, output, source | more, options.shards)
    print(f"written to {output.path}")


def report(
    name: str,
    record: Record,
    protocol: Protocol,
    paper: Statistics | None = None,
    expect_paper: bool = False,
) -> None:
    """Print the statistics in the columns of Table II, beside the paper's row.

    Raises:
        InputError: with `expect_paper`, where a number differs from the paper's or there is none.
    """
    if record.short_users:
        print(
            f"{record.short_users:,} users with fewer than {SHORTEST} interactions left out: "
            f"no history before their first target"
        )
    ours = statistics(record, protocol)
    rows = {name: ours}
    if paper:
        rows["paper, Table II"] = paper
        rows["difference"] = Statistics(*(a - b for a, b in zip(ours, paper, strict=True)))
    width = max(map(len, rows))
    print(" " * width + "".join(f"{column:>12}" for column in Statistics._fields))
    for title, row in rows.items():
        sign = "+" if title == "difference" else ""
        print(f"{title:<{width}}" + "".join(f"{value:>{sign}12,}" for value in row))
    if not expect_paper:
        return
    if paper is None:
        raise InputError(f"--expect-paper: the paper's Table II has no row for {name}.")
    if ours != paper:
        raise InputError(
            f"--expect-paper: {name} differs from the paper's Table II, see above. Nothing was "
            f"written; check the raw files and options, or leave --expect-paper out."
        )
