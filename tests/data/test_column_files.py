"""Encoded columns in npz and h5 come out as they went in, as those in parquet do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuxictr_miss.data import column_files
from fuxictr_miss.data.tensors import open_columns
from fuxictr_miss.errors import InputError

DRAW = np.random.default_rng(2)
ROWS = 9
COLUMNS = {
    "byte": DRAW.integers(0, 256, ROWS).astype(np.uint8),
    "long": DRAW.integers(-(2**62), 2**62, ROWS),
    "double": DRAW.normal(size=ROWS),
    "ids": DRAW.integers(0, 2**31, (ROWS, 3)).astype(np.int32),
    "vector": DRAW.normal(size=(ROWS, 5)).astype(np.float32),
}
ENDINGS = pytest.mark.parametrize("ending", ["npz", "h5"])
HOMES = pytest.mark.parametrize("budget_gb", [None, 0], ids=["in memory", "mapped"])


def written(folder: Path, ending: str, *parts: dict[str, Any]) -> list[str]:
    files = [str(folder / f"{number}.{ending}") for number in range(len(parts))]
    for path, part in zip(files, parts, strict=True):
        if ending == "npz":
            np.savez_compressed(path, **part)
        elif ending == "h5":
            with h5py.File(path, "w") as file:
                for name, values in part.items():
                    file.create_dataset(name, data=values)
        else:
            lists = {n: list(v) if v.ndim == 2 else v for n, v in part.items()}
            pq.write_table(pa.table(lists), path)
    return files


@ENDINGS
@HOMES
def test_columns_come_out_as_they_went_in(tmp_path, monkeypatch, ending, budget_gb):
    monkeypatch.setattr(column_files, "_ROWS_AT_ONCE", 2)
    cuts = [slice(0, 4), slice(4, 4), slice(4, ROWS)]
    parts = [{name: values[cut] for name, values in COLUMNS.items()} for cut in cuts]
    columns, mapped = open_columns(written(tmp_path, ending, *parts), list(COLUMNS), budget_gb)
    assert mapped == (budget_gb == 0)
    for name, values in COLUMNS.items():
        assert columns[name].numpy().dtype == values.dtype
        assert np.array_equal(columns[name].numpy(), values)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_format_gives_the_same_tensors(tmp_path_factory, data):
    rows, length = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    dtypes = [np.int8, np.int16, np.int32, np.int64, np.uint16, np.uint32, np.float32, np.float64]
    part = {
        f"c{place}": np.asarray(
            data.draw(st.lists(st.integers(0, 100), min_size=rows * width, max_size=rows * width)),
            dtype,
        ).reshape((rows, width) if width > 1 or wide else (rows,))
        for place, dtype in enumerate(data.draw(st.lists(st.sampled_from(dtypes), min_size=1)))
        for wide in [data.draw(st.booleans())]
        for width in [length if wide else 1]
    }
    folder = tmp_path_factory.mktemp("formats")
    each = [
        open_columns(written(folder, ending, part), list(part))[0]
        for ending in ("parquet", "npz", "h5")
    ]
    for name, values in part.items():
        assert all(columns[name].equal(each[0][name]) for columns in each)
        assert each[0][name].tolist() == values.tolist()


@ENDINGS
@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([{"a": np.array(["x"])}], "must hold numbers"),
        ([{"a": np.zeros((2, 2, 2))}], "must hold numbers"),
        ([{"a": np.array([1 + 2j])}], "must hold numbers"),
        ([{"b": np.zeros(2)}], "no column 'a'"),
        ([{"a": np.zeros(0)}], "holds no rows"),
        ([{"a": np.zeros(2), "b": np.zeros(3)}], "2 rows, another one 3"),
        ([{"a": np.zeros((2, 2), int)}, {"a": np.zeros((2, 3), int)}], "cannot be read as int64"),
        ([{"a": np.array([1])}, {"a": np.array([1.5])}], "cannot be read as int64"),
        ([{"a": np.array([1], np.int8)}, {"a": np.array([300])}], "cannot be read as int8"),
    ],
)
def test_a_column_that_is_no_tensor_is_one_sentence(tmp_path, ending, parts, words):
    if ending == "h5":
        parts = [{n: v.astype("S1") if v.dtype.kind == "U" else v for n, v in part.items()}
                 for part in parts]  # fmt: skip
    with pytest.raises(InputError, match=words) as error:
        open_columns(written(tmp_path, ending, *parts), ["a"])
    assert "\n" not in str(error.value)


@ENDINGS
@pytest.mark.parametrize("content", [b"", b"no such file", b"PK\x03\x04 cut off"])
def test_a_file_of_another_kind_is_one_sentence_with_its_name(tmp_path, ending, content):
    path = tmp_path / f"train.{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"train\.{ending} cannot be read as {ending}"):
        open_columns([str(path)], ["a"])


def test_an_npz_that_would_run_code_is_refused(tmp_path):
    np.savez(tmp_path / "train.npz", a=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(InputError, match="must hold numbers"):
        open_columns([str(tmp_path / "train.npz")], ["a"])
