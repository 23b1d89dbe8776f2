"""The four sequence data sets of FuxiCTR's benchmark: published files -> splits.

    python data_preprocess/bars.py --dataset kuaivideo_x1

The files are checked against the published md5 sums before a row of them is used. The benchmark
stops its training on the test split; so that ours need not, the rows of some training users are
written apart:

    train/kept.parquet      95% of the training users
    train/held_out.parquet  the other 5%: validation
    test.parquet

The published protocol trains on the folder `train` and validates on `test.parquet`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fuxictr_miss.errors import InputError, explained, unknown
from fuxictr_miss.files import hash_of
from fuxictr_miss.preprocess.options import option
from fuxictr_miss.preprocess.output_folder import OutputFolder
from fuxictr_miss.preprocess.protocol import LARGEST_SEED, check_number

RAW = Path("data/raw/bars")
SAMPLE = Path("data/raw/bars_sample")
SAMPLE_STAMP = "sample.json"
OUTPUT = Path("data/splits/bars")
STAMP = "bars.json"
SEED = 2022
HELD_OUT_SHARE = 0.05  # of the training users


class Published(NamedTuple):
    """A data set as reczoo/Datasets publishes it."""

    name: str
    md5: Mapping[str, str]  # of its files; none is published for the vectors
    user: str
    numbers: tuple[str, ...]  # the columns that are no ids; the first is the label
    vectors: str | None = None  # a file that the configs name

    @property
    def address(self) -> str:
        return f"https://huggingface.co/datasets/reczoo/{self.name}/tree/main"


DATASETS = {
    "amazonelectronics_x1": Published(
        "AmazonElectronics_x1",
        {
            "train.csv": "e9bf80b92985e463db18fdc753d347b5",
            "test.csv": "57a20e82fe736dd495f2eaf0669bf6d0",
        },
        "user_id",
        ("label",),
    ),
    "taobaoad_x1": Published(
        "TaobaoAd_x1",
        {
            "train.csv": "eaabfc8629f23519b04593e26c7522fc",
            "test.csv": "f5ae6197e52385496d46e2867c1c8da1",
        },
        "userid",
        ("clk", "price"),
    ),
    "kuaivideo_x1": Published(
        "KuaiVideo_x1",
        {
            "train.csv": "16f13734411532cc313caf2180bfcd56",
            "test.csv": "ba26c01caaf6c65c272af11aa451fc7a",
        },
        "user_id",
        ("is_click",),
        "item_visual_emb_dim64.h5",
    ),
    "microvideo1.7m_x1": Published(
        "MicroVideo1.7M_x1",
        {
            "train.csv": "936e6612714c887e76226a60829b4e0a",
            "test.csv": "9417a18304fb62411ac27c26c5e0de56",
        },
        "user_id",
        ("is_click",),
        "item_image_emb_dim64.h5",
    ),
}


def write_splits(dataset: str, raw: Path, output: Path, seed: int = SEED) -> dict[str, int]:
    """Check the files of a data set and write its splits.

    Args:
        dataset: a key of `DATASETS`.
        raw: the folder with its files, as published or of `bars_sample.py`.
        output: the folder of the splits; only what an earlier call wrote there is replaced.
        seed: which users are held out.

    Returns:
        The rows of each file.

    Raises:
        InputError: a file is missing, is not the published one, or lacks the user's column; a file
            that is not ours would be replaced.
    """
    check_number("--seed", seed, 0, LARGEST_SEED)
    published = DATASETS[dataset]
    files = [raw / name for name in (*published.md5, *filter(None, [published.vectors]))]
    folder = OutputFolder(output, names=("train", "test.parquet"), stamp=STAMP, inputs=files)
    folder.check()
    _check_files(published, raw, files)
    frames = {part: _read(raw / f"{part}.csv", published) for part in ("train", "test")}
    with folder.work():
        new = folder.new()
        (new / "train").mkdir()
        users = frames["train"].select(pl.col(published.user).unique().sort()).collect().to_series()
        some = np.random.default_rng(seed).permutation(len(users))
        held_out = users[some[: max(1, round(HELD_OUT_SHARE * len(users)))]].implode()
        apart = pl.col(published.user).is_in(held_out)
        places = {
            "train/kept.parquet": frames["train"].filter(~apart),
            "train/held_out.parquet": frames["train"].filter(apart),
            "test.parquet": frames["test"],
        }
        rows = {}
        for name, frame in places.items():
            frame.sink_parquet(new / name)
            rows[name] = pl.scan_parquet(new / name).select(pl.len()).collect().item()
        about = {"dataset": published.name, "seed": seed, "held_out_share": HELD_OUT_SHARE}
        folder.replace({**about, "rows": rows})
    return rows


def _check_files(published: Published, raw: Path, files: list[Path]) -> None:
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{file} is not there: fetch {published.name} from {published.address} and unpack "
                f"it into {raw}."
            )
    stamp = raw / SAMPLE_STAMP
    expected, of = published.md5, "the published file's"
    if stamp.is_file():
        with explained(
            (ValueError, TypeError, KeyError), f"{stamp} cannot be read", "write the sample again"
        ):
            expected, of = dict(json.loads(stamp.read_bytes())["md5"]), f"what {stamp} says"
    for name, digest in expected.items():
        found = hash_of(raw / name, hashlib.md5())
        if found != digest:
            raise InputError(
                f"{raw / name} has the md5 sum {found}, which is not {of}, {digest}: fetch "
                f"{published.name} again from {published.address}."
            )


def _read(file: Path, published: Published) -> pl.LazyFrame:
    """The columns of a published CSV: numbers as numbers, all else as text."""
    frame = pl.scan_csv(file, infer_schema=False)
    with explained(pl.exceptions.PolarsError, f"{file} cannot be read as csv", "fetch it again"):
        names = frame.collect_schema().names()
    for name in (published.user, *published.numbers):
        if name not in names:
            raise InputError(f"{file} has no column {name}; it has {', '.join(names)}.")
    return frame.with_columns(pl.col(published.numbers).cast(pl.Float64))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Check the files of a data set of FuxiCTR's benchmark, and write its splits.",
        epilog="example: python data_preprocess/bars.py --dataset amazonelectronics_x1",
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help=", ".join(DATASETS))
    about = "the folder with the published files (default data/raw/bars/<published name>)"
    parser.add_argument("--raw", metavar="DIR", type=Path, help=about)
    parser.add_argument("--sample", action="store_true", help="split what bars_sample.py wrote")
    about = f"where the splits go (default {OUTPUT}/NAME, or {OUTPUT}/NAME_sample)"
    parser.add_argument("--output", metavar="DIR", type=Path, help=about)
    option(parser, "--seed", "N", SEED, "which users are held out")
    options = parser.parse_args()
    if options.dataset not in DATASETS:
        raise unknown("--dataset", options.dataset, DATASETS)
    home = SAMPLE if options.sample else RAW
    raw = options.raw or home / DATASETS[options.dataset].name
    is_sample = (raw / SAMPLE_STAMP).is_file()  # never under the name of the published data
    name = f"{options.dataset}_sample" if is_sample else options.dataset
    rows = write_splits(options.dataset, raw, options.output or OUTPUT / name, options.seed)
    print(", ".join(f"{file}: {count:,} rows" for file, count in rows.items()))
