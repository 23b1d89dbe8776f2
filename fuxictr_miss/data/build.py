"""Canonical splits -> feature map, vocabulary and encoded parquet, by FuxiCTR's own processor."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from fuxictr.preprocess import FeatureProcessor
from fuxictr.version import __version__ as fuxictr_version
from tqdm import tqdm

from fuxictr_miss.errors import InputError

SPLITS = ("train", "valid", "test")
VOCAB_SCOPES = ("all", "train")
_STAMP = "build.json"  # written last: a folder without it was never finished
_SETTINGS = (
    "feature_cols",
    "label_col",
    "data_format",
    "min_categr_count",
    "num_buckets",
    "vocab_scope",
    "group_id",
)
_ROWS_AT_ONCE = 50_000


def build_dataset(params: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Encode the splits of a data set, unless that has been done for the same input.

    Writes to `data_root/dataset_id`: `feature_map.json`, `feature_vocab.json`,
    `feature_processor.pkl` and `<split>.parquet`, all readable by FuxiCTR. Runs in this process.

    Args:
        params: a FuxiCTR dataset config: `dataset_id`, `data_root`, `data_format` (csv or
            parquet), `train_data`, `valid_data`, `test_data`, `feature_cols`, `label_col`; and
            `vocab_scope`: "all" (default: ids for every token of all splits and, as Table II
            counts features, of the item table in `vocab_data` if one is named) or "train".

    Returns:
        The encoded files of train, valid and test (None where there is no such split), as
        FuxiCTR's `build_dataset` does.

    Raises:
        InputError: a split or a column is missing, or a key has an unusable value.
    """
    scope = params.get("vocab_scope") or "all"
    if scope not in VOCAB_SCOPES:
        raise InputError(f"vocab_scope must be one of {', '.join(VOCAB_SCOPES)}, got {scope!r}.")
    sources = {s: _source_files(params, s) for s in SPLITS if params.get(f"{s}_data")}
    if "train" not in sources:
        raise InputError(f"Data set {params['dataset_id']!r} names no train_data.")
    inputs = dict(sources)
    if scope == "all" and params.get("vocab_data"):
        inputs["vocab"] = _source_files(params, "vocab")
    final = Path(params["data_root"]) / params["dataset_id"]
    building = final.with_name(f".{final.name}.building")
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(final.with_name(f".{final.name}.lock")):  # of several processes one builds
        last = _read_stamp(final)
        stamp = _stamp(params, inputs, last.get("files", {}))
        if all(last.get(key) == stamp[key] for key in ("fuxictr", "settings", "content")):
            logging.info("Encoded data in %s is up to date.", final)
            if last != stamp:
                _write_stamp(final, stamp)
        else:
            shutil.rmtree(building, ignore_errors=True)
            try:
                _encode(params, list(sources), scope, building, final)
                _write_stamp(building, stamp)
                shutil.rmtree(final, ignore_errors=True)
                building.replace(final)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    files = {split: str(final / f"{split}.parquet") for split in sources}
    return files["train"], files.get("valid"), files.get("test")


def _encode(
    params: Mapping[str, Any], splits: list[str], scope: str, building: Path, final: Path
) -> None:
    """Fit the vocabularies and write every split into `building`, to be renamed to `final`."""
    columns = [{"active": True, **column} for column in params["feature_cols"]]
    options = {**params, "feature_cols": columns}
    options.update(data_root=str(building.parent), dataset_id=building.name)
    processor = FeatureProcessor(**options)
    processor.feature_map.dataset_id = params["dataset_id"]
    frames = {split: _read(processor, params, split) for split in splits}
    everything = pl.concat(list(frames.values()))
    fitted_on = everything if scope == "all" else frames["train"]
    if scope == "all" and params.get("vocab_data"):
        items = pl.scan_parquet(_source_files(params, "vocab"))
        known = [name for name in items.collect_schema().names() if name in processor.dtype_dict]
        fitted_on = pl.concat([everything, items.select(known)], how="diagonal")
    processor.fit(fitted_on, meta_ddf=everything, rebuild_dataset=True, **_fit_options(params))
    total = sum(frame.select(pl.len()).collect().item() for frame in frames.values())
    with tqdm(total=total, desc=f"encode {params['dataset_id']}", unit=" rows") as progress:
        for split, frame in frames.items():
            _write(processor, frame, building / f"{split}.parquet", progress)
    # what was pickled must name the folder in which it will be found
    for holder in (processor, processor.feature_map):
        holder.data_dir = str(final)
    processor.pickle_file = str(final / "feature_processor.pkl")
    processor.json_file = str(final / "feature_map.json")
    processor.vocab_file = str(final / "feature_vocab.json")
    processor.save_pickle(str(building / "feature_processor.pkl"))


def _read(processor: FeatureProcessor, params: Mapping[str, Any], split: str) -> pl.LazyFrame:
    path = params[f"{split}_data"]
    frame = processor.read_data(path, data_format=params.get("data_format", "csv"))
    present = frame.collect_schema().names()
    active = [c for c in processor.feature_cols + processor.label_cols if c.get("active", True)]
    missing = [c["name"] for c in active if c["name"] not in present and "preprocess" not in c]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}, which the data set's config names. "
            f"It has: {', '.join(present)}."
        )
    return processor.preprocess(frame).with_columns(_newest(processor))


def _newest(processor: FeatureProcessor) -> list[pl.Expr]:
    """Cut every sequence to its newest `max_len` tokens: FuxiCTR would keep the oldest."""
    return [
        pl.col(column["name"])
        .str.split(splitter := column.get("splitter", "^"))
        .list.tail(column["max_len"])
        .list.join(splitter)
        for column in processor.feature_cols
        if column["type"] == "sequence" and column.get("max_len") and column["active"]
    ]


def _fit_options(params: Mapping[str, Any]) -> dict[str, Any]:
    return {k: params[k] for k in ("min_categr_count", "num_buckets") if params.get(k) is not None}


def _write(processor: FeatureProcessor, frame: pl.LazyFrame, path: Path, progress: tqdm) -> None:
    writer = None
    try:
        for part in _parts(frame):
            columns = processor.transform({c: part[c].to_numpy() for c in part.columns})
            table = pa.table({name: _arrow(values) for name, values in columns.items()})
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            progress.update(len(part))
    finally:
        if writer is not None:
            writer.close()


def _parts(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    whole = frame.collect()
    yield from whole.iter_slices(_ROWS_AT_ONCE)


def _arrow(values: Any) -> pa.Array:
    array = np.asarray(values)
    if array.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
    return pa.array(array)


def _source_files(params: Mapping[str, Any], split: str) -> list[str]:
    path, ending = params[f"{split}_data"], params.get("data_format", "csv")
    pattern = path if path.endswith(ending) else os.path.join(path, f"*.{ending}")
    files = sorted(glob.glob(pattern))
    if not files:
        hint = params.get("preprocess_command")
        how = f" Make it with: {hint}" if hint else " See data_preprocess/README.md."
        raise InputError(f"The {split} split is not there: {pattern}.{how}")
    return files


def _stamp(
    params: Mapping[str, Any], sources: dict[str, list[str]], known: Mapping[str, Any]
) -> dict[str, Any]:
    """What the encoded data depends on: settings and content, and per file what was last seen.

    A file is read again only if its size or time differs from what is `known`.
    """
    files: dict[str, Any] = {}
    for path in {f for names in sources.values() for f in names}:
        status = os.stat(path)
        seen = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        before = known.get(path, {})
        same = all(before.get(key) == value for key, value in seen.items())
        files[path] = {**seen, "digest": before["digest"] if same else _digest(path)}
    content = {split: [files[f]["digest"] for f in names] for split, names in sources.items()}
    settings = {key: params.get(key) for key in _SETTINGS}
    return {"fuxictr": fuxictr_version, "settings": settings, "content": content, "files": files}


def _digest(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_stamp(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_stamp(folder: Path, stamp: dict[str, Any]) -> None:
    temporary = folder / f".{_STAMP}"
    temporary.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    temporary.replace(folder / _STAMP)
