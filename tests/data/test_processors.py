"""Preprocess functions of the user's own class: found, used, and part of what the data is."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fuxictr.preprocess import FeatureProcessor

from fuxictr_miss.config import Config
from fuxictr_miss.data import build_dataset
from fuxictr_miss.data.processors import own_processor
from fuxictr_miss.errors import InputError

OWN = """
import polars as pl
from fuxictr.preprocess import FeatureProcessor
from beside import LAST


class Mine(FeatureProcessor):
    def hour(self, col_name):
        return pl.col("time").str.slice(11, LAST)

    def shorter(self, col_name):
        return pl.col(col_name).str.slice(0, 1)

    def missing(self, col_name):
        return pl.col("nowhere")

    def raises(self, col_name):
        raise RuntimeError("out of order")

    def of_fuxictr_1(self, df, col_name):
        return df[col_name]


class Reader(FeatureProcessor):
    def read_data(self, *args, **kwargs):
        return super().read_data(*args, **kwargs)


class Other:
    pass
"""


@pytest.fixture
def params(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "beside.py").write_text("LAST = 2")
    rows = (
        "label,user,time\n1,ann,2024-01-01 07:30\n0,bob,2024-01-01 08:30\n0,amy,2024-01-02 07:00\n"
    )
    (tmp_path / "train.csv").write_text(rows)
    categorical = {"active": True, "dtype": "str", "type": "categorical"}
    return {
        "dataset_id": "own", "data_root": str(tmp_path / "encoded"), "data_format": "csv",
        "train_data": str(tmp_path / "train.csv"), "label_col": {"name": "label", "dtype": "float"},
        "feature_cols": [
            {"name": "user", "preprocess": "shorter", **categorical},
            {"name": "when", "preprocess": "hour(time)", **categorical},
        ],
        "feature_processor": f"{tmp_path / 'own.py'}:Mine",
    }  # fmt: skip


def rows(params: dict[str, Any]) -> list[list[int]]:
    frame = pl.read_parquet(build_dataset(params)[0])
    return [frame[name].to_list() for name in ("user", "when")]


def test_functions_of_a_file_make_columns(params):
    users, hours = rows(params)
    assert users[0] == users[2] != users[1]  # a, b, a
    assert hours[0] == hours[2] != hours[1]  # 07, 08, 07


def test_the_pickled_processor_opens_without_the_users_file(params):
    path = Path(build_dataset(params)[0]).with_name("feature_processor.pkl")
    assert type(pickle.loads(path.read_bytes())) is FeatureProcessor


def test_data_is_encoded_again_when_the_functions_change(params, tmp_path):
    assert rows(params)[0] == rows(params)[0]
    (tmp_path / "own.py").write_text(OWN.replace("slice(0, 1)", "slice(0, 2)"))
    users = rows(params)[0]
    assert len(set(users)) == 3  # an, bo, am


def use(params: dict[str, Any], function: str) -> None:
    params["feature_cols"][0]["preprocess"] = function


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("shortr", "'user': Mine has no preprocess function 'shortr'; did you mean 'shorter'"),
        ("convert_weekend", r"fuxictr\.datasets\.avazu\.CustomizedFeatureProcessor"),
        ("missing", "The preprocess functions fail on the train split .*nowhere"),
        ("raises", "A preprocess function of Mine fails .*RuntimeError: out of order"),
        ("of_fuxictr_1", "A preprocess function of Mine fails .*name of a column"),
        ("shorter(a)(b)", "fails"),
    ],
)
def test_a_function_that_cannot_be_used_is_one_sentence(params, function, words):
    use(params, function)
    with pytest.raises(InputError, match=words) as error:
        build_dataset(params)
    assert "\n" not in str(error.value)
    assert not Path(params["data_root"]).exists()


def test_a_function_needs_a_class(params):
    del params["feature_processor"]
    with pytest.raises(
        InputError, match=r"FeatureProcessor has no preprocess.*feature_processor to"
    ):
        build_dataset(params)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.py:Mine", "cannot be imported .*nowhere.py is not there"),
        ("OWN:Nobody", "cannot be imported .*Nobody"),
        ("OWN:Other", "is not derived from FuxiCTR's FeatureProcessor"),
        ("OWN:Reader", "has a read_data of its own, which is not called here"),
        ("no.module.Mine", "cannot be imported .*ModuleNotFoundError"),
        ("Mine", "cannot be imported"),
        ("fuxictr.preprocess.Tokenizer", "cannot be imported|is not derived"),
    ],
)
def test_a_class_that_cannot_be_used_is_one_sentence(params, tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        own_processor(name.replace("OWN", str(tmp_path / "own.py")))


def test_a_class_may_be_of_a_module():
    name = "fuxictr.datasets.avazu.CustomizedFeatureProcessor"
    assert hasattr(own_processor(name), "convert_weekend")
    assert own_processor(None) is FeatureProcessor


CRITEO = {
    "label_col": {"name": "Label", "dtype": "float"},
    "feature_cols": [
        {"name": ["I1", "I2"], "active": True, "dtype": "float", "type": "categorical",
         "na_value": 0, "preprocess": "convert_to_bucket"},
        {"name": "C1", "active": True, "dtype": "str", "type": "categorical", "na_value": ""},
    ],
    "feature_processor": "fuxictr.datasets.criteo.CustomizedFeatureProcessor",
}  # fmt: skip
AVAZU = {
    "label_col": {"name": "click", "dtype": "float"},
    "feature_cols": [
        {"name": "hour", "active": True, "dtype": "str", "type": "categorical",
         "preprocess": "convert_hour"},
        *({"name": name, "active": True, "dtype": "str", "type": "categorical",
           "preprocess": f"convert_{name}"} for name in ("weekday", "weekend")),
    ],
    "feature_processor": "fuxictr.datasets.avazu.CustomizedFeatureProcessor",
}  # fmt: skip


def log_of(name: str) -> str:
    draw = random.Random(5)
    numbers = ["", "0", "1", "2", "3", "7", "50", "-1", "12345"]
    lines = ["Label,I1,I2,C1" if name == "criteo" else "click,hour"]
    for _ in range(300):
        values = [draw.choice(numbers), draw.choice(numbers), draw.choice("ab")]
        if name == "avazu":
            values = [f"1410{draw.randint(10, 30)}{draw.randint(0, 23):02}"]
        lines.append(",".join(["01"[draw.random() < 0.5], *values]))
    return "\n".join([*lines, ""])


@pytest.mark.parametrize(("name", "entry"), [("criteo", CRITEO), ("avazu", AVAZU)])
def test_the_configs_of_bars_part_the_rows_as_fuxictrs_own_processor_does(tmp_path, name, entry):
    file = tmp_path / "train.csv"
    file.write_text(log_of(name))
    params = Config.of({
        "dataset_id": name, "data_root": str(tmp_path / "encoded"), "data_format": "csv",
        "train_data": str(file), "min_categr_count": 10, **entry,
    }).params  # fmt: skip
    ours = pl.read_parquet(build_dataset(params)[0])
    (tmp_path / "theirs" / name).mkdir(parents=True)
    theirs = own_processor(entry["feature_processor"])(
        **{**params, "data_root": str(tmp_path / "theirs")}
    )
    rows = theirs.preprocess(theirs.read_data(str(file)))
    theirs.fit(rows, rows, min_categr_count=10)
    encoded = theirs.transform({c.name: c.to_numpy() for c in rows.collect()})
    for feature in theirs.feature_map.features:
        pairs = set(zip(ours[feature].to_list(), list(encoded[feature]), strict=True))
        assert len(pairs) == len(set(ours[feature])) == len(set(encoded[feature])), feature
        assert {pair for pair in pairs if 0 in pair} <= {(0, 0)}
