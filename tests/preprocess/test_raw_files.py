"""The generator of full-size raw files, at a small size."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from fuxictr_miss.preprocess import alipay, amazon, interactions

SOURCE = Path(__file__).parents[2] / "benchmarks/raw_files.py"
spec = importlib.util.spec_from_file_location("raw_files", SOURCE)
assert spec is not None
assert spec.loader is not None
raw_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(raw_files)


def statistics(folder: Path) -> dict:
    return json.loads((folder / "statistics.json").read_text())


def test_its_reviews_are_a_five_core_of_the_numbers_asked_for(tmp_path: Path, run) -> None:
    shape = raw_files.Amazon("CDs_and_Vinyl", 60, 50, 700, 90, 200)
    raw_files.write_amazon(shape, tmp_path, seed=1)
    ended = run(
        amazon,
        "--dataset",
        "amazoncds",
        "--reviews",
        tmp_path / "reviews_CDs_and_Vinyl_5.json.gz",
        "--meta",
        tmp_path / "meta_CDs_and_Vinyl.json.gz",
        "--output",
        tmp_path / "out",
    )
    assert ended.code == 0, ended.err
    built = statistics(tmp_path / "out")
    assert (built["users"], built["items"], built["interactions"]) == (60, 50, 700)
    assert built["items_without_category"] == 0


def test_its_alipay_log_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run) -> None:
    monkeypatch.setattr(raw_files, "ALIPAY_USERS", 400)
    monkeypatch.setattr(raw_files, "ALIPAY_ITEMS", 800)
    raw_files.write_alipay(tmp_path, seed=1, rows=20_000)
    log, output = tmp_path / "IJCAI16_data.zip", tmp_path / "out"
    ended = run(alipay, "--log", log, "--output", output)
    assert ended.code == 0, ended.err
    assert statistics(output)["raw_rows"] == 20_000


def test_its_impressions_go_through_with_numeric_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run
) -> None:
    monkeypatch.setattr(raw_files, "IMPRESSION_USERS", 100)
    raw_files.write_impressions(tmp_path, seed=1, rows=5_000)
    names = "--user user --item item --time time --label click --context hour,device,price"
    log, out = tmp_path / "impressions.csv", tmp_path / "out"
    ended = run(interactions, "--input", log, *names.split(), "--output", out)
    assert ended.code == 0, ended.err
    built = statistics(out)
    assert sum(built["rows"].values()) + built["before_first_positive"] == 5_000
    kinds = {name: about["type"] for name, about in built["context"].items()}
    assert kinds == {"hour": "numeric", "device": "categorical", "price": "numeric"}
