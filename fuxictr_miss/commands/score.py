"""Score raw rows with an exported model: a click probability for each row of a file."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from fuxictr_miss.errors import InputError

EXAMPLES = """examples:
  fuxictr-miss score --model exported/ --input new.csv --output scores.parquet
  fuxictr-miss score --model exported/ --input data/splits/demo/test.parquet --output scores.csv \\
      --keep user_id,item_id,label

The model is a folder that `fuxictr-miss export` wrote; its card.md lists the columns that it reads.
Rows look as those of the training's splits: an id is text or a number, a history is text joined as
there ("i7^i3") or a list, the oldest item first. Of a long history the newest items are read, an id
that the model does not know is counted and scored as unknown, and a label is not read. Files larger
than memory are scored in parts. PyTorch is not needed: pip install fuxictr_miss[serving]."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="what export wrote"
    )
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE",
        help="a .csv, .tsv or .parquet file, a folder of such, or a pattern in quotes",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="a new .parquet or .csv file: y_pred, or a column for each task",
    )
    parser.add_argument(
        "--keep",
        type=lambda text: text.split(","),
        default=[],
        metavar="A,B",
        help="columns of the input to write before the scores",
    )
    parser.add_argument("--separator", help="of a CSV (default: a comma, in .tsv a tab)")
    parser.add_argument("--threads", type=int, default=1, help="of the model (default: 1)")
    arguments = parser.parse_args()
    separator = arguments.separator
    if not 1 <= arguments.threads <= 1024:
        raise InputError(f"--threads must be from 1 to 1024, got {arguments.threads}.")
    from fuxictr_miss.serving import Scorer, score_files  # late: --help must not wait for polars
    from fuxictr_miss.text.csv_lines import check_separator

    if separator is not None:
        separator = separator.replace("\\t", "\t")
        check_separator(separator)

    files = score_files.input_files(arguments.input)
    score_files.check_output(arguments.output, files)
    scorer = Scorer(arguments.model, arguments.threads)
    started = time.monotonic()
    with _Progress() as progress:
        rows = score_files.score_files(
            scorer, files, arguments.output, arguments.keep, separator, progress.show
        )
    seconds = time.monotonic() - started
    print(f"{arguments.output}: {rows:,} rows, {rows / seconds:,.0f} a second")
    counts = ", ".join(f"{name} {count:,}" for name, count in scorer.unknown.items())
    print(f"unknown ids: {counts or 'the model reads none'}")


class _Progress:
    """One line on stderr: replaced on a terminal, every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._every, self._end = (0.2, "\r") if sys.stderr.isatty() else (10.0, "\n")

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._end == "\r":
            print(" " * 60, end="\r", file=sys.stderr, flush=True)

    def show(self, rows: int, share: float) -> None:
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last, speed = now, rows / (now - self._started)
            line = f"{share:4.0%}  {rows:,} rows, {speed:,.0f} a second"
            print(f"{line:<60}", end=self._end, file=sys.stderr, flush=True)
