"""The demo's raw files: the form of the real ones, the same bytes again."""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path

import pytest

import amazon
import demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    assert demo.write_demo(path)
    return path


def test_it_is_written_once_and_bytes_depend_on_the_seed_only(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not demo.write_demo(folder)
    (folder / "meta_Demo.json.gz").write_bytes(b"broken")
    assert demo.write_demo(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


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
