"""The demo's raw files: the form of the real ones, the same bytes again."""

from __future__ import annotations

import ast
import gzip
import json
import shutil
from pathlib import Path

import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess import amazon, demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    assert demo.write_demo(path)
    return path


def test_it_is_written_once_and_bytes_depend_on_the_seed_only(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not demo.write_demo(folder)
    assert demo.write_demo(folder, seed=8)
    assert (folder / "meta_Demo.json.gz").read_bytes() != before["meta_Demo.json.gz"]
    assert demo.write_demo(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("changed", [True, False])
def test_a_file_that_no_demo_listed_is_left_alone(folder: Path, tmp_path: Path, changed) -> None:
    output = tmp_path / "demo"
    if changed:
        shutil.copytree(folder, output)
    output.mkdir(exist_ok=True)
    mine = output / "meta_Demo.json.gz"
    mine.write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(InputError, match=r"meta_Demo\.json\.gz would be replaced, but"):
        demo.write_demo(output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_none_is_refused_before_anything_is_written(
    tmp_path: Path, run, seed: int
) -> None:
    ended = run(demo, "--seed", seed, "--output", tmp_path / "demo")
    assert ended.code == 2
    assert "--seed is" in ended.err
    assert not (tmp_path / "demo").exists()


def test_lines_have_the_form_of_the_real_files(folder: Path) -> None:
    with gzip.open(folder / "reviews_Demo_5.json.gz", "rt") as file:
        review = json.loads(next(file))
    assert list(review) == [
        "reviewerID",
        "asin",
        "reviewerName",
        "helpful",
        "reviewText",
        "overall",
        "summary",
        "unixReviewTime",
        "reviewTime",
    ]
    with gzip.open(folder / "meta_Demo.json.gz", "rt") as file:
        entry = ast.literal_eval(next(file))
    assert {"asin", "title", "price", "salesRank", "categories"} == set(entry)


def test_the_demo_passes_the_five_core_whole(folder: Path, tmp_path: Path, run) -> None:
    ended = run(
        amazon,
        "--dataset",
        "demo",
        "--reviews",
        folder / "reviews_Demo_5.json.gz",
        "--meta",
        folder / "meta_Demo.json.gz",
        "--output",
        tmp_path / "out",
    )
    assert ended.code == 0, ended.err
    statistics = json.loads((tmp_path / "out/statistics.json").read_text())
    assert statistics["users"] == demo.USERS
    assert statistics["raw_interactions"] == statistics["interactions"]
    assert statistics["items_without_category"] == 0
