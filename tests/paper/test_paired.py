"""The paired t-tests of a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.paper.compare import p_value
from fuxictr_miss.paper.paired import paired_tests
from fuxictr_miss.paper.report import check_folder, write_report
from fuxictr_miss.paper.tables import REPORTS
from paper.test_report import AUC, fill, source_of


def test_each_of_our_rows_is_tested_against_every_other_row(tmp_path: Path):
    source = source_of(tmp_path)
    fill(source, "table_3")
    write_report("table_3", source, "")
    tests = pd.read_csv(tmp_path / "table_3_tests.csv")
    rows = [variant.name for variant in REPORTS["table_3"].blocks[0]]
    ours = [name for name in rows if "-MISS" in name]
    auc = tests[tests.metric == "AUC"].set_index(["row", "against"])
    assert set(auc.index) == {(a, b) for a in ours for b in rows if a != b}
    against = auc.loc[("DIN-MISS (recommended)", "IPNN-PPMI")]
    assert (against.seeds, against.difference) == (3, pytest.approx(0.82 - 0.72))
    miss, control = (pd.Series(dict(enumerate(AUC[name]))) for name in ("DIN_MISS", "PNN_PPMI"))
    assert against.p == pytest.approx(p_value(miss, control), rel=0.05)  # two digits are written
    logloss = tests[tests.metric == "Logloss"].set_index(["row", "against"])
    assert logloss.loc[("DIN-MISS (paper)", "DIN")].difference == pytest.approx(-0.13)  # lower
    assert ("DIN-MISS (paper)", "PPMI-SVD") not in logloss.index  # it has no probabilities


def test_two_seeds_are_no_test(tmp_path: Path):
    source = source_of(tmp_path, seeds=2)
    fill(source, "table_4")
    assert paired_tests(REPORTS["table_4"], source).empty


def test_a_foreign_file_of_tests_is_not_overwritten(tmp_path: Path):
    (tmp_path / "table_4_tests.csv").write_text("mine\n")
    with pytest.raises(InputError, match=r"table_4_tests\.csv was not written by"):
        check_folder(tmp_path, ["table_4"])
