"""Made-up rows in the exact form of the four data sets of FuxiCTR's benchmark.

    python data_preprocess/bars_sample.py

A few thousand rows each, with the columns, files and peculiarities of the published ones: several
histories a row, ids too rare for a table, vectors in h5, a numeric price, items that only the test
split has. They test a machine and a config; they say nothing about a method. Each user has two
interests and mostly clicks items of them; the vector of an item points to its interest.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import polars as pl

from fuxictr_miss.files import hash_of
from fuxictr_miss.preprocess.bars import DATASETS, SAMPLE, SAMPLE_STAMP
from fuxictr_miss.preprocess.options import option
from fuxictr_miss.preprocess.output_folder import OutputFolder
from fuxictr_miss.preprocess.protocol import LARGEST_SEED, check_number

SEED = 7
USERS = 100
SHOWN = (20, 32)  # items that a user is shown, smallest and largest number
ITEMS = 240
INTERESTS = 8
INTERESTS_OF_A_USER = 2
CLICKS = 0.75, 0.15  # the share of clicks on items of an interest, and on others
TEST_SHARE = 0.2  # the newest of what a user was shown
DIM = 64  # of the vectors

Rows = list[dict[str, object]]  # by column


class World:
    """Items, their interests, and what users are shown.

    Args:
        rng: of all draws.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.interest = rng.integers(0, INTERESTS, ITEMS)  # (ITEMS,)
        popular = 1 / (1 + rng.permutation(ITEMS))
        self.popular = popular / popular.sum()  # (ITEMS,) the share of an item in what is shown

    def users(self) -> Iterator[tuple[int, list[tuple[int, bool]]]]:
        """A user, and each item shown with whether it is clicked, oldest first."""
        for user in range(USERS):
            liked = self.rng.choice(INTERESTS, INTERESTS_OF_A_USER, replace=False)
            mine = self.popular * np.where(np.isin(self.interest, liked), 4, 1)
            count = self.rng.integers(SHOWN[0], SHOWN[1] + 1)
            items = self.rng.choice(ITEMS, count, p=mine / mine.sum())
            rate = np.where(np.isin(self.interest[items], liked), *CLICKS)
            clicked = self.rng.random(count) < rate
            yield user, list(zip(items.tolist(), clicked.tolist(), strict=True))

    def vectors(self, item: np.ndarray) -> np.ndarray:
        """(n, DIM) of items given by their numbers."""
        of_interest = np.random.default_rng(0).standard_normal((INTERESTS, DIM))
        noise = self.rng.standard_normal((len(item), DIM))
        return ((of_interest[self.interest[item]] + noise) / DIM**0.5).astype(np.float32)


def _joined(values: list[object]) -> str:
    return "^".join(map(str, values))


def _amazonelectronics(world: World, folder: Path) -> tuple[Rows, Rows]:
    """Reviews: one row of label 1 and one of label 0 for each next item; the last one tests."""
    train: Rows = []
    test: Rows = []
    for user, shown in world.users():
        items = [item for item, clicked in shown if clicked]
        others = np.setdiff1d(np.arange(ITEMS), items)
        for k in range(1, len(items)):
            history = {
                "item_history": _joined(list(items[:k])),
                "cate_history": _joined([item % 12 for item in items[:k]]),
            }
            for label, item in ((1, items[k]), (0, int(world.rng.choice(others)))):
                ids = {"label": label, "user_id": user, "item_id": item, "cate_id": item % 12}
                (test if k == len(items) - 1 else train).append({**ids, **history})
    return train, test


def _taobaoad(world: World, folder: Path) -> tuple[Rows, Rows]:
    """Ads: the history is of shopping (cate, brand, kind of action), and grows by the click."""
    train: Rows = []
    test: Rows = []
    for user, shown in world.users():
        profile = {
            name: 1 + (user * 7 + place) % size
            for place, (name, size) in enumerate(
                {"cms_segid": 20, "cms_group_id": 12, "final_gender_code": 2, "age_level": 6,
                 "pvalue_level": 3, "shopping_level": 3, "occupation": 2,
                 "new_user_class_level": 4}.items()
            )
        }  # fmt: skip
        past: list[tuple[int, int]] = []  # an item and a kind of action
        for place, (item, clicked) in enumerate(shown):
            row = {
                "clk": int(clicked),
                "btag_his": _joined([tag for _, tag in past]),
                "cate_his": _joined([one % 12 + 1 for one, _ in past]),
                "brand_his": _joined([one % 30 + 1 for one, _ in past]),
                "userid": user + 1,
                **profile,
                "adgroup_id": item + 1,
                "cate_id": item % 12 + 1,
                "campaign_id": item // 2 + 1,
                "customer": item // 4 + 1,
                "brand": item % 30 + 1,
                "price": round(9.9 + 17.3 * (item % 30), 2),
                "pid": f"430{548 + item % 2}_1007",
                "btag": 1,
            }
            (train if place < (1 - TEST_SHARE) * len(shown) else test).append(row)
            if clicked:
                past.append((item, int(world.rng.integers(1, 5))))
    return train, test


def _kuaivideo(world: World, folder: Path) -> tuple[Rows, Rows]:
    """Videos, clicked and not clicked; ids have gaps, and every number has a vector."""
    train: Rows = []
    test: Rows = []
    for user, shown in world.users():
        seen: dict[bool, list[object]] = {True: [], False: []}
        for place, (item, clicked) in enumerate(shown):
            row = {
                "timestamp": place * USERS + user,
                "user_id": user,
                "item_id": 3 * item,
                "is_click": int(clicked),
                "is_like": int(clicked and world.rng.random() < 0.1),
                "is_follow": 0,
                "pos_items": _joined(seen[True][:100]),
                "neg_items": _joined(seen[False][:100]),
            }
            (train if place < (1 - TEST_SHARE) * len(shown) else test).append(row)
            seen[clicked].append(3 * item)
    vectors = world.vectors(np.arange(3 * ITEMS) // 3)
    _write_vectors(folder / "item_visual_emb_dim64.h5", vectors)
    return sorted(train, key=_time), sorted(test, key=_time)


def _microvideo(world: World, folder: Path) -> tuple[Rows, Rows]:
    """Videos; those of the test split are new, and known by their vectors alone."""
    train: Rows = []
    test: Rows = []
    for user, shown in world.users():
        clicked_before: list[int] = []
        for place, (item, clicked) in enumerate(shown):
            new = place >= (1 - TEST_SHARE) * len(shown)
            row = {
                "user_id": user,
                "item_id": item + new * ITEMS,
                "cate_id": item % 12,
                "is_click": int(clicked),
                "timestamp": place,
                "clicked_items": _joined(list(clicked_before[-128:])),
                "clicked_categories": _joined([one % 12 for one in clicked_before[-128:]]),
            }
            (test if new else train).append(row)
            if clicked and not new:
                clicked_before.append(item)
    vectors = world.vectors(np.arange(2 * ITEMS) % ITEMS)
    _write_vectors(folder / "item_image_emb_dim64.h5", vectors)
    return train, test


def _time(row: dict[str, object]) -> int:
    return int(str(row["timestamp"]))


def _write_vectors(path: Path, vectors: np.ndarray) -> None:
    with h5py.File(path, "w", track_order=False) as file:
        file.create_dataset("key", data=list(range(len(vectors))))
        file.create_dataset("value", data=vectors)


MAKERS: dict[str, Callable[[World, Path], tuple[Rows, Rows]]] = {
    "amazonelectronics_x1": _amazonelectronics,
    "taobaoad_x1": _taobaoad,
    "kuaivideo_x1": _kuaivideo,
    "microvideo1.7m_x1": _microvideo,
}


def write_sample(dataset: str, output: Path = SAMPLE, seed: int = SEED) -> Path:
    """Write the files of a data set's sample to a folder of its published name.

    Args:
        dataset: a key of `fuxictr_miss.preprocess.bars.DATASETS`.
        output: the folder that holds the folders of all samples.
        seed: the same seed gives the same rows.

    Returns:
        The folder.

    Raises:
        InputError: a file that is not ours would be replaced.
    """
    check_number("--seed", seed, 0, LARGEST_SEED)
    published = DATASETS[dataset]
    names = (*published.md5, *filter(None, [published.vectors]))
    folder = OutputFolder(output / published.name, names=names, stamp=SAMPLE_STAMP)
    with folder.work():
        new = folder.new()
        train, test = MAKERS[dataset](World(np.random.default_rng(seed)), new)
        md5 = {}
        for part, rows in (("train.csv", train), ("test.csv", test)):
            pl.DataFrame(rows).write_csv(new / part, quote_style="never")
            md5[part] = hash_of(new / part, hashlib.md5())
        folder.replace({"seed": seed, "md5": md5})
    return folder.path


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write made-up rows in the form of the data sets of FuxiCTR's benchmark.",
        epilog="example: python data_preprocess/bars_sample.py, "
        "then python data_preprocess/bars.py --sample --dataset kuaivideo_x1",
    )
    about = "only files that an earlier run listed in its sample.json are replaced"
    option(parser, "--output", "DIR", SAMPLE, about)
    option(parser, "--seed", "N", SEED, "the same seed gives the same rows")
    options = parser.parse_args()
    for dataset in DATASETS:
        print(write_sample(dataset, options.output, options.seed))
