"""Raw rows become the very arrays that training read."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuxictr_miss.data import build_dataset
from fuxictr_miss.data.columns import feature_columns
from fuxictr_miss.serving.encode import Encoder

WORDS = ["a", "b", "4", "4.0", "José", "unknown", " x", "05"]
NUMBERS = [0, 4, 7, -3, 2**40]
NEW = {str: ["new", "9"], int: [99], float: [99.0]}


def described(params: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`inputs` and `vocabularies` of what `build_dataset` wrote."""
    home = Path(params["data_root"]) / params["dataset_id"]
    tokens = json.loads((home / "feature_vocab.json").read_text())
    processor = pickle.loads((home / "feature_processor.pkl").read_bytes())
    inputs, vocabularies = [], {}
    for column in feature_columns(params):
        name, kind = column["name"], column["type"]
        spec = {key: column[key] for key in ("name", "type", "dtype", "fill_na") if key in column}
        if kind == "numeric":
            spec["normalizer"] = None
            if scaler := processor.processor_dict.get(f"{name}::normalizer"):
                fitted, form = scaler.normalizer.__self__, column["normalizer"]
                keys = ("mean", "scale") if form == "StandardScaler" else ("min", "scale")
                numbers = {key: getattr(fitted, f"{key}_").item() for key in keys}
                spec["normalizer"] = {"name": form, **numbers}
        else:
            ids = dict(tokens[name])
            oov = ids.pop("__OOV__")
            ids.pop("__PAD__")
            vocabularies[name] = {"oov": oov, "ids": ids}
            spec = {"fill_na": 0 if column["dtype"] == "int" else "", **spec, "vocabulary": name}
        if kind == "sequence":
            padding = column.get("padding", "post")
            spec |= {"splitter": column["splitter"], "max_len": column["max_len"]}
            spec |= {"padding": padding}
        inputs.append(spec)
    return inputs, vocabularies


@st.composite
def logs(draw: st.DrawFn) -> tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]:
    """feature_cols, and rows of train and test as files may hold them."""
    kind = draw(st.sampled_from([str, int, float]))
    words = WORDS if kind is str else [kind(each) for each in NUMBERS]
    splitter = draw(st.sampled_from(["^", "|", "||"]))
    fill = draw(st.sampled_from([{}, {"fill_na": ""}, {"fill_na": "unknown"}]))
    padding = draw(st.sampled_from(["pre", "post"]))
    as_list = draw(st.booleans())
    normalizer = draw(
        st.sampled_from([{}, *({"normalizer": n} for n in ("StandardScaler", "MinMaxScaler"))])
    )
    number = draw(st.sampled_from(["float", "int"]))
    columns = [
        {"name": "item", "type": "categorical", "dtype": "str", **fill},
        {"name": "past", "type": "sequence", "dtype": "str", "splitter": splitter, **fill,
         "padding": padding, "max_len": draw(st.integers(1, 4)), "share_embedding": "item"},
        {"name": "count", "type": "categorical", "dtype": "int",
         **draw(st.sampled_from([{}, {"fill_na": -1}]))},
        {"name": "price", "type": "numeric", "dtype": number, "fill_na": 2, **normalizer},
    ]  # fmt: skip

    def rows(choices: list[Any]) -> pl.DataFrame:
        size = draw(st.integers(1, 6))
        words = st.one_of(st.none(), st.sampled_from(choices))  # a missing one is not at an end
        history = st.lists(words, max_size=6).map(without_padding)
        if not as_list:
            history = history.map(lambda each: splitter.join(map(text, each)))
        past = draw(st.lists(st.one_of(st.none(), history), min_size=size, max_size=size))

        def column(values: Any) -> list[Any]:
            return draw(st.lists(st.one_of(st.none(), values), min_size=size, max_size=size))

        item = column(st.sampled_from(choices))
        kinds = {str: pl.String, int: pl.Int64, float: pl.Float64}
        prices = st.integers(-5, 5) if number == "int" else st.floats(-1e3, 1e3)
        return pl.DataFrame(
            [
                pl.Series("label", [float(n % 2) for n in range(size)]),
                pl.Series("item", item, dtype=kinds[kind]),
                pl.Series("past", past, dtype=pl.List(kinds[kind]) if as_list else pl.String),
                pl.Series("count", column(st.integers(0, 3)), dtype=pl.Int64),
                pl.Series("price", column(prices), dtype=pl.Float64),
            ]
        )

    # an id of every column, and one in both of those that share a table
    known = pl.DataFrame(
        {"label": [0.0, 1.0], "item": words[:2], "past": [words[:2], words[:1]], "count": [1, 2],
         "price": [1.0, 3.0]}
    )  # fmt: skip
    if not as_list:
        known = known.with_columns(
            pl.Series("past", [splitter.join(text(w) for w in each) for each in known["past"]])
        )
    train = pl.concat([known, rows(words)], how="vertical_relaxed")
    return {"feature_cols": columns}, train, rows([*words, *NEW[kind]])


def text(word: Any) -> str:
    return "" if word is None else str(int(word)) if isinstance(word, float) else str(word)


def without_padding(words: list[Any]) -> list[Any]:
    there = [place for place, word in enumerate(words) if word is not None]
    return words[there[0] : there[-1] + 1] if there else []


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(logs(), st.sampled_from(["parquet", "csv"]))
def test_every_row_is_encoded_as_training_encodes_it(log, form):
    params, *frames = log
    if {type(each) for each in frames[0].dtypes} & {pl.List} or frames[0]["item"].dtype.is_float():
        form = "parquet"  # a CSV has no lists, and 4.0 is an id of its own in it
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{split}.{form}" for split in ("train", "test")]
        for frame, file in zip(frames, files, strict=True):
            frame.write_parquet(file) if form == "parquet" else frame.write_csv(file)
        params |= {"dataset_id": "d", "data_root": f"{folder}/encoded", "data_format": form}
        params |= {"train_data": files[0], "test_data": files[1], "vocab_scope": "train"}
        params["label_col"] = {"name": "label", "dtype": "float"}
        train, _, test = build_dataset(params)
        encoder = Encoder(*described(params))
        for file, encoded in zip(files, (train, test), strict=True):
            raw = (
                pl.read_parquet(file)
                if form == "parquet"
                else pl.read_csv(file, infer_schema=False)
            )
            arrays, wanted = encoder.encode(raw), pl.read_parquet(encoded)
            for name, array in arrays.items():
                assert array.tolist() == wanted[name].to_numpy().astype(array.dtype).tolist(), name
