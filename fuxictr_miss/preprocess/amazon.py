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
import math
import re
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.preprocess.coded_log import INTERACTS, UNKNOWN
from fuxictr_miss.preprocess.download import download
from fuxictr_miss.preprocess.left_out import STRICT, LeftOut
from fuxictr_miss.preprocess.options import add_common_options, option, protocol_of
from fuxictr_miss.preprocess.protocol import Record, Statistics, with_attribute
from fuxictr_miss.preprocess.raw_lines import LineBlock, line_blocks
from fuxictr_miss.preprocess.splits import make_splits, splits_folder
from fuxictr_miss.text.id_text import EXACT


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
    path: Path,
    *,
    encoding: str = "utf-8",
    allow_truncated: bool = False,
    left_out: LeftOut = STRICT,
) -> Generator[pl.DataFrame]:
    """Yield the reviews, in the order of the file. Close the generator before anything is printed.

    Every line is a review, malformed or blank.

    Returns:
        Frames of `user_id`, `item_id` (String), `overall` (stars, Float64, null where a review has
        none) and `time` (seconds since 1970, Int64), one row a review.

    Raises:
        InputError: a line is not JSON, lacks a field, has it twice or has no number where one
            belongs (the message has its number); the file is cut off (`allow_truncated` goes on) or
            has no review.
    """
    reviews = 0
    with closing(
        line_blocks([path], "reviews", encoding=encoding, allow_truncated=allow_truncated)
    ) as blocks:
        for block in blocks:
            frame = _at_once(block)
            if frame is None:
                frame, malformed = _line_by_line(block)
                left_out.add(path, malformed)
            reviews += frame.height
            yield frame.rename(_NAMES)
    if not reviews:
        left_out.report()
        raise InputError(f"{path} has no review in it. Fetch it again.")


class Categories(NamedTuple):
    """What the metadata says of the wanted items."""

    of: dict[str, str]  # item -> category, of those that have one
    flat: int  # items whose categories are a list of names: one path
    no_text: int  # items that have something else than names for categories
    repeated: int  # lines about an item that had one before; the last one with a category holds


def read_categories(
    path: Path,
    items: Collection[str],
    category: str = "leaf",
    *,
    encoding: str = "utf-8",
    allow_truncated: bool = False,
    left_out: LeftOut = STRICT,
) -> Categories:
    """Read the categories of `items` from a file of metadata; of no other line more than its asin.

    A line is a Python literal with `categories`, a list of paths (2014), or JSON with `category`, a
    list of names that is one path (2018).

    Raises:
        InputError: as `read_reviews`, but only lines of `items` can be malformed; or no item has a
            category.
    """
    choose = CATEGORIES[category]
    found: dict[str, str] = {}
    seen: set[str] = set()
    flat: set[str] = set()
    no_text: set[str] = set()
    repeated = 0
    with closing(
        line_blocks([path], "metadata", encoding=encoding, allow_truncated=allow_truncated)
    ) as blocks:
        for block in blocks:
            malformed = []
            for number, line in enumerate(block.text.split(b"\n"), block.first_line):
                if not _may_be_one_of(line, items):
                    continue
                try:
                    asin, categories = _parse_metadata(line)
                except _NO_METADATA:
                    malformed.append((number, "no metadata with an asin in it", line.decode()))
                    continue
                if asin not in items:
                    continue
                repeated += asin in seen
                seen.add(asin)
                paths = _paths(categories)
                if paths:
                    found[asin] = choose(paths)
                    if _is_flat(categories):
                        flat.add(asin)
                elif paths is None:
                    no_text.add(asin)
            left_out.add(path, _lines(malformed))
    if items and not found:
        left_out.report()
        raise InputError(
            f"{path}: none of the {len(items):,} items has a category in it ({len(seen):,} of them "
            f"are there). Its lines must have the asin and `categories` or `category`; is it the "
            f"metadata of these reviews?"
        )
    return Categories(found, len(flat), len(no_text - set(found)), repeated)


def _paths(categories: object) -> list[list[str]] | None:
    """Paths of names, without empty ones; None if it is something else than names."""
    if categories in (None, "", []):
        return []
    if isinstance(categories, str):
        categories = [categories]
    if not isinstance(categories, list):
        return None
    paths = [categories] if _is_flat(categories) else categories
    for path in paths:
        if not isinstance(path, list) or not all(_is_text(name) for name in path):
            return None
    return [path for path in paths if path and all(path)]


def _is_flat(categories: object) -> bool:
    """Whether the names are not in a list of paths: they are one path."""
    return not (isinstance(categories, list) and isinstance(categories[0], list))


def _is_text(name: object) -> bool:
    if not isinstance(name, str):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:  # half a letter
        return False
    return True


# what a line that is no dictionary of the known form can raise
_NO_METADATA = (
    SyntaxError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    MemoryError,
)
_REVIEW = {
    "reviewerID": pl.String,
    "asin": pl.String,
    "overall": pl.Float64,
    "unixReviewTime": pl.Float64,  # a whole number, but JSON may write it as 1.0
}
_LATEST = 10**11  # in seconds, the year 5138
_NAMES = {"reviewerID": "user_id", "asin": "item_id", "unixReviewTime": "time"}
# a list, a truth value, a fraction, a number past what a Float64 holds, ..
_NO_ID = r"^$|^[\[{]|^true$|^false$|^-?[0-9]+[.eE]|^-?[0-9]{16,}$|^-0$|\x00"


def _at_once(block: LineBlock) -> pl.DataFrame | None:
    """The reviews of a block; None if a line of it may be none."""
    try:
        frame = pl.read_ndjson(block.text, schema=_REVIEW)
    except pl.exceptions.PolarsError:
        return None
    if any(frame[name].has_nulls() for name in _NAMES):
        return None
    if any(frame[name].str.contains(_NO_ID).any() for name in ("reviewerID", "asin")):
        return None
    time = frame["unixReviewTime"]
    if not ((time.abs() < _LATEST) & (time == time.round())).all():
        return None
    for name in _REVIEW:  # a key twice in a line?
        without = frame[name].null_count()
        if block.text.count(b'"%s"' % name.encode()) not in (frame.height, frame.height - without):
            return None
    return frame.cast({"unixReviewTime": pl.Int64})


def _line_by_line(block: LineBlock) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The slow way through a block in which something is wrong: reviews, and malformed lines."""
    reviews, malformed = [], []
    for number, line in enumerate(block.text.split(b"\n"), block.first_line):
        if not line.strip():
            continue
        try:
            reviews.append(_review(line))
        except _NoReviewError as error:
            malformed.append((number, str(error), line.decode()))
        except (ValueError, TypeError, AttributeError, RecursionError):
            malformed.append((number, "no review in it", line.decode()))
    schema = {**_REVIEW, "unixReviewTime": pl.Int64}
    return pl.DataFrame(reviews, schema=schema, orient="row"), _lines(malformed)


def _lines(malformed: list[tuple[int, str, str]]) -> pl.DataFrame:
    schema = {"line": pl.Int64, "why": pl.String, "text": pl.String}
    return pl.DataFrame(malformed, schema=schema, orient="row")


def _review(line: bytes) -> tuple[str, str, float | None, int]:
    review = json.loads(line, object_pairs_hook=_once)
    user, item, seconds = _id(review, "reviewerID"), _id(review, "asin"), _seconds(review)
    return user, item, _number(review, "overall"), seconds


class _NoReviewError(Exception):
    """Says what is wrong with a line."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    for key in _REVIEW:
        if keys.count(key) > 1:
            raise _NoReviewError(f"{key} twice")
    return dict(pairs)


def _id(review: dict[str, object], key: str) -> str:
    name = review.get(key)
    if name in (None, ""):
        raise _NoReviewError(f"no {key}")
    if isinstance(name, float) and abs(name) < EXACT and name == int(name):
        name = int(name)
    if isinstance(name, bool) or not isinstance(name, (str, int)) or not _is_text(str(name)):
        raise _NoReviewError(f"{key} that is no text")
    return str(name)


def _number(review: dict[str, object], key: str) -> float | None:
    value = review.get(key)
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _NoReviewError(f"{key} that is no number")
    return number


def _seconds(review: dict[str, object]) -> int:
    seconds = _number(review, "unixReviewTime")
    if seconds is None:
        raise _NoReviewError("no unixReviewTime")
    if seconds != int(seconds):
        raise _NoReviewError("unixReviewTime that is no whole number of seconds")
    if not abs(seconds) < _LATEST:
        raise _NoReviewError(
            "unixReviewTime past the year 5138: seconds are meant, not milliseconds"
        )
    return int(seconds)


_JSON = re.compile(r'\{\s*"')
_ASIN = re.compile(rb"""['"]asin['"]\s*:\s*['"]([^'"]*)""")


def _may_be_one_of(line: bytes, items: Collection[str]) -> bool:
    """Whether an asin of `items` stands in a line of metadata, as its own or inside a text."""
    first = _ASIN.match(line, 1)  # the usual place: the first key
    found = [first] if first else _ASIN.finditer(line)
    return any(match[1].decode() in items for match in found)


def _parse_metadata(line: bytes) -> tuple[str, object]:
    """The asin, and what stands for categories: the 2014 key's value, or else the 2018 key's."""
    text = line.decode().strip()
    try:
        entry = json.loads(text) if _JSON.match(text) else ast.literal_eval(text)
    except json.JSONDecodeError:  # a Python literal in double quotes
        entry = ast.literal_eval(text)
    if not isinstance(entry["asin"], str):
        raise TypeError("asin")
    return entry["asin"], entry.get("categories") or entry.get("category")


def main() -> None:
    options = _parser().parse_args()
    if options.dataset not in DATASETS:
        raise unknown("dataset", options.dataset, DATASETS)
    if options.category not in CATEGORIES:
        raise unknown("--category", options.category, CATEGORIES)
    raw = DATASETS[options.dataset]
    protocol = protocol_of(options, raw.k_core)
    if options.min_rating is not None and not math.isfinite(options.min_rating):
        raise InputError(f"--min-rating is {options.min_rating}; it must be a number of stars.")
    folder = Path("data/raw") / options.dataset
    reviews_path = options.reviews or folder / raw.reviews
    meta_path = options.meta or folder / raw.meta
    output_path = options.output or Path("data/splits") / options.dataset
    output = splits_folder(output_path, [reviews_path, meta_path])
    output.check()
    _fetch([(reviews_path, raw.reviews), (meta_path, raw.meta)], options)
    left_out = LeftOut(options.skip_malformed)
    tolerance = {
        "encoding": options.encoding,
        "allow_truncated": options.allow_truncated,
        "left_out": left_out,
    }

    def with_categories(record: Record) -> tuple[Record, dict[str, object]]:
        items = record.items["item_id"]
        categories = read_categories(meta_path, set(items), options.category, **tolerance)
        record = with_attribute(record, "cate_id", [categories.of.get(item) for item in items])
        without = len(items) - len(categories.of)
        _report_categories(categories, without)
        return record, {
            "items_without_category": without,
            "category": options.category,
            "min_rating": options.min_rating,
        }

    make_splits(
        options.dataset,
        _with_interactions(read_reviews(reviews_path, **tolerance), options.min_rating),
        output,
        protocol,
        options,
        left_out,
        complete=with_categories,
        paper=raw.paper,
    )


def _parser() -> argparse.ArgumentParser:
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
    add_common_options(parser, k_core="5, for amazonbooks 10", in_paper=True)
    choice = parser.add_argument_group("Amazon's")
    about = "which of an item's: the last path's leaf or root, or the first path's leaf (first)"
    option(choice, "--category", "leaf|root|first", "leaf", about)
    choice.add_argument(
        "--min-rating",
        type=float,
        metavar="STARS",
        help="reviews with fewer stars are no interactions (default: all are)",
    )
    return parser


def _fetch(paths: list[tuple[Path, str]], options: argparse.Namespace) -> None:
    """Download the raw files that are not there, each under its name at the address."""
    for path, name in paths:
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


def _with_interactions(
    reviews: Generator[pl.DataFrame], min_rating: float | None
) -> Generator[pl.DataFrame]:
    """A review of too few stars, or of none, is no interaction.

    Raises:
        InputError: no review is one.
    """
    enough = pl.lit(True) if min_rating is None else pl.col("overall") >= min_rating
    left = rated = 0
    with closing(reviews):
        for frame in reviews:
            frame = frame.with_columns(enough.fill_null(False).alias(INTERACTS))
            left += frame.filter(INTERACTS).height
            rated += frame["overall"].count()
            yield frame
    if not left:
        raise InputError(
            f"No review has {min_rating:g} stars or more ({rated:,} have an `overall` at all): "
            "lower --min-rating, or leave it out."
        )


def _report_categories(categories: Categories, without: int) -> None:
    if without:
        no_text = f" ({categories.no_text:,} have one that is no text)" * (categories.no_text > 0)
        print(f"{without:,} items without a category in the metadata{no_text}: {UNKNOWN!r}")
    if categories.flat:
        print(f"{categories.flat:,} items have a flat list of categories: taken as one path")
    if categories.repeated:
        print(
            f"{categories.repeated:,} lines of metadata about an item that had one before: the "
            f"last with a category holds"
        )
