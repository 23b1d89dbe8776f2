"""The results file."""

from __future__ import annotations

import pytest

from fuxictr_miss import files
from fuxictr_miss.errors import InputError
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.tables import Variant
from paper.conftest import an_experiment, row

ONE = Variant("", "DIN_MISS", {"ssl_weight": 5.0})


def test_a_row_is_read_as_it_was_written(tmp_path):
    written = row(
        an_experiment("config", ONE, "demo"),
        test_AUC=0.1 + 0.2,  # 0.30000000000000004: no digit is lost
        epochs=3,
        reason="a comma, and 'quotes'",
        curve={"training step": [10, 20], "similarity": [0.5, 0.25]},
    )
    Results(tmp_path).add(written)
    assert Results(tmp_path).rows == {written["key"]: written}


def test_a_later_row_of_a_key_replaces_the_earlier(tmp_path):
    experiment = an_experiment("config", ONE, "demo")
    results = Results(tmp_path)
    results.add(row(experiment, status="failed", reason="no luck"))
    assert results.finished(experiment.key) is None
    results.add(row(experiment, test_AUC=0.5))
    assert Results(tmp_path).finished(experiment.key)["test_AUC"] == 0.5
    assert len(Results(tmp_path).rows) == 1


def test_two_writers_keep_each_others_rows(tmp_path):
    first, second = Results(tmp_path), Results(tmp_path)
    first.add(row(an_experiment("config", ONE, "demo", 1)))
    second.add(row(an_experiment("config", ONE, "demo", 2)))
    assert {each["seed"] for each in Results(tmp_path).rows.values()} == {1, 2}


def test_the_file_is_whole_if_writing_is_interrupted(tmp_path, monkeypatch):
    results = Results(tmp_path)
    results.add(row(an_experiment("config", ONE, "demo", 1)))
    before = results.path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.add(row(an_experiment("config", ONE, "demo", 2)))
    assert results.path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"user,item\nu,i\n", b"key,dataset,model\na,b,c\n", b"\xff\xfe", b"caf\xe9,b\n",
     b"key,dataset,model,purpose,seed,status\na,b,c,final,one,ok\n",
     b"key,dataset,model,purpose,seed,status\na,b,c,final,1,\n",
     b"key,dataset,model,purpose,seed,status\na,b,c,final,1,ok,7,8\n,,,,,,9\n",
     b"key,dataset,model,purpose,seed,status,params\na,b,c,final,1,ok,{\n"],
)  # fmt: skip
def test_a_strangers_or_broken_file_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "experiments.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"experiments\.csv is not a results file") as error:
        Results(tmp_path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_the_order_of_rows_does_not_depend_on_the_order_of_runs(tmp_path):
    rows = [row(an_experiment("config", ONE, "demo", seed)) for seed in (1, 2, 3)]
    for name, order in (("a", rows), ("b", rows[::-1])):
        for each in order:
            Results(tmp_path / name).add(each)
    assert Results(tmp_path / "a").path.read_bytes() == Results(tmp_path / "b").path.read_bytes()
