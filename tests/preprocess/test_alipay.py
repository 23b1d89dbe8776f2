"""The Alipay log: clicks only, sellers and categories, and where it must lie."""

from __future__ import annotations

import zipfile
from pathlib import Path

import polars as pl

from fuxictr_miss.preprocess import alipay

HEADER = "use_ID,sel_ID,ite_ID,cat_ID,act_ID,time"
# twelve users click ten times each on eleven of twelve items, so that a 10-core is left
LINES = [
    f"{u},{i % 3},{i},{i % 5},0,201507{day:02d}"
    for u in range(12)
    for day, i in enumerate((i for i in range(12) if i != u), start=1)
]


def write(folder: Path, lines: list[str]) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "IJCAI16_data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ijcai2016_koubei_train.csv", "another table\n")
        archive.writestr("ijcai2016_taobao.csv", "\n".join([HEADER, *lines]))


def test_the_archive_becomes_splits_of_seven_fields(tmp_path: Path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data/raw/alipay", LINES)
    ended = run(alipay)
    assert ended.code == 0, ended.err
    train = pl.read_parquet("data/splits/alipay/train.parquet")
    assert train.columns == [
        "label",
        "user_id",
        "item_id",
        "cate_id",
        "seller_id",
        "item_history",
        "cate_history",
        "seller_history",
    ]
    assert train.row(0) == (
        1,
        "0",
        "9",
        "4",
        "0",
        "1^2^3^4^5^6^7^8",
        "1^2^3^4^0^1^2^3",
        "1^2^0^1^2^0^1^2",
    )
    assert "paper, Table II" in ended.out
    assert "-326,565" in ended.out


def test_purchases_are_no_interactions_and_no_negatives(tmp_path: Path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    clicks = [f"{u},1,99,1,0,20151101" for u in range(1, 12)]
    write(
        tmp_path / "data/raw/alipay", [*LINES, *clicks, "0,0,0,0,1,20150715", "0,0,98,0,,20150715"]
    )
    assert run(alipay, "--num-negatives", 20).code == 0
    test = pl.read_parquet("data/splits/alipay/test.parquet").filter(user_id="0")
    # user 0 clicked 1 to 11 and bought 0, so that only 99 is left
    assert set(test.filter(label=0)["item_id"]) == {"99"}
    assert "0" not in test["item_history"][0].split("^")


def test_a_missing_log_says_what_to_read(tmp_path: Path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(alipay)
    assert ended.code == 2
    assert "data_preprocess/alipay.md" in ended.err


def test_a_statistic_off_the_papers_is_an_error_on_request(
    tmp_path: Path, monkeypatch, run
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data/raw/alipay", LINES)
    ended = run(alipay, "--expect-paper")
    assert ended.code == 2
    assert "Nothing was written" in ended.err
    assert not Path("data/splits/alipay/train.parquet").exists()


def test_an_action_that_is_neither_click_nor_purchase_is_named(
    tmp_path: Path, monkeypatch, run
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data/raw/alipay", [*LINES, "0,0,0,0,buy,20150715"])
    ended = run(alipay)
    assert ended.code == 2
    assert "act_ID is 'buy' in 1 rows" in ended.err
    assert not Path("data/splits").exists()
