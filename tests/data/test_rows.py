"""Rows: every column comes out as it went in, whatever stands beside it."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fuxictr_miss.data.rows import open_rows
from fuxictr_miss.errors import InputError

ROWS = 7
DRAW = np.random.default_rng(1)
COLUMNS = {
    "byte": DRAW.integers(-128, 128, ROWS).astype(np.int8),
    "long": DRAW.integers(-(2**62), 2**62, ROWS),
    "half": DRAW.normal(size=ROWS).astype(np.float32),
    "double": DRAW.normal(size=ROWS),
    "ids": DRAW.integers(0, 2**31, (ROWS, 3)).astype(np.int32),
    "vector": DRAW.normal(size=(ROWS, 5)),
}


def written(folder: Path, columns: dict[str, np.ndarray]) -> list[str]:
    arrays = {
        name: pa.array(list(each)) if each.ndim == 2 else pa.array(each)
        for name, each in columns.items()
    }
    files = [str(folder / "a.parquet"), str(folder / "b.parquet")]
    table = pa.table(arrays)
    for file, part in zip(files, (table[:4], table[4:]), strict=True):
        pq.write_table(part, file)
    return files


@pytest.mark.parametrize("budget_gb", [None, 0])
@pytest.mark.parametrize("names", [list(each) for each in permutations(COLUMNS, 3)], ids="-".join)
def test_columns_of_any_types_in_any_order_come_out_as_they_went_in(tmp_path, names, budget_gb):
    rows = open_rows(written(tmp_path, COLUMNS), names, budget_gb)
    assert rows.mapped == (budget_gb == 0)
    chosen = torch.tensor([6, 0, 3])
    for words, kept in ((rows.words, slice(None)), (rows.words[chosen], chosen.numpy())):
        columns = rows.layout.columns(words)
        assert list(columns) == names
        for name in names:
            assert columns[name].numpy().dtype == COLUMNS[name].dtype
            assert np.array_equal(columns[name].numpy(), COLUMNS[name][kept])


def test_columns_are_views_of_the_rows(tmp_path):
    rows = open_rows(written(tmp_path, COLUMNS), list(COLUMNS))
    rows.layout.columns(rows.words)["ids"].zero_()
    columns = rows.layout.columns(rows.words)
    assert not columns.pop("ids").any()
    assert all(np.array_equal(each.numpy(), COLUMNS[name]) for name, each in columns.items())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["a"] * ROWS, "not numbers"),
        ([[1]] * 3 + [[1, 2]] + [[1]] * 3, "differ in length"),
    ],
)
def test_a_column_that_cannot_be_a_tensor_is_named(tmp_path, values, words):
    file = str(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"bad": values}), file)
    with pytest.raises(InputError, match=f"'bad'.*{words}"):
        open_rows([file], ["bad"])


def test_a_split_without_rows_has_columns_without_rows(tmp_path):
    table = pa.table({"id": pa.array([], pa.int32()), "label": pa.array([], pa.float32())})
    file = str(tmp_path / "empty.parquet")
    pq.write_table(table, file)
    rows = open_rows([file], ["id", "label"])
    assert {name: tuple(c.shape) for name, c in rows.layout.columns(rows.words).items()} == {
        "id": (0,), "label": (0,)
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["text", "arrow", "link", "folder"])
def test_an_arrow_file_of_somebody_else_is_refused_and_stays(tmp_path, kind):
    files = written(tmp_path, COLUMNS)
    other = tmp_path / "a.arrow"
    if kind == "text":
        other.write_text("mine")
    elif kind == "arrow":
        table = pa.table({"row": [1]}).replace_schema_metadata({b"made": b"by somebody"})
        with pa.OSFile(str(other), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
            out.write_table(table)
    elif kind == "link":
        (tmp_path / "far").write_text("mine")
        other.symlink_to(tmp_path / "far")
    else:
        other.mkdir()
    before = sorted(tmp_path.iterdir()), other.read_bytes() if other.is_file() else None
    with pytest.raises(InputError, match=r"a\.arrow was not written by.*memory_budget_gb"):
        open_rows(files, ["long"], 0)
    assert before == (sorted(tmp_path.iterdir()), other.read_bytes() if other.is_file() else None)
    assert not open_rows(files, ["long"], 1).mapped
