"""Amazon product data of 2014 (reviews and metadata) -> train, validation and test splits.

    python data_preprocess/amazon.py --dataset demo

A review is one line of JSON, of which `reviewerID`, `asin`, `overall` and `unixReviewTime` are
read; metadata is one Python literal a line, of which `asin` and `categories` are read. The category
of an item is its only attribute, `cate_id`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from coded_log import UNKNOWN, CodedLog
from download import download
from fuxictr_miss.errors import InputError, run_command, unknown
from interactions import (
    Statistics,
    add_common_options,
    filter_log,
    protocol_of,
    report,
    spill_folder,
    with_attribute,
    write_splits,
)
from raw_lines import LineBlock, line_blocks


class RawSet(NamedTuple):
    """One subset of the Amazon data: its files under data/raw/<dataset>/, and the paper's row."""

    reviews: str
    meta: str
    k_core: int
    paper: Statistics | None = None


DATASETS = {
    "demo": RawSet("reviews_Demo_5.json.gz", "meta_Demo.json.gz", 5),
    "amazonbeauty": RawSet("reviews_Beauty_5.json.gz", "meta_Beauty.json.gz", 5),
    "amazoncds": RawSet(
        "reviews_CDs_and_Vinyl_5.json.gz",
        "meta_CDs_and_Vinyl.json.gz",
        5,
        Statistics(75_258, 64_443, 150_516, 140_167, 5),
    ),
    "amazonbooks": RawSet(
        "reviews_Books_5.json.gz",
        "meta_Books.json.gz",
        10,
        Statistics(158_650, 128_939, 317_300, 288_577, 5),
    ),
}
ADDRESS = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
# an item has several paths, each from the root to a leaf
CATEGORIES: dict[str, Callable[[list[list[str]]], str]] = {
    "leaf": lambda paths: paths[-1][-1],  # the last path's leaf, as DIN's code takes it
    "root": lambda paths: paths[-1][0],
    "first": lambda paths: paths[0][-1],  # the first path's leaf, as DIEN's code takes it
}


def read_reviews(
    path: Path, *, allow_truncated: bool = False, skip_malformed: bool = False
) -> Iterator[tuple[pl.DataFrame, int]]:
    """Yield (reviews, malformed lines skipped among them), in the order of the file.

    Returns:
        Frames of `user_id`, `item_id` (String), `overall` (stars, Float64, null where a review has
        none) and `time` (seconds since 1970, Int64), one row a review.

    Raises:
        InputError: a line is not JSON or lacks a field (with its number; `skip_malformed` counts
            and skips it), the file is cut off (`allow_truncated` goes on) or has no review.
    """
    reviews = 0
    for block in line_blocks([path], "reviews", allow_truncated=allow_truncated):
        skipped = 0
        try:
            frame = pl.read_ndjson(block.text, schema=_REVIEW)
            whole = not any(frame[name].has_nulls() for name in _NAMES)
            whole = whole and all(frame[name].min() != "" for name in ("reviewerID", "asin"))
            frame = frame.cast({"unixReviewTime": pl.Int64})
        except pl.exceptions.PolarsError:
            whole = False
        if not whole:
            frame, skipped = _line_by_line(block, skip_malformed)
        reviews += frame.height
        yield frame.rename(_NAMES), skipped
    if not reviews:
        raise InputError(f"{path} has no review in it. Fetch it again.")


def read_categories(
    path: Path,
    items: Collection[str],
    category: str = "leaf",
    *,
    allow_truncated: bool = False,
    skip_malformed: bool = False,
) -> tuple[dict[str, str], int]:
    """Read the categories of `items` from a file of metadata; of no other line more than its asin.

    Returns:
        item -> category, without the items that the file lacks or gives no category; and the number
        of malformed lines that were skipped.

    Raises:
        InputError: as `read_reviews`; only lines of `items` can be malformed.
    """
    choose = CATEGORIES[category]
    found: dict[str, str] = {}
    skipped = 0
    for block in line_blocks([path], "metadata", allow_truncated=allow_truncated):
        for number, line in enumerate(block.text.split(b"\n"), block.first_line):
            if not _may_be_one_of(line, items):
                continue
            try:
                asin, paths = _parse_metadata(line)
                if asin in items and (value := choose(paths)):
                    found[asin] = str(value)
            except _NO_METADATA as error:
                if not skip_malformed:
                    raise _malformed(
                        path, number, "no Python literal with an asin", line
                    ) from error
                skipped += 1
            except IndexError:  # no path, or an empty one
                continue
    return found, skipped


# what a line that is no dictionary of the known form can raise
_NO_METADATA = (SyntaxError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
_REVIEW = {
    "reviewerID": pl.String,
    "asin": pl.String,
    "overall": pl.Float64,
    "unixReviewTime": pl.Float64,  # a whole number, but JSON may write it as 1.0
}
_NAMES = {"reviewerID": "user_id", "asin": "item_id", "unixReviewTime": "time"}


def _line_by_line(block: LineBlock, skip_malformed: bool) -> tuple[pl.DataFrame, int]:
    """The slow way through a block in which something is wrong: find out which line it is."""
    rows, skipped = [], 0
    for number, line in enumerate(block.text.split(b"\n"), block.first_line):
        if not line.strip():
            continue
        try:
            review = json.loads(line)
            rows.append(
                (
                    _nonempty(review["reviewerID"]),
                    _nonempty(review["asin"]),
                    None if review.get("overall") is None else float(review["overall"]),
                    _seconds(review["unixReviewTime"]),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if not skip_malformed:
                why = f"no {error.args[0]} in it" if isinstance(error, KeyError) else "no review"
                raise _malformed(block.path, number, why, line) from error
            skipped += 1
    schema = {**_REVIEW, "unixReviewTime": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row"), skipped


def _nonempty(name: object) -> str:
    if name in (None, ""):
        raise ValueError("empty")
    return str(name)


def _seconds(time: str | float) -> int:
    seconds = float(time)
    if not abs(seconds) < 1 << 62:  # nor a number that is none
        raise ValueError("no time")
    return int(seconds)


def _malformed(path: Path, number: int, why: str, line: bytes) -> InputError:
    shown = line[:60].decode("utf-8", "replace").strip()
    return InputError(
        f"{path}, line {number}: {why}: {shown!r}. Repair the line, or leave such lines out by "
        f"--skip-malformed."
    )


_ASIN = re.compile(rb"""['"]asin['"]\s*:\s*['"]([^'"]*)""")


def _may_be_one_of(line: bytes, items: Collection[str]) -> bool:
    """Whether an asin of `items` stands in a line of metadata, as its own or inside a text."""
    first = _ASIN.match(line, 1)  # the usual place: the first key
    found = [first] if first else _ASIN.finditer(line)
    return any(match[1].decode("utf-8", "replace") in items for match in found)


def _parse_metadata(line: bytes) -> tuple[str, list[list[str]]]:
    entry = ast.literal_eval(line.decode("utf-8").strip())
    return entry["asin"], entry.get("categories", [])


def _main() -> None:
    parser = argparse.ArgumentParser(
        description="Raw Amazon reviews and metadata (2014) -> train, valid and test splits.",
        epilog="example: python data_preprocess/amazon.py --dataset amazoncds\n"
        "Where the raw files are to be had: data_preprocess/README.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", required=True, help=", ".join(DATASETS))
    places = parser.add_argument_group("places")
    places.add_argument(
        "--reviews", type=Path, metavar="FILE", help="default data/raw/<dataset>/reviews_*.json.gz"
    )
    places.add_argument(
        "--meta", type=Path, metavar="FILE", help="default data/raw/<dataset>/meta_*.json.gz"
    )
    places.add_argument("--output", type=Path, metavar="DIR", help="default data/splits/<dataset>")
    places.add_argument(
        "--download",
        nargs="?",
        const=ADDRESS,
        metavar="ADDRESS",
        help=f"fetch the raw files that are not there yet (default from {ADDRESS})",
    )
    add_common_options(parser, k_core="5, for amazonbooks 10")
    choice = parser.add_argument_group("Amazon's")
    choice.add_argument(
        "--category",
        default="leaf",
        help="which of an item's categories: the last path's leaf, its root, or the first path's "
        "leaf: leaf, root, first (default leaf)",
    )
    choice.add_argument(
        "--min-rating",
        type=float,
        metavar="STARS",
        help="reviews with fewer stars are no interactions (default: all are)",
    )
    choice.add_argument(
        "--expect-paper",
        action="store_true",
        help="an error, and nothing written, if the statistics differ from Table II",
    )
    options = parser.parse_args()
    if options.dataset not in DATASETS:
        raise unknown("dataset", options.dataset, DATASETS)
    if options.category not in CATEGORIES:
        raise unknown("--category", options.category, CATEGORIES)
    raw = DATASETS[options.dataset]
    protocol = protocol_of(options, raw.k_core)
    folder = Path("data/raw") / options.dataset
    reviews_path = options.reviews or folder / raw.reviews
    meta_path = options.meta or folder / raw.meta
    output = options.output or Path("data/splits") / options.dataset
    for path, name in ((reviews_path, raw.reviews), (meta_path, raw.meta)):
        if path.is_file():
            continue
        if options.dataset == "demo":
            raise InputError(f"There is no {path}. Write it by: python data_preprocess/demo.py")
        if not options.download:
            raise InputError(
                f"There is no {path}. Fetch it by: python data_preprocess/amazon.py --dataset "
                f"{options.dataset} --download; or see data_preprocess/README.md for where it is "
                f"to be had, and put it there."
            )
        download(f"{options.download.rstrip('/')}/{name}", path)
    tolerance = {
        "allow_truncated": options.allow_truncated,
        "skip_malformed": options.skip_malformed,
    }

    with spill_folder(output, options.shards) as spilled:
        log, bad_reviews = CodedLog(shards=options.shards, folder=spilled), 0
        for reviews, bad in read_reviews(reviews_path, **tolerance):
            enough = None
            if options.min_rating is not None:
                enough = reviews["overall"].fill_null(0) >= options.min_rating
            log.add(reviews, enough)
            bad_reviews += bad
        record = filter_log(log, protocol.k_core)
        items = record.items["item_id"]
        categories, bad_meta = read_categories(meta_path, set(items), options.category, **tolerance)
        record = with_attribute(record, "cate_id", [categories.get(item) for item in items])
        without = len(items) - len(categories)
        if without:
            print(f"{without:,} items without a category in the metadata: {UNKNOWN!r}")
        if bad_reviews or bad_meta:
            print(f"{bad_reviews:,} malformed reviews, {bad_meta:,} lines of metadata skipped")
        report(options.dataset, record, protocol, raw.paper, options.expect_paper)
        source = {
            "raw_interactions": log.interactions,
            "skipped_lines": bad_reviews + bad_meta,
            "items_without_category": without,
            "category": options.category,
            "min_rating": options.min_rating,
        }
        write_splits(record, protocol, output, source, options.shards)
    print(f"written to {output}")


if __name__ == "__main__":
    run_command(_main)
