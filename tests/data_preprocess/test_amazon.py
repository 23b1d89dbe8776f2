"""Raw Amazon reviews and metadata of 2014: what is read, and what can be wrong with them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import polars as pl
import pytest

import amazon
from amazon import read_categories, read_reviews
from fuxictr_miss.errors import InputError

USERS, ITEMS = 6, 6


def review(user: str, item: str, time: int, stars: float = 5.0) -> dict:
    return {
        "reviewerID": user,
        "asin": item,
        "reviewText": 'an "asin": "B9" in the text, and \u00e9 \u672c',
        "overall": stars,
        "unixReviewTime": time,
    }


def entry(item: str, *paths: list[str]) -> dict:
    return {"asin": item, "title": 'It\'s "it"', "categories": list(paths)}


# everyone reviews five of six items, so that the 5-core keeps all and one negative exists each
REVIEWS = [review(f"u{u}", f"b{i}", 100 + i) for u in range(USERS) for i in range(ITEMS) if u != i]
METADATA = [entry(f"b{i}", ["Root", f"Leaf {i % 2}"]) for i in range(ITEMS)]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/raw/demo"
    folder.mkdir(parents=True)
    write_reviews(folder, [json.dumps(line) for line in REVIEWS])
    write_metadata(folder, [repr(line) for line in METADATA])
    return folder


def write_reviews(folder: Path, lines: list[str]) -> Path:
    path = folder / "reviews_Demo_5.json.gz"
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def write_metadata(folder: Path, lines: list[str]) -> Path:
    path = folder / "meta_Demo.json.gz"
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def splits(name: str = "train") -> pl.DataFrame:
    return pl.read_parquet(f"data/splits/demo/{name}.parquet")


def test_raw_files_become_splits(raw: Path, run) -> None:
    ended = run(amazon, "--dataset", "demo")
    assert ended.code == 0, ended.err
    assert splits().rows()[:2] == [
        (1, "u0", "b3", "Leaf 1", "b1^b2", "Leaf 1^Leaf 0"),
        (0, "u0", "b0", "Leaf 0", "b1^b2", "Leaf 1^Leaf 0"),
    ]
    assert splits("test").row(0)[4] == "b1^b2^b3^b4"


def test_plain_files_with_windows_line_ends_give_the_same(raw: Path, tmp_path: Path, run) -> None:
    run(amazon, "--dataset", "demo")
    before = splits().rows()
    for name, path in (("r", "reviews_Demo_5.json.gz"), ("m", "meta_Demo.json.gz")):
        text = gzip.decompress((raw / path).read_bytes())
        (tmp_path / name).write_bytes(text.replace(b"\n", b"\r\n").rstrip())
    ended = run(amazon, "--dataset", "demo", "--reviews", "r", "--meta", "m")
    assert ended.code == 0, ended.err
    assert splits().rows() == before


@pytest.mark.parametrize(
    ("category", "expected"), [("leaf", "Jazz"), ("root", "Digital"), ("first", "Blues")]
)
def test_a_category_is_a_leaf_or_a_root_of_the_paths(
    tmp_path: Path, category: str, expected: str
) -> None:
    path = write_metadata(tmp_path, [repr(entry("b", ["CDs", "Blues"], ["Digital", "Jazz"]))])
    assert read_categories(path, {"b"}, category) == ({"b": expected}, 0)


@pytest.mark.parametrize(
    "line",
    [
        "{'categories': [['C']], 'asin': 'b'}",  # another order
        '{"asin": "b", "categories": [["C"]]}',
        "{'asin': 'b', 'title': \"'categories': [['no']], 'asin': 'z'\", 'categories': [['C']]}",
        "{'title': \"'asin': 'z'\", 'asin': 'b', 'categories': [['C']]}",
        "{'asin': 'b', 'related': {'also_bought': ['asin', 'categories']}, 'categories': [['C']]}",
        "{'asin': 'b', 'title': 'a \\'[[\\' \\\\', 'categories': [['D'], ['C']], 'price': 1.5}",
    ],
)
def test_a_text_that_looks_like_a_key_is_none(tmp_path: Path, line: str) -> None:
    assert read_categories(write_metadata(tmp_path, [line]), {"b"}) == ({"b": "C"}, 0)
    assert read_categories(write_metadata(tmp_path, [line]), {"z"}) == ({}, 0)


def test_names_keep_carets_commas_quotes_and_any_alphabet(raw: Path, run) -> None:
    names = ["R^B", "Rock, Pop", "Children's", 'The "Best"', "Café", "本"]
    write_metadata(raw, [repr(entry(f"b{i}", ["Root", name])) for i, name in enumerate(names)])
    assert run(amazon, "--dataset", "demo").code == 0
    expected = {f"b{i}": name.replace("^", "%5E") for i, name in enumerate(names)}
    assert dict(pl.read_parquet("data/splits/demo/items.parquet").rows()) == expected


def test_an_item_without_metadata_or_path_gets_a_category_of_its_own(raw: Path, run) -> None:
    lines = [repr(line) for line in METADATA[2:]]
    write_metadata(raw, [*lines, repr({"asin": "b0"}), repr({"asin": "b1", "categories": [[]]})])
    ended = run(amazon, "--dataset", "demo")
    assert "2 items without a category" in ended.out
    values = dict(pl.read_parquet("data/splits/demo/items.parquet").rows())
    assert (values["b0"], values["b1"], values["b2"]) == ("unknown", "unknown", "Leaf 0")


def test_metadata_of_other_items_is_not_parsed(tmp_path: Path) -> None:
    path = write_metadata(tmp_path, ["{'asin': 'other', broken", repr(METADATA[0])])
    assert read_categories(path, {"b0"}) == ({"b0": "Leaf 0"}, 0)


def test_metadata_is_never_executed(tmp_path: Path) -> None:
    line = "{'asin': 'b', 'categories': [[__import__('os').mkdir('executed') or 'x']]}"
    with pytest.raises(InputError, match="line 1"):
        read_categories(write_metadata(tmp_path, [line]), {"b"})
    assert not os.path.exists("executed")


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        '{"reviewerID": "u0", "asin": ',
        '["u0"]',
        "null",
        json.dumps({"reviewerID": "u0", "asin": "b0", "overall": 5.0}),  # no unixReviewTime
        json.dumps({"asin": "b0", "overall": 5.0, "unixReviewTime": 3}),
        json.dumps({"reviewerID": "u0", "asin": "b0", "unixReviewTime": "noon"}),
        json.dumps({"reviewerID": "u0", "asin": "b0", "unixReviewTime": 1e300}),
        json.dumps({"reviewerID": "u0", "asin": "b0", "unixReviewTime": float("nan")}),
        json.dumps({"reviewerID": "", "asin": "b0", "unixReviewTime": 3}),
    ],
)
def test_a_malformed_review_is_named_and_skipped_on_request(tmp_path: Path, line: str) -> None:
    lines = [json.dumps(one) for one in REVIEWS]
    path = write_reviews(tmp_path, [*lines[:2], "", line, *lines[2:]])
    with pytest.raises(InputError, match=r"reviews_Demo_5\.json\.gz, line 4: .*--skip-malformed"):
        list(read_reviews(path))
    ((frame, skipped),) = read_reviews(path, skip_malformed=True)
    assert (frame.height, skipped) == (len(REVIEWS), 1)


def test_an_empty_file_of_reviews_is_an_error(raw: Path, run) -> None:
    write_reviews(raw, [])
    ended = run(amazon, "--dataset", "demo")
    assert ended.code == 2
    assert "has no review in it" in ended.err


def test_low_ratings_are_no_interactions_and_no_negatives(raw: Path, run) -> None:
    low = [review("u0", "b0", 500, stars=1.0)]
    more = [review("w", f"b{i}", i) for i in range(4)] + [review("w", "c", n) for n in range(5)]
    more += [review(f"u{u}", "c", 1) for u in range(1, USERS)]
    write_reviews(raw, [json.dumps(line) for line in REVIEWS + low + more])
    assert run(amazon, "--dataset", "demo", "--min-rating", 4, "--num-negatives", 9).code == 0
    mine = splits().filter(user_id="u0")
    assert mine["item_id"][0] == "b3"
    assert set(mine.filter(label=0)["item_id"]) == {"c"}


def test_a_missing_raw_file_says_where_it_is_to_be_had(tmp_path: Path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(amazon, "--dataset", "demo")
    assert ended.code == 2
    assert "python data_preprocess/demo.py" in ended.err
    ended = run(amazon, "--dataset", "amazoncds")
    assert ended.code == 2
    assert "README.md" in ended.err
    assert "amazon.py --dataset amazoncds --download" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_dataset_is_answered_with_the_closest(run) -> None:
    ended = run(amazon, "--dataset", "amazoncd")
    assert ended.code == 2
    assert "Did you mean 'amazoncds'" in ended.err
    ended = run(amazon, "--dataset", "demo", "--category", "leave")
    assert ended.code == 2
    assert "Did you mean 'leaf'" in ended.err


def test_a_cut_off_file_of_reviews_is_named_or_used_up_to_its_end(raw: Path, run) -> None:
    more = [review(f"w{n}", f"extra{n}", n) for n in range(200)]
    path = write_reviews(raw, [json.dumps(line) for line in REVIEWS + more])
    path.write_bytes(path.read_bytes()[:-100])
    ended = run(amazon, "--dataset", "demo")
    assert ended.code == 2
    assert f"{path.name} is cut off: it is whole up to line" in ended.err
    assert not Path("data/splits/demo").exists()
    assert run(amazon, "--dataset", "demo", "--allow-truncated").code == 0
    assert splits().height == 2 * USERS


SAMPLES = Path(os.environ.get("AMAZON_RAW_SAMPLES", "data/raw_samples"))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="AMAZON_RAW_SAMPLES names no folder")
def test_the_real_cut_off_files_go_through(tmp_path: Path, run) -> None:
    files = [
        "--dataset",
        "demo",
        "--reviews",
        SAMPLES / "reviews_Digital_Music_5.truncated.json.gz",
        "--meta",
        SAMPLES / "meta_Digital_Music.truncated.json.gz",
        "--output",
        tmp_path,
    ]
    ended = run(amazon, *files)
    assert ended.code == 2
    assert "whole up to line 6908." in ended.err
    ended = run(amazon, *files, "--allow-truncated")
    assert ended.code == 0, ended.err
    assert pl.read_parquet(tmp_path / "train.parquet").height > 0
