"""Raw Amazon reviews and metadata of 2014: what is read, and what can be wrong with them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import polars as pl
import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess import amazon
from fuxictr_miss.preprocess.amazon import read_categories, read_reviews
from fuxictr_miss.preprocess.left_out import LeftOut

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
    assert read_categories(path, {"b"}, category).of == {"b": expected}


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
    path = write_metadata(tmp_path, [line, repr(entry("other", ["D"]))])
    assert read_categories(path, {"b"}).of == {"b": "C"}
    assert read_categories(path, {"z", "other"}).of == {"other": "D"}


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
    assert read_categories(path, {"b0"}).of == {"b0": "Leaf 0"}


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
        json.dumps({"reviewerID": "u0", "asin": "b0", "unixReviewTime": 1_400_000_000_000}),
        json.dumps({"reviewerID": "u0", "asin": "b0", "unixReviewTime": float("nan")}),
        json.dumps({"reviewerID": "", "asin": "b0", "unixReviewTime": 3}),
        json.dumps({"reviewerID": "u0", "asin": "b0", "unixReviewTime": 3.5}),
        json.dumps({"reviewerID": "u0", "asin": "b0", "unixReviewTime": True}),
        json.dumps(
            {"reviewerID": "u0", "asin": "b0", "overall": float("nan"), "unixReviewTime": 3}
        ),
        json.dumps({"reviewerID": "u0", "asin": "b0", "overall": "many", "unixReviewTime": 3}),
        json.dumps({"reviewerID": ["u0"], "asin": "b0", "overall": 5.0, "unixReviewTime": 3}),
        json.dumps({"reviewerID": {"u": 0}, "asin": "b0", "overall": 5.0, "unixReviewTime": 3}),
        json.dumps({"reviewerID": True, "asin": "b0", "overall": 5.0, "unixReviewTime": 3}),
        json.dumps({"reviewerID": 1.5, "asin": "b0", "overall": 5.0, "unixReviewTime": 3}),
        '{"reviewerID": "\\ud800", "asin": "b0", "overall": 5.0, "unixReviewTime": 3}',
        '{"reviewerID": "u0", "asin": "b0", "overall": 5.0, "unixReviewTime": 3, "asin": "b1"}',
        '{"reviewerID": "u0", "asin": "b0", "overall": 1.0, "unixReviewTime": 3, "overall": 5.0}',
        '{"reviewerID": "u0", "asin": "b0", "overall": 1e999, "unixReviewTime": 3}',
    ],
)
def test_a_malformed_review_is_named_and_skipped_on_request(tmp_path: Path, line: str) -> None:
    lines = [json.dumps(one) for one in REVIEWS]
    path = write_reviews(tmp_path, [*lines[:2], "", line, *lines[2:]])
    with pytest.raises(InputError, match=r"reviews_Demo_5\.json\.gz, line 4: .*--skip-malformed"):
        list(read_reviews(path))
    left_out = LeftOut()
    (frame,) = read_reviews(path, left_out=left_out)
    assert (frame.height, len(left_out)) == (len(REVIEWS), 1)


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


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{'asin': 'b', 'categories': ['Books', 'Fiction']}", "Fiction"),
        ('{"asin": "b", "category": ["Books", "Fiction"], "price": null}', "Fiction"),  # 2018
        ('{ "asin": "b", "categories": [], "category": ["Books"]}', "Books"),
        ("{'asin': 'b', 'categories': 'Books'}", "Books"),
    ],
)
def test_a_flat_list_of_categories_is_one_path(tmp_path: Path, line: str, expected: str) -> None:
    categories = read_categories(write_metadata(tmp_path, [line]), {"b"})
    assert (categories.of, categories.flat) == ({"b": expected}, 1)


@pytest.mark.parametrize(
    "value", ["None", "[[None]]", "[['a', 5]]", "[5]", "{'a': 1}", "7", "[[['a']]]", "['\\ud800']"]
)
def test_a_category_that_is_no_text_is_none(tmp_path: Path, value: str) -> None:
    lines = [f"{{'asin': 'b', 'categories': {value}}}", repr(entry("c", ["Root", "Leaf"]))]
    categories = read_categories(write_metadata(tmp_path, lines), {"b", "c"})
    assert categories.of == {"c": "Leaf"}
    assert categories.no_text == (value != "None")


def test_of_several_lines_about_an_item_the_last_with_a_category_holds(tmp_path: Path) -> None:
    lines = [repr(line) for line in (entry("b", ["A"]), entry("b", ["B"]), entry("b"))]
    categories = read_categories(write_metadata(tmp_path, lines), {"b"})
    assert (categories.of, categories.repeated) == ({"b": "B"}, 2)


def test_metadata_without_any_category_is_an_error(raw: Path, run) -> None:
    write_metadata(raw, [repr({"asin": f"b{i}", "genre": "x"}) for i in range(ITEMS)])
    ended = run(amazon, "--dataset", "demo")
    assert ended.code == 2
    assert "none of the 6 items has a category in it (6 of them are there)" in ended.err
    assert not Path("data/splits").exists()


def test_a_rating_that_is_no_number_passes_no_minimum(raw: Path, run) -> None:
    line = json.dumps(review("u0", "b0", 500, stars=float("nan")))
    write_reviews(raw, [*(json.dumps(one) for one in REVIEWS), line])
    ended = run(amazon, "--dataset", "demo", "--min-rating", 4)
    assert ended.code == 2
    assert "line 31: " in ended.err
    assert "has overall that is no number" in ended.err
    ended = run(amazon, "--dataset", "demo", "--min-rating", 4, "--skip-malformed")
    assert ended.code == 0, ended.err
    assert "1 with overall that is no number: " in ended.out
    for minimum in ("nan", "inf"):
        assert run(amazon, "--dataset", "demo", "--min-rating", minimum).code == 2


def test_a_minimum_that_no_review_reaches_names_the_option(raw: Path, run) -> None:
    lines = [{k: v for k, v in one.items() if k != "overall"} for one in REVIEWS[1:]]
    write_reviews(raw, [json.dumps(one) for one in (REVIEWS[0] | {"overall": 3.0}, *lines)])
    ended = run(amazon, "--dataset", "demo", "--min-rating", 4)
    assert ended.code == 2
    assert "No review has 4 stars or more (1 have an `overall` at all)" in ended.err
    assert not Path("data/splits").exists()


def test_numbers_as_ids_are_read_alike_in_whole_and_broken_blocks(tmp_path: Path) -> None:
    lines = [json.dumps({**REVIEWS[0], "reviewerID": 12}), json.dumps(REVIEWS[1])]
    whole = pl.concat(read_reviews(write_reviews(tmp_path, lines)))
    broken = write_reviews(tmp_path, [*lines, "broken"])
    assert pl.concat(read_reviews(broken, left_out=LeftOut())).rows() == whole.rows()
    assert whole["user_id"][0] == "12"


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
