"""Tensors of a split: every column comes out as it went in, or is refused in one sentence."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuxictr_miss.data.tensors import open_columns
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
HOMES = pytest.mark.parametrize("budget_gb", [None, 0], ids=["in memory", "mapped"])


def arrow(values: Any) -> pa.Array:
    return pa.array(list(values)) if getattr(values, "ndim", 1) == 2 else pa.array(values)


def written(folder: Path, *parts: dict[str, Any]) -> list[str]:
    files = [str(folder / f"{number}.parquet") for number in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        pq.write_table(pa.table({name: arrow(values) for name, values in part.items()}), file)
    return files


def two_files(folder: Path) -> list[str]:
    cuts = [slice(0, 4), slice(4, ROWS)]
    return written(folder, *({name: each[cut] for name, each in COLUMNS.items()} for cut in cuts))


@HOMES
@pytest.mark.parametrize("names", [list(each) for each in permutations(COLUMNS, 3)], ids="-".join)
def test_columns_of_any_types_in_any_order_come_out_as_they_went_in(tmp_path, names, budget_gb):
    columns, mapped = open_columns(two_files(tmp_path), names, budget_gb)
    assert mapped == (budget_gb == 0)
    assert list(columns) == names
    for name in names:
        assert columns[name].numpy().dtype == COLUMNS[name].dtype
        assert np.array_equal(columns[name].numpy(), COLUMNS[name])


@HOMES
def test_parts_without_rows_are_no_obstacle(tmp_path, budget_gb):
    nothing = pa.array([], pa.list_(pa.int64()))
    files = written(tmp_path, {"ids": nothing}, {"ids": [[1, 2]]}, {"ids": nothing})
    columns, _ = open_columns(files, ["ids"], budget_gb)
    assert columns["ids"].tolist() == [[1, 2]]


@HOMES
def test_lists_of_any_kind_that_parquet_has_are_sequences(tmp_path, budget_gb):
    kinds = [pa.list_(pa.int32()), pa.large_list(pa.int32()), pa.list_(pa.int32(), 2)]
    files = written(tmp_path, *({"ids": pa.array([[k, 9]], kind)} for k, kind in enumerate(kinds)))
    columns, _ = open_columns(files, ["ids"], budget_gb)
    assert columns["ids"].tolist() == [[0, 9], [1, 9], [2, 9]]


@HOMES
@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([["a"]], "must hold numbers"),
        ([[["a"]]], "must hold numbers"),
        ([[{"of": 1}]], "must hold numbers"),
        ([[[], []]], "must hold numbers"),
        ([[[[1]]]], "must hold numbers"),
        ([[[1], [1, 2], [1]]], "cannot be read as"),
        ([[[1, 2], [3], [4, 5, 6]]], "cannot be read as"),  # 6 numbers, 3 rows
        ([[[1]], [[1, 2]]], "cannot be read as"),
        ([[1], [1.5]], "cannot be read as"),
        ([[1], ["a"]], "cannot be read as"),
        ([pa.array([1], pa.int32()), [2**40]], "cannot be read as"),
        ([[1, None]], "has missing values"),
        ([[1.0, None]], "has missing values"),
        ([[[1, 2], [1, None]]], "has missing values"),
        ([[[1, 2], None]], "has missing values"),
    ],
)
def test_a_column_that_cannot_be_a_tensor_is_named(tmp_path, parts, words, budget_gb):
    files = written(tmp_path, *({"good": [1] * len(part), "bad": part} for part in parts))
    with pytest.raises(InputError, match=f"'bad' {words}") as error:
        open_columns(files, ["good", "bad"], budget_gb)
    assert "\n" not in str(error.value)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".parquet", ".lock"}


def test_a_column_that_only_some_parts_have_is_named(tmp_path):
    files = written(tmp_path, {"id": [1], "bad": [1]}, {"id": [1]})
    with pytest.raises(InputError, match=r"1\.parquet has no column 'bad'"):
        open_columns(files, ["id", "bad"])


@pytest.mark.parametrize("place", [0, 1])
def test_a_file_that_is_no_parquet_is_named(tmp_path, place):
    files = two_files(tmp_path)
    Path(files[place]).write_text("no parquet")
    with pytest.raises(InputError, match=rf"{place}\.parquet cannot be read"):
        open_columns(files, ["long"])


@HOMES
@pytest.mark.parametrize("place", [0, 1])
def test_a_file_with_damaged_pages_is_named(tmp_path, place, budget_gb):
    files = two_files(tmp_path)
    damaged = Path(files[place])
    with pq.ParquetFile(damaged) as parquet:
        column = parquet.metadata.row_group(0).column(list(COLUMNS).index("long"))
    content = bytearray(damaged.read_bytes())
    start = min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset)
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=rf"{place}\.parquet.* cannot be read") as error:
        open_columns(files, ["long"], budget_gb)
    assert "\n" not in str(error.value)


def test_a_split_without_rows_is_refused(tmp_path):
    files = written(tmp_path, {"id": pa.array([], pa.int32())})
    with pytest.raises(InputError, match=r"0\.parquet holds no rows"):
        open_columns(files, ["id"])


@pytest.mark.parametrize("kind", ["text", "empty", "link", "folder"])
def test_a_file_of_somebody_else_in_the_place_of_the_mapped_one_is_refused_and_stays(
    tmp_path, kind
):
    files = two_files(tmp_path)
    other = tmp_path / "0.columns"
    if kind == "text":
        other.write_text("mine")
    elif kind == "empty":
        other.touch()
    elif kind == "link":
        open_columns(files, ["long"], 0)
        other.rename(tmp_path / "far")
        other.symlink_to(tmp_path / "far")
    else:
        other.mkdir()
    before = sorted(tmp_path.iterdir()), other.read_bytes() if other.is_file() else None
    with pytest.raises(InputError, match=r"0\.columns was not written by.*memory_budget_gb"):
        open_columns(files, ["long"], 0)
    assert before == (sorted(tmp_path.iterdir()), other.read_bytes() if other.is_file() else None)
    assert not open_columns(files, ["long"], 1)[1]


def test_a_mapped_file_of_other_columns_is_made_anew_and_open_tensors_keep_their_values(tmp_path):
    files = two_files(tmp_path)
    first, _ = open_columns(files, ["ids", "half"], 0)
    second, _ = open_columns(files, ["half", "vector"], 0)
    for columns in (first, second):
        assert all(np.array_equal(each.numpy(), COLUMNS[name]) for name, each in columns.items())
