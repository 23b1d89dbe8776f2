"""Raw tables: a value that cannot be used is one sentence, before anything is written."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuxictr_miss.data import build_dataset
from fuxictr_miss.data.columns import feature_columns, label_columns
from fuxictr_miss.data.table import check, open_table
from fuxictr_miss.errors import InputError

USERS = ["u1", "u2", "u3", "u4"]
ITEMS = ["i1", "i2", "i1", "i2"]
HISTORIES = ["i1^i2", "i2", "i1", ""]
ID = {"active": True, "dtype": "str", "type": "categorical"}
SEQUENCE = {"active": True, "dtype": "str", "type": "sequence", "splitter": "^", "max_len": 3}
NUMBER = {"active": True, "dtype": "float", "type": "numeric"}
FEATURES = [
    {"name": ["user_id", "item_id"], **ID},
    {"name": "item_history", "share_embedding": "item_id", **SEQUENCE},
]


def table(**columns: Any) -> pl.DataFrame:
    basic = {"label": [0.0, 1.0, 0.0, 1.0], "user_id": USERS, "item_id": ITEMS}
    return pl.DataFrame({**basic, "item_history": HISTORIES, **columns}, strict=False)


def config(folder: Path, form: str = "parquet", **changes: Any) -> dict[str, Any]:
    return {
        "dataset_id": "small",
        "data_root": str(folder / "encoded"),
        "data_format": form,
        **{f"{split}_data": str(folder / f"{split}.{form}") for split in ("train", "valid")},
        "feature_cols": FEATURES,
        "label_col": {"name": "label", "dtype": "float"},
        **changes,
    }


def written(folder: Path, train: pl.DataFrame, form: str = "parquet") -> None:
    for split, rows in (("train", train), ("valid", train)):
        write = rows.write_parquet if form == "parquet" else rows.write_csv
        write(folder / f"{split}.{form}")


def encoded(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "encoded" / "small" / "train.parquet")


def refused(folder: Path, match: str, form: str = "parquet", **changes: Any) -> None:
    """The error names what is wrong, and nothing has been written."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=match):
        build_dataset(config(folder, form, **changes))
    assert sorted(folder.rglob("*")) == before


# ---------------------------------------------------------------------- labels


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("labels", "row", "value"),
    [
        ([1, 2, 1, 2], 2, "2"),
        ([-1, 1, -1, 1], 1, "-1"),
        ([0.0, 1.0, 4.5, 1.0], 3, "4.5"),
        ([0.0, 1.0, None, 1.0], 3, "empty"),
        ([0.0, float("nan"), 0.0, 1.0], 2, "nan"),
        (["0", "1", "yes", "1"], 3, "yes"),
    ],
)
def test_a_label_other_than_0_and_1_is_refused_with_its_row(tmp_path, form, labels, row, value):
    written(tmp_path, table(label=labels), form)
    refused(tmp_path, rf"(?i)train.{form}, row {row}, column 'label'.*{value}.*0 or 1", form)


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize(
    "labels", [[False, True, False, True], [0, 1, 0, 1], ["0", "1", "0", "1"]], ids=str
)
def test_false_and_true_of_any_type_are_0_and_1(tmp_path, form, labels):
    written(tmp_path, table(label=labels), form)
    build_dataset(config(tmp_path, form))
    assert encoded(tmp_path)["label"].to_list() == [0, 1, 0, 1]


@pytest.mark.parametrize("stars", [[1, 2, 5, 3], [1.5, 2.0, 5.0, 0.0]], ids=str)
def test_regression_takes_any_finite_label(tmp_path, stars):
    written(tmp_path, table(label=stars))
    build_dataset(config(tmp_path, task="regression"))
    assert encoded(tmp_path)["label"].to_list() == stars
    written(tmp_path, table(label=[1.0, float("inf"), 2.0, 3.0]))
    with pytest.raises(InputError, match=r"row 2, column 'label'.*finite"):
        build_dataset(config(tmp_path, task="regression"))


def test_data_encoded_for_regression_is_checked_again_for_classification(tmp_path):
    written(tmp_path, table(label=[1, 2, 5, 3]))
    build_dataset(config(tmp_path, task="regression"))
    with pytest.raises(InputError, match="0 or 1"):
        build_dataset(config(tmp_path))


def test_a_splitter_that_leaves_a_blank_at_each_id_is_refused(tmp_path):
    written(tmp_path, table(item_history=["i1, i2", "i2", "i1, i2, i1", ""]))
    features = [FEATURES[0], {**FEATURES[1], "splitter": ","}]
    refused(tmp_path, r"' i\d'.*'i\d'.*set splitter to ', '", feature_cols=features)


def test_a_splitter_that_a_target_has_in_it_is_refused(tmp_path):
    written(tmp_path, table(item_id=["i1^a", "i2", "i1", "i2"]))
    refused(tmp_path, r"'item_id' holds 'i1\^a', which the splitter '\^' of 'item_history'")


def test_a_duration_is_no_id(tmp_path):
    written(tmp_path, table(user_id=pl.Series([1, 2, 3, 4], dtype=pl.Duration("us"))))
    refused(tmp_path, r"column 'user_id' is Duration.*wants ids")


def test_a_column_that_nobody_reads_may_have_any_zone(tmp_path):
    rows = table().to_arrow()
    for split in ("train", "valid"):
        when = pa.array([1, 2, 3, 4], pa.timestamp("us", "+05:30"))
        pq.write_table(rows.append_column("when", when), tmp_path / f"{split}.parquet")
    build_dataset(config(tmp_path))
    assert "when" not in encoded(tmp_path).columns


@pytest.mark.parametrize("zone", ["+05:30", "Z", "Mars/Phobos"])
@pytest.mark.parametrize("column", ["user_id", "label"])
def test_a_moment_of_a_zone_without_rules_is_an_id_in_utc_and_no_number(
    tmp_path, capfd, zone, column
):
    rows = table().drop(column).to_arrow()
    when = pa.array([0, 1_000_000, 0, 0], pa.timestamp("us", zone))
    for split in ("train", "valid"):
        pq.write_table(rows.append_column(column, when), tmp_path / f"{split}.parquet")
    if column == "user_id":
        build_dataset(config(tmp_path))
        vocab = json.loads((tmp_path / "encoded" / "small" / "feature_vocab.json").read_text())
        assert vocab["user_id"].keys() >= {"1970-01-01", "1970-01-01 00:00:01"}
    else:
        refused(tmp_path, "'label' is Datetime")
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le"])
def test_a_csv_of_two_bytes_a_letter_is_refused_without_showing_them(tmp_path, coding):
    for split in ("train", "valid"):
        (tmp_path / f"{split}.csv").write_bytes(table().write_csv().encode(coding))
    refused(tmp_path, r"train\.csv is no UTF-8: save its text as UTF-8\.$", "csv")


def test_line_ends_of_old_macs_are_refused_with_a_command(tmp_path):
    for split in ("train", "valid"):
        text = table().write_csv().replace("\n", "\r")
        (tmp_path / f"{split}.csv").write_bytes(text.encode())
    refused(tmp_path, r"train\.csv: its lines end by \\r alone; convert", "csv")


# ---------------------------------------------------------------------- numbers


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("prices", "row", "word"),
    [
        ([1.0, float("nan"), 2.0, 3.0], 2, "fill_na"),
        ([1.0, 2.0, None, 3.0], 3, "fill_na"),
        ([1.0, 2.0, 3.0, float("inf")], 4, "finite"),
        ([1.0, 2.0, 3.0, 1e39], 4, "finite in 32 bits"),
        (["1", "2", "cheap", "3"], 3, "needs a number"),
    ],
)
def test_a_numeric_feature_without_a_number_is_refused(tmp_path, form, prices, row, word):
    written(tmp_path, table(price=prices), form)
    features = [*FEATURES, {"name": "price", **NUMBER}]
    refused(tmp_path, f"row {row}, column 'price'.*{word}", form, feature_cols=features)


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("normalizer", [None, "StandardScaler", "MinMaxScaler"])
def test_fill_na_fills_nan_and_empty_fields(tmp_path, form, normalizer):
    written(tmp_path, table(price=[1.0, float("nan"), None, 3.0]), form)
    price = {"name": "price", **NUMBER, "fill_na": 2}
    if normalizer:
        price["normalizer"] = normalizer
    build_dataset(config(tmp_path, form, feature_cols=[*FEATURES, price]))
    column = encoded(tmp_path)["price"].to_list()
    assert column[1] == column[2] == (column[0] + column[3]) / 2
    if normalizer is None:
        assert column == [1, 2, 2, 3]


@pytest.mark.parametrize("normalizer", ["StandardScaler", "MinMaxScaler"])
@pytest.mark.parametrize("scope", ["all", "train"])
def test_a_scaler_learns_from_the_training_rows_alone(tmp_path, normalizer, scope):
    for split, later in (("train", 0), ("valid", 1000)):
        prices = table(price=[1.0 + later, 2.0, 2.0, 3.0 + later])
        prices.write_parquet(tmp_path / f"{split}.parquet")
    price = {"name": "price", **NUMBER, "normalizer": normalizer}
    build_dataset(config(tmp_path, feature_cols=[*FEATURES, price], vocab_scope=scope))
    column = encoded(tmp_path)["price"]
    if normalizer == "MinMaxScaler":
        assert column.to_list() == [0, 0.5, 0.5, 1]
    else:
        assert column.mean() == pytest.approx(0)
        assert column.std(ddof=0) == pytest.approx(1)


def test_a_fraction_in_a_column_of_ints_is_refused(tmp_path):
    written(tmp_path, table(age=[1.0, 2.5, 3.0, 4.0]))
    features = [*FEATURES, {"name": "age", **NUMBER, "dtype": "int"}]
    refused(tmp_path, "row 2, column 'age'.*2.5.*dtype: float", feature_cols=features)


# ---------------------------------------------------------------------- ids


def vocabulary(folder: Path, feature: str) -> set[str]:
    file = folder / "encoded" / "small" / "feature_vocab.json"
    return set(json.loads(file.read_text())[feature]) - {"__PAD__", "__OOV__"}


@pytest.mark.parametrize("dtype", ["str", "int", "float"])
@pytest.mark.parametrize(
    "items",
    [
        pl.Series([4, 7, 4, 7]),
        pl.Series([4.0, 7.0, 4.0, 7.0]),
        pl.Series([4, 7, 4, 7], dtype=pl.UInt8),
        pl.Series([4, 7, 4, 7], dtype=pl.Float32),
        pl.Series([Decimal("4.00"), Decimal("7.00")] * 2),
        pl.Series(["4", "7", "4", "7"]),
        pl.Series(["4", "7", "4", "7"], dtype=pl.Categorical),
    ],
    ids=lambda s: str(s.dtype),
)
def test_a_target_of_any_type_shares_its_ids_with_a_text_history(tmp_path, dtype, items):
    written(tmp_path, table(item_id=items, item_history=["4^7", "7", "4", ""]))
    features = [
        {"name": "user_id", **ID},
        {"name": "item_id", **ID, "dtype": dtype},
        {**FEATURES[1], "name": "item_history"},
    ]
    build_dataset(config(tmp_path, feature_cols=features))
    assert vocabulary(tmp_path, "item_id") == vocabulary(tmp_path, "item_history") == {"4", "7"}
    rows = encoded(tmp_path)
    assert rows["item_history"][1].to_list()[0] == rows["item_id"][1]
    assert rows["item_history"][2].to_list() == [rows["item_id"][0], 0, 0]


def test_parts_of_a_split_may_hold_ids_of_different_types(tmp_path):
    rows = table(item_id=[4, 7, 4, 7], item_history=["4^7", "7", "4", ""])
    for split in ("train", "valid"):
        (tmp_path / f"{split}.parquet").mkdir()
        rows[:2].write_parquet(tmp_path / f"{split}.parquet" / "a.parquet")
        other = rows[2:].with_columns(pl.col("item_id").cast(pl.Float64), pl.col("label").cast(int))
        other.write_parquet(tmp_path / f"{split}.parquet" / "b.parquet")
    build_dataset(config(tmp_path))
    assert vocabulary(tmp_path, "item_id") == {"4", "7"}
    assert encoded(tmp_path)["label"].to_list() == [0, 1, 0, 1]


def test_splits_may_hold_columns_of_different_types(tmp_path):
    rows = table(item_id=[4, 7, 4, 7], item_history=["4^7", "7", "4", ""], price=[1, 2, 3, 4])
    rows.write_parquet(tmp_path / "train.parquet")
    types = {"item_id": pl.Float64, "label": pl.Boolean, "price": pl.Float32}
    other = rows.with_columns(pl.col(name).cast(dtype) for name, dtype in types.items())
    other = other.with_columns(pl.col("item_history").cast(pl.Categorical))
    other.write_parquet(tmp_path / "valid.parquet")
    paths = build_dataset(config(tmp_path, feature_cols=[*FEATURES, {"name": "price", **NUMBER}]))
    assert pl.read_parquet(paths[0]).equals(pl.read_parquet(paths[1]))


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("missing", [None, ""])
def test_fill_na_of_ids_takes_the_place_of_null_and_of_empty_text(tmp_path, form, missing):
    rows = table(item_id=["i1", "i2", missing, "i2"], item_history=["i1^i2", "i2", "i1", missing])
    written(tmp_path, rows, form)
    features = [{**FEATURES[0], "fill_na": -1}, {**FEATURES[1], "fill_na": -1}]
    build_dataset(config(tmp_path, form, feature_cols=features))
    assert vocabulary(tmp_path, "item_id") == {"i1", "i2"}
    assert encoded(tmp_path)["item_history"][3].to_list() == [0, 0, 0]


@pytest.mark.parametrize("groups", [[7, 7, 8, 8], [7.0, 7.0, 8.0, 8.0], ["a", "a", "b", "b"]])
def test_a_group_column_of_any_type_keeps_its_groups(tmp_path, groups):
    written(tmp_path, table(group=groups))
    group = {"name": "group", "active": True, "dtype": "str", "type": "meta"}
    build_dataset(config(tmp_path, feature_cols=[*FEATURES, group], group_id="group"))
    ids = encoded(tmp_path)["group"].to_list()
    assert ids[0] == ids[1] != ids[2] == ids[3]


@pytest.mark.parametrize(
    "lists",
    [
        [[4, 7], [7], [4], []],
        [[4.0, 7.0], [7.0], [4.0], None],
        [["4", "7"], ["7"], ["4"], []],
    ],
)
@pytest.mark.parametrize("splitter", ["^", "|", ","])
def test_histories_may_be_lists(tmp_path, lists, splitter):
    written(tmp_path, table(item_id=[4, 7, 4, 7], item_history=lists))
    features = [FEATURES[0], {**FEATURES[1], "splitter": splitter}]
    build_dataset(config(tmp_path, feature_cols=features))
    assert vocabulary(tmp_path, "item_history") == {"4", "7"}
    lengths = [sum(id_ != 0 for id_ in ids) for ids in encoded(tmp_path)["item_history"]]
    assert lengths == [2, 1, 1, 0]


def test_a_list_with_a_missing_id_keeps_its_place(tmp_path):
    written(tmp_path, table(item_id=[4, 7, 4, 7], item_history=[[4, None, 7], [7], [4], []]))
    build_dataset(config(tmp_path))
    assert [bool(i) for i in encoded(tmp_path)["item_history"][0]] == [True, False, True]


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["i1", "i2", "i^2"])])
def test_a_list_whose_ids_hold_the_splitter_is_refused(tmp_path, dtype):
    lists = pl.Series([["i1", "i2"], ["i^2"], ["i1"], []], dtype=pl.List(dtype))
    written(tmp_path, table(item_history=lists))
    refused(tmp_path, r"row 2, column 'item_history'.*splitter")


def test_a_list_whose_numbers_hold_the_splitter_is_refused(tmp_path):
    written(tmp_path, table(item_id=[4, 7, 4, 7], item_history=[[4, 7], [-7], [4], []]))
    features = [FEATURES[0], {**FEATURES[1], "splitter": "-"}]
    refused(tmp_path, r"row 2, column 'item_history'.*splitter", feature_cols=features)


@pytest.mark.parametrize(
    ("items", "match"),
    [
        (pl.Series([4.0, 2.0**53 + 2, 7.0, 4.0]), "row 2, column 'item_id'.*lose digits"),
        (pl.Series([4.0, 2.0**25, 7.0, 4.0], dtype=pl.Float32), "lose digits"),
        (pl.Series([4.0, float("inf"), 7.0, 4.0]), "finite"),
        (pl.Series([b"a", b"\xff", b"a", b"a"]), "is Binary.*ids"),
        (pl.Series([{"a": 1}] * 4), "is Struct.*ids"),
        (pl.Series([["a"]] * 4), "is List.*ids"),
    ],
)
def test_ids_that_are_no_ids_are_refused(tmp_path, items, match):
    written(tmp_path, table(item_id=items))
    refused(tmp_path, match)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_an_int_id_with_a_fraction_is_refused_and_a_whole_float_taken(tmp_path, form):
    features = [{**ID, "name": "user_id"}, {**ID, "name": "item_id", "dtype": "int"}]
    written(tmp_path, table(item_id=[4.0, 7.0, None, 4.0]), form)
    build_dataset(config(tmp_path, form, feature_cols=features))
    assert vocabulary(tmp_path, "item_id") == {"4", "7"}
    written(tmp_path, table(item_id=[4.0, 7.5, 1.0, 4.0]), form)
    with pytest.raises(InputError, match=r"row 2, column 'item_id'.*7.5.*whole number"):
        build_dataset(config(tmp_path, form, feature_cols=features))


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_missing_int_id_is_unknown_and_not_the_id_0(tmp_path, form):
    features = [{**ID, "name": "user_id"}, {**ID, "name": "item_id", "dtype": "int"}]
    written(tmp_path, table(item_id=[0, 7, None, 0]), form)
    build_dataset(config(tmp_path, form, feature_cols=features))
    assert vocabulary(tmp_path, "item_id") == {"0", "7"}
    first, _, missing, last = encoded(tmp_path)["item_id"]
    assert first == last != missing


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_a_moment_is_one_id_whatever_its_unit_and_zone(tmp_path, unit, zone):
    moments = pl.Series([0, 86_400_000, 1_500, 0]).cast(pl.Datetime("ms")).cast(pl.Datetime(unit))
    moments = moments.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else moments
    written(tmp_path, table(user_id=moments))
    build_dataset(config(tmp_path))
    known = {"1970-01-01", "1970-01-02", "1970-01-01 00:00:01.5"}
    assert vocabulary(tmp_path, "user_id") == known


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
def test_a_fraction_is_one_id_whatever_its_width(tmp_path, dtype):
    written(tmp_path, table(user_id=pl.Series([12.1, 3.1, 4.0, 0.5], dtype=dtype)))
    build_dataset(config(tmp_path))
    assert vocabulary(tmp_path, "user_id") == {"12.1", "3.1", "4", "0.5"}


def test_a_decimal_with_a_fraction_is_no_int(tmp_path):
    written(tmp_path, table(item_id=[Decimal("4.0"), Decimal("7.5")] * 2))
    features = [{**ID, "name": "user_id"}, {**ID, "name": "item_id", "dtype": "int"}]
    refused(tmp_path, "row 2, column 'item_id'.*7.5.*whole number", feature_cols=features)


@pytest.mark.parametrize("items", [["a", "b", "a", "b"], [datetime(2020, 1, 1)] * 4])
def test_a_target_and_a_history_without_a_common_id_are_refused(tmp_path, items):
    written(tmp_path, table(item_id=items))
    refused(tmp_path, r"'item_history' shares.*'item_id'.*'i1' and 'i2'")


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whole_floats_and_ints_have_one_text(tmp_path_factory, numbers):
    file = tmp_path_factory.mktemp("ids") / "a.parquet"
    exact = [number for number in numbers if int(float(number)) == number]
    floats = pl.Series("f", map(float, exact), dtype=pl.Float64)
    pl.DataFrame([pl.Series("i", exact, dtype=pl.Int64), floats]).write_parquet(file)
    columns = [{**ID, "name": "i"}, {**ID, "name": "f"}]
    opened = open_table(str(file), columns)
    check([opened])
    rows = opened.frame.collect()
    assert rows["i"].to_list() == rows["f"].to_list() == [str(number) for number in exact]


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_split_without_rows_is_refused(tmp_path, form):
    written(tmp_path, table()[:0], form)
    refused(tmp_path, "train split holds no rows", form)


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"PAR1"])
def test_a_file_that_is_no_table_is_refused(tmp_path, form, content):
    for split in ("train", "valid"):
        (tmp_path / f"{split}.{form}").write_bytes(content)
    refused(tmp_path, rf"train\.{form}", form)


HEADER = "label,user_id,item_id,item_history\n"
ROWS = ["0,u1,i1,i1^i2\n", "1,u2,i2,i2\n", "0,u3,i1,i1\n", "1,u4,i2,\n"]


@pytest.mark.parametrize(
    ("row", "text", "match"),
    [
        (1, '1,u2,"i2,i2\n', "quote|cannot be read"),
        (1, '1,u"2,i2,i2\n', "quote|cannot be read"),
        (1, '1,"u\n2",i2,i2\n', "quote"),
        (1, "1,u2,i2\n", "line 3: it has not the 4 fields"),
        (3, "1,u4", "line 5: it has not the 4"),
        (1, "1,u2,i2,i2,x\n", "line 3: it has not the 4"),
        (1, "\n", "line 3: it has not the 4"),
    ],
)
def test_a_line_of_a_csv_that_is_no_row_is_refused(tmp_path, row, text, match):
    lines = [*ROWS[:row], text, *ROWS[row + 1 :]]
    for split in ("train", "valid"):
        (tmp_path / f"{split}.csv").write_text(HEADER + "".join(lines))
    refused(tmp_path, match, "csv")


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_csv_is_refused_or_gives_every_line_as_a_row(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray((HEADER + "".join(ROWS * 3)).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b'"', b"\n", b"\r", b",", b"\xe9", b"\0", b"7", b"", b"i1"])
        )
    (folder / "a.csv").write_bytes(bytes(content))
    params = config(folder, "csv")
    try:
        opened = open_table(
            str(folder / "a.csv"), [*feature_columns(params), *label_columns(params)]
        )
        counts = check([opened])
        rows = opened.frame.collect()
    except (InputError, pl.exceptions.PolarsError):  # of which build_dataset makes a sentence
        return
    assert len(rows) == counts[0] == len(bytes(content).rstrip(b"\n").split(b"\n")) - 1
    assert set(rows["label"]) <= {0.0, 1.0}


def test_another_separator_is_read(tmp_path):
    for split in ("train", "valid"):
        table().write_csv(tmp_path / f"{split}.csv", separator="\t")
    build_dataset(config(tmp_path, "csv", sep="\t"))
    assert vocabulary(tmp_path, "item_id") == {"i1", "i2"}
    with pytest.raises(InputError, match="one character"):
        build_dataset(config(tmp_path, "csv", sep="::"))


def test_a_folder_with_brackets_in_its_name_is_no_pattern(tmp_path):
    folder = tmp_path / "exp [1]"
    folder.mkdir()
    written(folder, table())
    train, _, _ = build_dataset(config(folder))
    assert pl.read_parquet(Path(train), glob=False).height == 4
    (folder / "train.parquet").rename(folder / "train-0.parquet")
    params = config(folder, train_data=str(folder / "train-*.parquet"))
    assert build_dataset(params)[0] == train


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_item_table_may_be_of_either_format_and_of_other_types(tmp_path, form):
    written(tmp_path, table(item_id=[4, 7, 4, 7], item_history=["4^7", "7", "4", ""]))
    items = pl.DataFrame({"item_id": [4.0, 9.0], "price": [1.0, None]})
    file = tmp_path / f"items.{form}"
    (items.write_parquet if form == "parquet" else items.cast({"item_id": int}).write_csv)(file)
    build_dataset(config(tmp_path, vocab_data=str(file)))
    assert vocabulary(tmp_path, "item_id") == {"4", "7", "9"}
    items.drop("item_id").write_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other.parquet has none of the columns"):
        build_dataset(config(tmp_path, vocab_data=str(tmp_path / "other.parquet")))


def test_one_file_may_be_every_split(tmp_path):
    written(tmp_path, table())
    file = str(tmp_path / "train.parquet")
    build_dataset(config(tmp_path, valid_data=file, test_data=file))
    assert encoded(tmp_path).height == 4


@pytest.mark.parametrize("column", [[""] * 4, [None] * 4])
@pytest.mark.parametrize("feature", ["user_id", "item_history"])
def test_a_column_that_is_empty_in_every_row_is_named(tmp_path, column, feature):
    written(tmp_path, table(**{feature: pl.Series(column, dtype=pl.String)}))
    refused(tmp_path, f"'{feature}' is empty in every row")


def test_a_column_of_rare_ids_alone_is_named(tmp_path):
    written(tmp_path, table())
    refused(tmp_path, "'user_id'.*min_categr_count=9", min_categr_count=9)


def test_a_history_without_max_len_is_as_long_as_the_longest_of_training(tmp_path):
    written(tmp_path, table())
    table(item_history=["i1^i2^i1", "i2", "i1", ""]).write_parquet(tmp_path / "valid.parquet")
    features = [FEATURES[0], {**FEATURES[1], "max_len": 0}]
    _, valid, _ = build_dataset(config(tmp_path, feature_cols=features))
    first = pl.read_parquet(valid)["item_history"][0].to_list()
    train = encoded(tmp_path)
    assert first == [train["item_id"][1], train["item_id"][0]]  # the newest two


def test_vectors_are_checked_and_kept(tmp_path):
    vectors = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]
    feature = {"name": "vector", "dtype": "str", "type": "embedding", "pretrain_dim": 2}
    written(tmp_path, table(vector=vectors))
    features = [*FEATURES, feature]
    build_dataset(config(tmp_path, feature_cols=features))
    assert encoded(tmp_path)["vector"].to_list() == vectors
    for bad in ([1.0], [1.0, float("nan")], None):
        written(tmp_path, table(vector=[*vectors[:3], bad]))
        with pytest.raises(InputError, match="row 4, column 'vector'"):
            build_dataset(config(tmp_path, feature_cols=features))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(width=32),
    st.decimals(-9, 9, places=2),
    st.sampled_from(["1", "0", "4.0", "", "é", "__PAD__", "nan"]),
    st.binary(max_size=2),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=3),
    st.lists(st.floats(width=32), max_size=3),
    st.lists(st.sampled_from(["i1", "i^2", ""]), max_size=3),
)


@given(
    name=st.sampled_from(["label", "user_id", "item_id", "item_history", "price", "age", "vector"]),
    value=VALUES,
    every=st.booleans(),
    fill=st.booleans(),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_column_of_any_type_is_encoded_or_refused_by_name(
    tmp_path_factory, name, value, every, fill
):
    """Never a traceback, never half an output."""
    folder = tmp_path_factory.mktemp("any")
    number = {**NUMBER, **({"fill_na": 0} if fill else {})}
    features = [
        *FEATURES,
        {"name": "price", **number},
        {"name": "age", **number, "dtype": "int"},
        {"name": "vector", "dtype": "list", "type": "embedding", "pretrain_dim": 2},
    ]
    basic = table(price=[1.0, 2.0, 3.0, 4.0], age=[1, 2, 3, 4], vector=[[1.0, 2.0]] * 4)
    column = [value] * 4 if every else [value, None, value, value]
    rows = basic.with_columns(pl.Series(name, column, strict=False))
    written(folder, rows)
    said = None
    try:
        build_dataset(config(folder, feature_cols=features))
    except InputError as error:
        said = str(error)
    assert (said is None) == (folder / "encoded").exists()
    assert encoded(folder).height == 4 if said is None else name in said
