"""Writes the demo's raw files, in the form of the Amazon data of 2014, under data/raw/demo/.

    python data_preprocess/demo.py

Each user follows a few interests at once, in interleaved runs. An interest is a ring of items that
are bought one after another; it spans several categories, and each category several interests, so
that a category alone tells little. What belongs together shows only in who buys what next to what.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy as np

from fuxictr_miss.preprocess.options import option
from fuxictr_miss.preprocess.output_folder import OutputFolder
from fuxictr_miss.preprocess.protocol import LARGEST_SEED, check_number

OUTPUT = Path("data/raw/demo")
STAMP = "demo.json"
SEED = 7
USERS = 3000
INTERESTS = 36
ITEMS_PER_INTEREST = 30
CATEGORIES = 24
CATEGORIES_PER_INTEREST = 2  # the categories of its items; an item has one of them
INTERESTS_PER_USER = (2, 4)  # smallest and largest number, both included, as all pairs below
INTERACTIONS = (12, 25)
RUN_LENGTH = (2, 4)  # interactions before the user turns to another interest
STEP = 3  # the next item of an interest lies at most this far along its ring
NOISE = 0.05  # share of interactions with any item at all


def write_demo(output: Path = OUTPUT, seed: int = SEED) -> bool:
    """Write `reviews_Demo_5.json.gz` and `meta_Demo.json.gz`; the same seed gives the same bytes.

    `demo.json` lists the files with their digests, so that the next call knows what it may replace.

    Returns:
        Whether anything was written: not, if both files are there with the same bytes.

    Raises:
        InputError: a file of that name is there that `demo.json` does not list, or has changed.
    """
    check_number("--seed", seed, 0, LARGEST_SEED)
    rng = np.random.default_rng(seed)
    n_items = INTERESTS * ITEMS_PER_INTEREST
    offered = [
        rng.choice(CATEGORIES, CATEGORIES_PER_INTEREST, replace=False) for _ in range(INTERESTS)
    ]
    category = [int(rng.choice(offered[item // ITEMS_PER_INTEREST])) for item in range(n_items)]
    number = rng.permutation(n_items)  # so that an asin does not give its interest away
    asin = [f"B{number[item]:09d}" for item in range(n_items)]
    reviews = [
        (when, f"A{user:013d}", asin[item])
        for user in range(USERS)
        for when, item in _walk(rng, n_items)
    ]
    files = {
        "reviews_Demo_5.json.gz": "".join(_review(who, what, when) for when, who, what in reviews),
        "meta_Demo.json.gz": "".join(
            _metadata(asin[item], category[item]) for item in np.argsort(number)
        ),
    }
    packed = {name: gzip.compress(text.encode(), 6, mtime=0) for name, text in files.items()}
    paths = {output / name: content for name, content in packed.items()}
    if all(path.is_file() and path.read_bytes() == content for path, content in paths.items()):
        return False
    folder = OutputFolder(output, names=tuple(packed), stamp=STAMP)
    with folder.work():
        new = folder.new()
        for name, content in packed.items():
            (new / name).write_bytes(content)
        folder.replace({"seed": seed})
    return True


def _walk(rng: np.random.Generator, n_items: int) -> list[tuple[int, int]]:
    """One user's (time, item) pairs: runs through interests, each resumed where it was left."""
    count = int(rng.integers(INTERESTS_PER_USER[0], INTERESTS_PER_USER[1] + 1))
    interests = rng.choice(INTERESTS, count, replace=False)
    place = rng.integers(0, ITEMS_PER_INTEREST, count)
    length = int(rng.integers(INTERACTIONS[0], INTERACTIONS[1] + 1))
    day = int(rng.integers(12_000, 15_000))  # days since 1970
    walk: list[tuple[int, int]] = []
    current = int(rng.integers(count))
    while len(walk) < length:
        for _ in range(int(rng.integers(RUN_LENGTH[0], RUN_LENGTH[1] + 1))):
            place[current] = (place[current] + rng.integers(1, STEP + 1)) % ITEMS_PER_INTEREST
            item = int(interests[current]) * ITEMS_PER_INTEREST + int(place[current])
            if rng.random() < NOISE:
                item = int(rng.integers(n_items))
            day += int(rng.integers(1, 10))
            walk.append((day * 86_400, item))
        current = (current + int(rng.integers(1, count))) % count
    return walk[:length]


def _review(who: str, what: str, when: int) -> str:
    """A line of `reviews_*_5.json.gz`: JSON."""
    day = time.gmtime(when)
    return (
        json.dumps(
            {
                "reviewerID": who,
                "asin": what,
                "reviewerName": f"Reader {who[-4:]}",
                "helpful": [0, 0],
                "reviewText": f"Just what I expected of {what}.",
                "overall": 5.0,
                "summary": "Good",
                "unixReviewTime": when,
                "reviewTime": f"{day.tm_mon:02d} {day.tm_mday}, {day.tm_year}",
            }
        )
        + "\n"
    )


def _metadata(what: str, category: int) -> str:
    """A line of `meta_*.json.gz`: a Python literal."""
    entry = {
        "asin": what,
        "title": f"The demo's item {what}",
        "price": 9.99,
        "salesRank": {"Demo": int(what[1:]) + 1},
        "categories": [["Demo", f"Shelf {category % 6}", f"Category {category}"]],
    }
    return f"{entry!r}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write the demo's raw files (Amazon 2014 form): reviews and metadata.",
        epilog="example: python data_preprocess/demo.py, "
        "then python data_preprocess/amazon.py --dataset demo",
    )
    about = f"only files that an earlier run listed in its {STAMP} are replaced"
    option(parser, "--output", "DIR", OUTPUT, about)
    option(parser, "--seed", "N", SEED, "the same seed gives the same bytes")
    options = parser.parse_args()
    written = write_demo(options.output, options.seed)
    print(f"{options.output}: {'written' if written else 'already there'}")
