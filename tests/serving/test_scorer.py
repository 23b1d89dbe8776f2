"""Raw rows in any form score alike, with three packages, and bad ones are named."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from serving.conftest import ROWS, VOCABULARY, expected, write_artefact

from fuxictr_miss.errors import InputError
from fuxictr_miss.serving import Scorer
from fuxictr_miss.serving.vocabulary import digests_of

ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        known = ("fuxictr_miss", "numpy", "polars", "_polars_runtime", "onnxruntime", "_sysconfig")
        if not (name.startswith(known) or name.split(".")[0] in sys.stdlib_module_names):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
import json
from fuxictr_miss.serving import Scorer

print(Scorer(sys.argv[1]).score(json.loads(sys.argv[2])).tolist())
"""


def test_scoring_needs_numpy_polars_and_onnxruntime_alone(artefact):
    command = [sys.executable, "-c", ALONE, str(artefact), json.dumps(ROWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == Scorer(artefact).score(ROWS).tolist()


def test_a_score_is_the_models_output_of_what_is_encoded(artefact):
    scorer = Scorer(artefact)
    inputs = scorer.encode(ROWS)
    assert inputs["item_history"].tolist() == [[1, 2, 0], [1, 2, 3], [0, 0, 0]]
    assert inputs["cate_history"].tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 2]]
    assert inputs["item_id"].tolist() == [1, 4, 4]
    assert inputs["price"].tolist() == [0, 1, -2.5]
    scores = scorer.score(ROWS)
    assert scores.shape == (3,)
    np.testing.assert_allclose(scores, expected(inputs), rtol=1e-6)


COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
LISTS = [
    {**row, "item_history": (row["item_history"] or None) and row["item_history"].split("^")}
    for row in ROWS
]


@pytest.mark.parametrize(
    "rows",
    [
        pl.DataFrame(ROWS),
        pl.DataFrame({**COLUMNS, "label": [1, 0, 1]}),
        pl.DataFrame(ROWS, schema_overrides={"item_id": pl.Categorical, "price": pl.Float32}),
        COLUMNS,
        {**COLUMNS, "price": np.array([10, 14, np.nan])},
        pd.DataFrame(ROWS),
        LISTS,
        pl.DataFrame(LISTS),
        [{**row, "other": number} for number, row in enumerate(ROWS)],
        tuple(ROWS),
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_rows_in_any_form_score_alike(artefact, rows):
    scorer = Scorer(artefact)
    assert scorer.score(rows).tolist() == Scorer(artefact).score(ROWS).tolist()
    assert scorer.unknown == {"item_id": 1, "item_history": 0, "cate_history": 0}


@pytest.mark.parametrize(
    "histories",
    [
        [["i1", "i2"], ["i9", "i1", "i2", "i3"], None],
        [["i1", "i2"], ["i9", "i1", "i2", "i3"], []],
    ],
)
def test_histories_that_pandas_reads_from_parquet_are_lists(artefact, tmp_path, histories):
    """It holds them as arrays of text."""
    frame = pl.DataFrame(ROWS).with_columns(pl.Series("item_history", histories))
    frame.write_parquet(tmp_path / "rows.parquet")
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert isinstance(rows["item_history"][0], np.ndarray)
    wanted = Scorer(artefact).score(ROWS).tolist()
    assert Scorer(artefact).score(rows).tolist() == wanted
    assert Scorer(artefact).score(rows.to_dict("records")).tolist() == wanted


NUMBERED = {**VOCABULARY["vocabularies"], "item_id": {"oov": 4, "ids": {"7": 1, "9": 2, "0.1": 3}}}


@pytest.mark.parametrize(
    ("history", "ids"),
    [
        ([np.int64(9), np.int64(7)], [2, 1, 0]),
        ([9, np.int64(7)], [2, 1, 0]),
        ((np.str_("9"), "7"), [2, 1, 0]),
        (np.array([9, 7], np.uint32), [2, 1, 0]),
        (np.array([9, "7"], object).astype(str), [2, 1, 0]),
        (np.array([0.1, 7], np.float32), [3, 1, 0]),
        (np.array([9.0, np.nan, 7.0]), [2, 0, 1]),
        (["9", np.nan, "7"], [2, 0, 1]),
        ([9, pd.NA, 7], [2, 0, 1]),
        (np.array([]), [0, 0, 0]),
        (pd.NaT, [0, 0, 0]),
        (pd.NA, [0, 0, 0]),
        (np.nan, [0, 0, 0]),
    ],
    ids=repr,
)
def test_values_of_numpy_and_pandas_are_read_as_pythons_own(tmp_path, history, ids):
    scorer = Scorer(write_artefact(tmp_path / "a", vocabularies=NUMBERED))
    row = {**ROWS[0], "item_id": np.int64(7), "item_history": history, "price": np.float32(14)}
    inputs = scorer.encode([row, {**row, "item_id": pd.NA}, {**row, "item_id": pd.NaT}])
    assert inputs["item_history"].tolist() == [ids] * 3
    assert inputs["item_id"].tolist() == [1, 4, 4]
    assert inputs["price"].tolist() == [1, 1, 1]
    assert not scorer.unknown["item_history"]


def test_moments_of_numpy_have_the_text_of_training(tmp_path):
    ids = {"2020-01-01": 1, "2020-01-02 00:00:01.5": 2}
    vocabularies = {**VOCABULARY["vocabularies"], "item_id": {"oov": 4, "ids": ids}}
    scorer = Scorer(write_artefact(tmp_path / "a", vocabularies=vocabularies))
    past = np.array(["2020-01-01", "2020-01-02T00:00:01.5"], "datetime64[ns]")
    for history in (past, list(past), [pd.Timestamp(each) for each in past], pl.Series(past)):
        row = {**ROWS[0], "item_id": pd.Timestamp("2020-01-01"), "item_history": history}
        inputs = scorer.encode([row, {**row, "item_id": pd.NaT}])
        assert inputs["item_history"].tolist() == [[1, 2, 0]] * 2
        assert inputs["item_id"].tolist() == [1, 4]


def test_dates_and_decimals_in_lists_have_the_text_of_training(tmp_path):
    ids = {"2020-01-01": 1, "7.5": 2, "9": 3}
    vocabularies = {**VOCABULARY["vocabularies"], "item_id": {"oov": 4, "ids": ids}}
    scorer = Scorer(write_artefact(tmp_path / "a", vocabularies=vocabularies))
    for history, places in (
        ([date(2020, 1, 1)], [1, 0, 0]),
        (np.array([Decimal("7.50"), Decimal("9.00")], object), [2, 3, 0]),
    ):
        rows = [{**ROWS[0], "item_history": each} for each in ([], None, history)]
        assert scorer.encode(rows)["item_history"].tolist() == [[0] * 3, [0] * 3, places]


def test_only_the_newest_behaviors_are_read_and_count_as_unknown(artefact):
    scorer = Scorer(artefact)
    row = {**ROWS[0], "item_history": "^".join(["new"] * 7 + ["i3", "new", "i2"])}
    assert scorer.score([row]) == scorer.score([{**row, "item_history": "i3^new^i2"}])
    assert scorer.unknown["item_history"] == 2


def test_neighbours_keep_their_own_histories(artefact):
    """Rows with one history side by side are looked up once."""
    scorer = Scorer(artefact)
    histories = ["i1^i2", "i1^i2", "i2^i1", "", None, "i9^i1", "i9^i1", "i8^i1", "i1^i2"]
    rows = [{**ROWS[0], "item_history": each} for each in histories]
    together = scorer.score(rows)
    assert scorer.unknown["item_history"] == 3
    assert together.tolist() == pytest.approx([scorer.score([row])[0] for row in rows], rel=1e-6)


def test_many_rows_score_as_each_alone(artefact):
    scorer = Scorer(artefact)
    many = pl.concat([pl.DataFrame(ROWS)] * 3000)
    np.testing.assert_allclose(scorer.score(many), np.tile(scorer.score(ROWS), 3000), rtol=1e-6)
    assert scorer.score(many[:0]).shape == (0,)


def test_ids_that_are_numbers_are_known_by_their_text(tmp_path):
    vocabularies = {**VOCABULARY["vocabularies"], "item_id": {"oov": 4, "ids": {"7": 1, "9": 2}}}
    scorer = Scorer(write_artefact(tmp_path / "a", vocabularies=vocabularies))
    for item, history in ((7, [9, 7]), (7.0, [9.0, 7.0]), ("7", "9^7")):
        inputs = scorer.encode([{**ROWS[0], "item_id": item, "item_history": history}])
        assert inputs["item_id"].tolist() == [1]
        assert inputs["item_history"].tolist() == [[2, 1, 0]]


def test_several_tasks_have_a_score_each(tmp_path):
    scorer = Scorer(write_artefact(tmp_path / "a", outputs=["click_pred", "buy_pred"]))
    scores = scorer.score(ROWS)
    assert list(scores) == ["click_pred", "buy_pred"]
    assert scores["buy_pred"].shape == (3,)


def test_an_input_that_the_model_does_not_read_need_not_be_there(tmp_path):
    folder = write_artefact(tmp_path / "a")
    more = {**VOCABULARY["inputs"][3], "name": "unused"}
    vocabulary(folder, inputs=[more, *VOCABULARY["inputs"]])
    assert Scorer(folder).score(ROWS).shape == (3,)


# ---------------------------------------------------------------------- what is refused


def changed(row: int, **values: Any) -> list[dict[str, Any]]:
    return [{**each, **values} if place == row else each for place, each in enumerate(ROWS)]


BAD = [
    (changed(1, price="cheap"), r"row 2, column 'price': the value is 'cheap'; .*row 1 it is 10.0"),
    ([{**row, "price": "x1"} for row in ROWS], r"row 1, column 'price'.*'x1'; .* needs a number"),
    (changed(2, price=1e39), r"row 3, column 'price': the value is 1e\+39; .* finite"),
    (changed(1, item_id=3), r"row 2, column 'item_id': the value is 3; in row 1 it is 'i1'"),
    (changed(1, item_history=["i1", 2]), r"row 2, column 'item_history'.*mixes types"),
    ([{**row, "item_history": ["i1", 2]} for row in ROWS], r"row 1, .*'item_history'.*mixes types"),
    (changed(1, item_history=np.array([["i1"]])), r"row 2, column 'item_history'.*mixes types"),
    (changed(1, item_history=np.array(["i1", 2], object)), r"row 2, .*'item_history'.*mixes types"),
    (changed(0, item_history="^^i1"), r"row 1, .*item_history'.*'\^\^i1'; .*begins.*leave padding"),
    (changed(0, item_history="i1^"), r"row 1, column 'item_history'.*begins and ends with an id, "),
    (changed(2, item_history="__PAD__^i1"), r"row 3, .*'__PAD__\^i1'; .*no id is __PAD__"),
    (changed(1, item_id="__OOV__"), r"row 2, column 'item_id': the value is '__OOV__'"),
    (changed(1, item_id="\ud800"), r"row 2, column 'item_id'.*no text"),
    ([{**row, "item_id": -(2**70)} for row in ROWS], r"row 1, column 'item_id'.* 64 bits"),
    ([{**row, "item_id": float("inf")} for row in ROWS], r"row 1, column 'item_id'.*finite"),
    ([{**row, "item_history": ["a^b"]} for row in ROWS], r"row 1, .*holds the splitter"),
    (pl.DataFrame([{**row, "item_history": ["a^b"]} for row in ROWS]).with_columns(
        pl.col("item_history").cast(pl.List(pl.Categorical))), r"row 1, .*holds the splitter"),
    ([{**row, "item_id": {"a": 1}} for row in ROWS], r"column 'item_id' is Struct.*convert"),
    ([{**row, "price": [1.0]} for row in ROWS], r"column 'price' is List.*reads numbers: convert"),
    ([{k: row[k] for k in row if k != "price"} for row in ROWS], r"column 'price' is missing"),
    ([{**row, "item_id": each} for row, each in zip(ROWS, (1, 2**63, -1), strict=True)],
     r"row 3, column 'item_id': the value is -1; in row 1 it is 1: give one type"),
    ([ROWS[0], {**ROWS[1], "price": 1, "itemid": 2, "item_id": 1}, {"itemid": 3}],
     r"row 3, column 'item_id' is missing\. Did you mean 'itemid'\? There are: itemid\."),
    (ROWS[0], r"'item_id' is 'i\d': give a single row as a list"),
    (pd.concat([pd.DataFrame(ROWS), pd.DataFrame(ROWS)[["price"]]], axis=1),
     r"Two columns are called 'price'"),
    ([ROWS[0], 3], r"row 2 must be a dict of columns; got 3\."),
    ("abc", r"Rows must be .*; got a str\."),
    ({**COLUMNS, "price": [1.0]}, r"not of one length: item_id 3, .*price 1\."),
    (pl.DataFrame(ROWS).rename({"item_id": "Item_ID"}), r"'item_id' is missing.*mean 'Item_ID'"),
]  # fmt: skip


def test_a_score_that_is_no_number_is_refused_with_its_row(artefact, monkeypatch):
    found = {"y_pred": np.array([0.5, np.nan, 0.1])}
    monkeypatch.setattr(Scorer, "run", lambda self, inputs: found)
    with pytest.raises(InputError, match="row 2: the model's y_pred is nan, no probability"):
        Scorer(artefact).score(ROWS)


@pytest.mark.parametrize(("rows", "match"), BAD)
def test_bad_rows_are_named_in_one_sentence(artefact, rows, match):
    scorer = Scorer(artefact)
    with pytest.raises(InputError, match=match) as caught:
        scorer.score(rows)
    assert "\n" not in str(caught.value)
    assert not any(scorer.unknown.values())


def without(folder: Path, name: str) -> None:
    (folder / name).unlink()


def vocabulary(folder: Path, **changes: Any) -> None:
    content = {**VOCABULARY, "files": digests_of(folder, ["model.onnx"]), **changes}
    (folder / "vocab.json").write_text(json.dumps(content))


INPUTS, TABLES = VOCABULARY["inputs"], VOCABULARY["vocabularies"]
DAMAGES = [
    (lambda at: without(at, "vocab.json"), r"vocab\.json cannot be read .*fuxictr-miss export"),
    (lambda at: without(at, "model.onnx"), r"model\.onnx cannot be read .*export the model again"),
    (lambda at: (at / "model.onnx").write_bytes(b"no model"), r"model\.onnx is not the file that"),
    (lambda at: vocabulary(at, files={}), r"model\.onnx is not the file that .*copy the whole"),
    (lambda at: vocabulary(at, files=None), r"model\.onnx is not the file that"),
    (lambda at: (at / "vocab.json").write_bytes(b"\xff"), r"vocab\.json cannot be read"),
    (lambda at: (at / "vocab.json").write_text("[]"), r"vocab\.json is of format None"),
    (lambda at: vocabulary(at, format=2), r"of format 2, and this version reads format 1"),
    (lambda at: vocabulary(at, inputs=INPUTS[1:]), r"reads 'item_id', which vocab\.json does not"),
    (lambda at: vocabulary(at, inputs=INPUTS[1:] * 2), r"reads 'item_id', which vocab"),
    (lambda at: vocabulary(at, vocabularies={}), r"vocab\.json is damaged .*item_id.*again"),
    (lambda at: vocabulary(at, inputs=None), r"vocab\.json is damaged"),
    (
        lambda at: vocabulary(at, outputs=["click_pred"]),
        r"has the outputs y_pred, where .*click_pr",
    ),
    (
        lambda at: vocabulary(at, inputs=[INPUTS[0], {**INPUTS[1], "max_len": 5}, *INPUTS[2:]]),
        r"reads 'item_history' as tensor\(int64\) of \['batch', 3\]",
    ),
]


@pytest.mark.parametrize(("damage", "match"), DAMAGES)
def test_a_damaged_or_foreign_folder_is_refused_in_one_sentence(tmp_path, damage, match):
    folder = write_artefact(tmp_path / "a")
    damage(folder)
    with pytest.raises(InputError, match=match) as caught:
        Scorer(folder)
    assert "\n" not in str(caught.value)
