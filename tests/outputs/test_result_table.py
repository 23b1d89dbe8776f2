"""The table that a run adds its row to: nobody else's is touched, before the run or after it."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.outputs.result_table import append_result, check_result_table

STRANGERS = [
    b"user,item,label\nu1,i1,1\n",
    b"time,user\n2024,u1\n",
    b"expid,time\na,b\n",
    b"",
    b"\xff\xfe\x00binary",
    b"caf\xe9,time,expid\n",
    b"time;expid\n1;2\n",
    b'"time\n',
]


@pytest.mark.parametrize("content", STRANGERS)
def test_a_strangers_table_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "config.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"config\.csv, which is no table of run_expid\.py"):
        check_result_table(path)
    with pytest.raises(InputError, match="move it"):
        append_result({"expid": "a"}, {}, path)
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["config.csv"]


def test_a_folder_of_that_name_is_refused(tmp_path):
    (tmp_path / "config.csv").mkdir()
    with pytest.raises(InputError, match="move it"):
        check_result_table(tmp_path / "config.csv")


def test_a_table_of_ours_is_taken_and_strangers_beside_stay(tmp_path):
    beside = tmp_path / "other.csv"
    beside.write_text("a,b\n")
    path = tmp_path / "config.csv"
    check_result_table(path)
    for seed in (1, 2):
        append_result({"expid": "a", "seed": seed}, {"x": None, "y": "null"}, path)
        check_result_table(path)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert rows["seed"].tolist() == ["1", "2"]
    assert rows["x"].tolist() == rows["y"].tolist() == ["null", "null"]  # a text stays one
    assert beside.read_text() == "a,b\n"


def test_new_columns_widen_the_table_of_results(tmp_path):
    table = tmp_path / "results.csv"
    append_result({"expid": "a", "test_AUC": 0.5}, {"seed": 1}, table)
    append_result({"expid": "b", "test_AUC": 0.6}, {"seed": 2, "new": [1, 2]}, table)
    rows = pd.read_csv(table)
    assert rows["expid"].tolist() == ["a", "b"]
    assert rows["seed"].tolist() == [1, 2]
    assert rows["new"].tolist()[1] == "[1, 2]"


def test_old_rows_stay_as_they_are(tmp_path):
    table = tmp_path / "results.csv"
    table.write_text('time,expid,x,y\n1,a,007,"b,c"\n2,NA,1e3\n', encoding="utf-8-sig")
    append_result({"expid": "é"}, {"z": "w" * 200_000, "y": float("nan")}, table)
    header, *old, new = table.read_text(encoding="utf-8").splitlines()
    assert header == "time,expid,x,y,z"
    assert old == ['1,a,007,"b,c",', "2,NA,1e3,,"]
    assert new.split(",")[1:] == ["é", "", "", "w" * 200_000]


def test_a_folder_that_cannot_be_written_is_said_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(InputError, match="cannot be written: start the command in another folder"):
        check_result_table(tmp_path / "config.csv")


def test_a_table_of_ours_that_somebody_broke_is_one_sentence(tmp_path):
    path = tmp_path / "config.csv"
    path.write_text("time,expid\n1,2\n1,2,3,4\n")
    with pytest.raises(InputError, match="cannot be read as a table"):
        append_result({"expid": "a"}, {}, path)
    assert path.read_text().endswith("1,2,3,4\n")


def test_what_no_table_can_hold_as_it_is_goes_in_as_text(tmp_path):
    path = tmp_path / "config.csv"
    values = {"path": "caf\udce9.csv", "object": {"a": {1, 2}}, "text": 'a,"b"\nc'}
    append_result({"expid": "a"}, values, path)
    row = pd.read_csv(path).iloc[0]
    assert row["text"] == 'a,"b"\nc'
    assert row["path"] == "caf\\udce9.csv"
