"""Writes raw files of the true size and form of the paper's data sets, to time data_preprocess on.

    python benchmarks/raw_files.py cds --output /tmp/raw

`impressions` is no data set of the paper: a CSV of 20 million impressions with context.

The numbers of reviews, users, items and lines of metadata are those of the real files; their
content is random. Lengths of texts follow the real reviews_Digital_Music_5.json.gz (log-normal,
mean 1,141 and median 823 characters), and so do the parts of a line of metadata (on average 43
related items and six paths). For Alipay the numbers of rows and clicks are the real ones, the
numbers of users and items are assumed. Statistics of splits made from these files say nothing about
the paper's.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from tqdm import tqdm

from fuxictr_miss.errors import run_command


class Amazon(NamedTuple):
    """A subset of the Amazon data, 5-core, as it is published."""

    name: str
    users: int
    items: int
    reviews: int
    metadata: int
    median_text: int  # characters


AMAZON = {
    "cds": Amazon("CDs_and_Vinyl", 75_258, 64_443, 1_097_592, 500_000, 823),
    "books": Amazon("Books", 603_668, 367_982, 8_898_041, 2_400_000, 520),
}
ALIPAY_ROWS, ALIPAY_CLICKS = 44_528_127, 35_179_371
ALIPAY_USERS, ALIPAY_ITEMS, ALIPAY_CATEGORIES, ALIPAY_SELLERS = 500_000, 2_200_000, 72, 9_900
IMPRESSIONS, IMPRESSION_USERS, IMPRESSION_ITEMS = 20_000_000, 500_000, 200_000
_USER_TAIL, _ITEM_TAIL = (
    1.6,
    2.1,
)  # spread of log activity: about as many pass a 10-core as in Table II
_SPREAD = 0.926  # of the logarithm of a text's length
_BLOCK = 20_000  # lines


def write_amazon(shape: Amazon, output: Path, seed: int) -> None:
    """Write `reviews_<name>_5.json.gz` and `meta_<name>.json.gz`."""
    rng = np.random.default_rng(seed)
    pool = _words(rng, 4_000_000)
    items = [f"B{number:09d}" for number in rng.permutation(10_000_000)[: shape.metadata]]
    _write_gzip(
        output / f"reviews_{shape.name}_5.json.gz", _reviews(rng, shape, items, pool), shape.reviews
    )
    _write_gzip(
        output / f"meta_{shape.name}.json.gz", _metadata(rng, shape, items, pool), shape.metadata
    )


def write_alipay(output: Path, seed: int, rows: int = ALIPAY_ROWS) -> None:
    """Write `IJCAI16_data.zip` with `ijcai2016_taobao.csv` in it, users and items heavy-tailed."""
    rng = np.random.default_rng(seed)
    clicks = rows * ALIPAY_CLICKS // ALIPAY_ROWS
    seller_of = rng.integers(1, ALIPAY_SELLERS + 1, ALIPAY_ITEMS)
    category_of = rng.integers(1, ALIPAY_CATEGORIES + 1, ALIPAY_ITEMS)
    days = pl.date_range(pl.date(2015, 7, 1), pl.date(2015, 11, 30), eager=True)
    day = days.dt.strftime("%Y%m%d").cast(pl.Int32).to_numpy()
    users = _shares(rng, ALIPAY_USERS, _USER_TAIL)
    items = _shares(rng, ALIPAY_ITEMS, _ITEM_TAIL)
    archive = zipfile.ZipFile(
        output / "IJCAI16_data.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    )
    member = zipfile.ZipInfo("ijcai2016_taobao.csv")
    member.compress_type = zipfile.ZIP_DEFLATED
    with archive, archive.open(member, "w", force_zip64=True) as file:
        file.write(b"use_ID,sel_ID,ite_ID,cat_ID,act_ID,time\n")
        for start in tqdm(range(0, rows, 1 << 20), desc="log", unit=" Mi rows"):
            size = min(1 << 20, rows - start)
            item = np.searchsorted(items, rng.random(size))
            frame = pl.DataFrame(
                {
                    "use_ID": np.searchsorted(users, rng.random(size)) + 1,
                    "sel_ID": seller_of[item],
                    "ite_ID": item + 1,
                    "cat_ID": category_of[item],
                    "act_ID": (rng.random(size) >= clicks / rows).astype(np.int8),
                    "time": rng.choice(day, size),
                }
            )
            text = io.BytesIO()
            frame.write_csv(text, include_header=False)
            file.write(text.getvalue())


def write_impressions(output: Path, seed: int, rows: int = IMPRESSIONS) -> None:
    """Write `impressions.csv`: 30 days in the order of time, one line in ten a click."""
    rng = np.random.default_rng(seed)
    users = _shares(rng, IMPRESSION_USERS, _USER_TAIL)
    items = _shares(rng, IMPRESSION_ITEMS, _ITEM_TAIL)
    category_of = rng.integers(0, 500, IMPRESSION_ITEMS)
    with (output / "impressions.csv").open("wb") as file:
        file.write(b"user,item,cate_id,time,click,hour,device,price\n")
        for start in tqdm(range(0, rows, 1 << 20), desc="log", unit=" Mi rows"):
            size = min(1 << 20, rows - start)
            item = np.searchsorted(items, rng.random(size))
            second = (start + np.arange(size)) * (30 * 86_400) // rows
            frame = pl.DataFrame(
                {
                    "user": pl.Series(np.searchsorted(users, rng.random(size))),
                    "item": pl.Series(item),
                    "cate_id": category_of[item],
                    "time": 1_700_000_000 + second,
                    "click": (rng.random(size) < 0.1).astype(np.int8),
                    "hour": second // 3_600 % 24,
                    "device": rng.integers(0, 4, size),
                    "price": np.round(rng.lognormal(3, 1, size), 2),
                }
            ).with_columns(
                pl.format(f"{name[0]}{{}}", name).alias(name) for name in ("user", "item", "device")
            )
            frame.write_csv(file, include_header=False)


def _reviews(rng: np.random.Generator, shape: Amazon, items: list[str], pool: str) -> Iterator[str]:
    # everyone and everything five times, and the rest by a heavy tail: a 5-core as it stands
    of_item = np.sort(_five_and_more(rng, shape.items, shape.reviews))
    of_user = rng.permutation(_five_and_more(rng, shape.users, shape.reviews))
    length = np.exp(rng.normal(np.log(shape.median_text), _SPREAD, shape.reviews)).astype(int)
    start = rng.integers(0, len(pool) - length)
    day = rng.integers(9_000, 16_270, shape.reviews)  # since 1970: August 1994 to July 2014
    stars = rng.choice([1, 2, 3, 4, 5], shape.reviews, p=[0.04, 0.04, 0.09, 0.22, 0.61])
    for n in range(shape.reviews):
        user = of_user[n]
        text = pool[start[n] : start[n] + length[n]]
        yield (
            f'{{"reviewerID": "A{user * 48271 % 2147483647:013d}", "asin": "{items[of_item[n]]}", '
            f'"reviewerName": "Somebody \\"so\\" {user}", "helpful": [0, 3], '
            f'"reviewText": {json.dumps(text)}, "overall": {stars[n]}.0, '
            f'"summary": "{pool[start[n] : start[n] + 29]}", '
            f'"unixReviewTime": {int(day[n]) * 86400}, "reviewTime": "07 4, 2013"}}\n'
        )


def _metadata(
    rng: np.random.Generator, shape: Amazon, items: list[str], pool: str
) -> Iterator[str]:
    related = rng.poisson(43, shape.metadata)
    length = rng.integers(0, 900, shape.metadata)
    start = rng.integers(0, len(pool) - 1000, shape.metadata)
    for n in rng.permutation(shape.metadata):
        text = pool[start[n] : start[n] + length[n]]
        # half of the texts hold an apostrophe, so that Python writes them in double quotes
        yield (
            repr(
                {
                    "asin": items[n],
                    "description": text + ("'s" if n % 2 else ""),
                    "title": text[:40],
                    "price": 9.49,
                    "imUrl": f"http://ecx.images-amazon.com/images/I/{items[n]}._SX300_.jpg",
                    "related": {"also_bought": items[n : n + related[n]]},
                    "salesRank": {"Music": int(start[n])},
                    "categories": [
                        ["CDs & Vinyl", f"Style {n % 30}", f"Leaf {(n + k) % 466}"]
                        for k in range(n % 11 + 1)
                    ],
                }
            )
            + "\n"
        )


def _shares(rng: np.random.Generator, names: int, spread: float) -> np.ndarray:
    """Where each name's share of [0, 1) ends."""
    upto = np.cumsum(rng.lognormal(0, spread, names))
    return upto / upto[-1]


def _five_and_more(rng: np.random.Generator, names: int, total: int) -> np.ndarray:
    rest = total - 5 * names
    more = (names * rng.random(rest) ** 4).astype(np.int64)
    return np.concatenate((np.repeat(np.arange(names), 5), more))


def _words(rng: np.random.Generator, characters: int) -> str:
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(rng.choice(letters, n, p=_zipf(26))) for n in rng.integers(1, 11, 30_000)]
    return " ".join(rng.choice(words, characters // 6, p=_zipf(len(words))))[:characters]


def _zipf(n: int) -> np.ndarray:
    weight = 1 / np.arange(2, n + 2)
    return weight / weight.sum()


def _write_gzip(path: Path, lines: Iterator[str], total: int) -> None:
    """One gzip stream; a second thread compresses while lines are made."""
    packer = zlib.compressobj(6, zlib.DEFLATED, wbits=31)
    waiting: list[str] = []
    with (
        path.open("wb") as file,
        ThreadPoolExecutor(1) as thread,
        tqdm(total=total, desc=path.name, unit=" lines", unit_scale=True) as bar,
    ):
        packed = thread.submit(bytes)
        for line in lines:
            waiting.append(line)
            if len(waiting) == _BLOCK:
                file.write(packed.result())
                packed = thread.submit(packer.compress, "".join(waiting).encode())
                bar.update(len(waiting))
                waiting.clear()
        file.write(packed.result())
        file.write(packer.compress("".join(waiting).encode()) + packer.flush())
        bar.update(len(waiting))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write raw files of the true size of a data set, with drawn content.",
        epilog="example: python benchmarks/raw_files.py cds --output /tmp/raw, then "
        "python data_preprocess/amazon.py --dataset amazoncds "
        "--reviews /tmp/raw/reviews_CDs_and_Vinyl_5.json.gz "
        "--meta /tmp/raw/meta_CDs_and_Vinyl.json.gz --output /tmp/splits",
    )
    parser.add_argument("dataset", choices=[*AMAZON, "alipay", "impressions"])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.dataset == "alipay":
        write_alipay(options.output, options.seed)
    elif options.dataset == "impressions":
        write_impressions(options.output, options.seed)
    else:
        write_amazon(AMAZON[options.dataset], options.output, options.seed)


if __name__ == "__main__":
    run_command(main)
