"""Canonical splits -> feature map, vocabulary and encoded parquet, by FuxiCTR's own processor."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from fuxictr.preprocess import FeatureProcessor
from fuxictr.version import __version__ as fuxictr_version
from tqdm import tqdm

from fuxictr_miss.config import Config
from fuxictr_miss.data import folder
from fuxictr_miss.data.columns import feature_columns, label_columns
from fuxictr_miss.data.digest import SplitDigest, digest_of
from fuxictr_miss.data.encoded import encoded_folder, encoded_splits, is_encoded
from fuxictr_miss.data.folder import FEATURE_MAP, PROCESSOR, SPLITS, VOCABULARY
from fuxictr_miss.data.pretrained import (
    check_overlap,
    check_pretrained,
    pretrained_files,
    written_name,
)
from fuxictr_miss.data.processors import check_functions, own_processor, source_of
from fuxictr_miss.data.table import check, check_computed, open_table
from fuxictr_miss.data.tensors import discard_mapped
from fuxictr_miss.data.vocabulary import Processor
from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import file_digest, files_at, writable

log = logging.getLogger(__name__)

_FORMATS = ("csv", "parquet")
_ENCODER = 3  # data that an earlier encoder wrote is built again
_SETTINGS = (
    "feature_cols",
    "label_col",
    "data_format",
    "sep",
    "min_categr_count",
    "num_buckets",
    "vocab_scope",
    "group_id",
)
_ROWS_AT_ONCE = 50_000
_PART = "_part_of_the_split"


class _Inputs(NamedTuple):
    """What is encoded: checked columns, and the files that are read."""

    columns: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    splits: dict[str, list[str]]
    items: list[str]  # of vocab_data
    pretrained: dict[str, str]  # of a feature, its file
    processor: type[FeatureProcessor]  # the user's, or FuxiCTR's
    sizes: dict[str, float]  # of splits that are taken from the training rows

    def files(self) -> set[str]:
        splits = {file for files in self.splits.values() for file in files}
        return splits | {*self.items, *self.pretrained.values()}

    def written(self) -> list[str]:
        """The names of the files to write."""
        vectors = [written_name(*each) for each in self.pretrained.items()]
        return [*folder.FEATURE_FILES, *(f"{split}.parquet" for split in self.names), *vectors]

    @property
    def names(self) -> list[str]:
        return [split for split in SPLITS if split in self.splits or split in self.sizes]


def build_dataset(params: Config | Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Encode the splits of a data set, unless that has been done.

    Data that is encoded already (npz, h5, or a feature map that is not ours) is used as it is and
    nothing is written.

    Otherwise it writes to `data_root/dataset_id`: `feature_map.json`, `feature_vocab.json`,
    `feature_processor.pkl` and `<split>.parquet`, all readable by FuxiCTR, and `build.json`, which
    lists them. Files that it does not list stay as they are. Runs in this process.

    Args:
        params: a FuxiCTR dataset config: `dataset_id`, `data_root`, `data_format`, `train_data`,
            `valid_data`, `test_data`, and for raw csv or parquet `feature_cols`, `label_col` and
            `vocab_scope`: "all" (default: ids for every token of all splits and, as Table II
            counts features, of the item table in `vocab_data` if one is named) or "train".

    Returns:
        The encoded files of train, valid and test (None where there is no such split), as
        FuxiCTR's `build_dataset` does.

    Raises:
        InputError: a split or a column is missing, a key or a value of the data cannot be used, or
            a file would be replaced that we did not write. Nothing is written then.

    Example:
        >>> from fuxictr_miss.config import load_config
        >>> from fuxictr_miss.data import build_dataset
        >>> build_dataset(load_config("config", "DIN_demo"))[0]
        'data/encoded/demo/train.parquet'
    """
    config = Config.of(params)
    for key in ("data_root", "dataset_id"):
        if not getattr(config, key):
            raise InputError(f"The data set's config names no {key}.")
    final = encoded_folder(config)
    if is_encoded(config):
        splits = encoded_splits(config)
        log.info("%s is used as it is: this program did not encode it.", final)
        if config.feature_cols and splits["train"] != config.train_data:
            log.warning(
                "%s is not read, as %s is encoded already: set another dataset_id to encode it.",
                config.train_data, final,
            )  # fmt: skip
        return splits["train"], splits.get("valid"), splits.get("test")
    inputs = _inputs(config)
    home = final.resolve()  # a linked folder is built where it is
    folder.refuse_inputs_among(home, inputs.written(), inputs.files())
    folder.refuse_strangers(home, inputs.written())
    last = folder.read_stamp(home)
    stamp = _stamp(config, inputs, last.get("files", {}))
    files = {split: str(final / f"{split}.parquet") for split in inputs.names}
    found = files["train"], files.get("valid"), files.get("test")
    current = _is_current(home, last, stamp)
    if current and not writable(home.parent):  # nobody builds there
        log.info("Encoded data in %s is up to date.", final)
        return found
    raw = None if current else _checked(config, inputs)
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.with_name(f".{home.name}.lock")):  # of several processes one builds
        last = folder.read_stamp(home)
        building = home.with_name(f".{home.name}.building")
        if _is_current(home, last, stamp):
            log.info("Encoded data in %s is up to date.", final)
            _remember(building, home, {**last, "files": stamp["files"]})
        else:
            folder.refuse_changed(home, last)
            raw = raw or _checked(config, inputs)
            what = f"{final} cannot be written"
            then = "free some space, or set data_root to another folder"
            folder.begin(building, inputs.written())
            try:
                with explained(OSError, what, then):
                    digests = _encode(config, inputs, raw, building, final)
                stamp["digest"] = digest_of(building, digests)
                stamp["written"] = folder.marks_of(building, inputs.written())
                folder.commit(building, home, stamp)
            finally:
                folder.clear(building)
            for split in SPLITS:
                discard_mapped(home / f"{split}.parquet")
    return found


# ---------------------------------------------------------------------- what is read


def _inputs(config: Config) -> _Inputs:
    form = config.data_format
    columns, labels = feature_columns(config.params), label_columns(config.params)
    _check_numbering(columns)
    paths = {s: path for s in SPLITS if (path := getattr(config, f"{s}_data"))}
    if "train" not in paths:
        raise InputError(f"Data set {config.dataset_id!r} names no train_data.")
    splits = {s: _source_files(config, s, path, form) for s, path in paths.items()}
    items: list[str] = []
    if config.vocab_scope != "train" and config.vocab_data:
        ending = Path(config.vocab_data).suffix[1:]
        ending = ending if ending in _FORMATS else form
        items = _source_files(config, "vocab", config.vocab_data, ending)
    pretrained = pretrained_files(columns)
    for column in columns:
        if column["name"] in pretrained:
            check_pretrained(column, config.params.get("embedding_dim"))
    processor = own_processor(config.feature_processor)
    check_functions(columns, processor)
    sizes = {split: size for split in SPLITS[1:] if (size := getattr(config, f"{split}_size"))}
    return _Inputs(columns, labels, splits, items, pretrained, processor, sizes)


def _check_numbering(columns: list[dict[str, Any]]) -> None:
    for column in columns:
        if column["type"] in ("categorical", "sequence") and not column.get("remap", True):
            raise InputError(
                f"Feature {column['name']!r}: remap: False does not run in FuxiCTR 2.3.10 with "
                "type categorical or sequence; remove the key, and ids are numbered as they occur."
            )


def _source_files(config: Config, split: str, path: str, ending: str) -> list[str]:
    files = files_at(path, ending)
    if not files:
        hint = config.preprocess_command
        how = f" Make it with: {hint}" if hint else " See data_preprocess/README.md."
        raise InputError(
            f"The {split} split is not there: {path} ({ending}), seen from {os.getcwd()} and from "
            f"the config's folder and the two above it.{how}"
        )
    wrong = next((file for file in files if not file.endswith(f".{ending}")), None)
    if wrong:
        raise InputError(f"{wrong} does not end in .{ending}: rename it or set data_format.")
    return files


class _Raw(NamedTuple):
    """Checked rows, not read into memory."""

    processor: Processor
    splits: dict[str, pl.LazyFrame]
    rows: int


def _checked(config: Config, inputs: _Inputs) -> _Raw:
    """Every row of every input, checked; nothing is written."""
    columns = [dict(column) for column in inputs.columns]
    options = {**config.params, "feature_cols": columns, "label_col": inputs.labels}
    processor = Processor.of(inputs.processor)(**options)
    frames, counts = {}, {}
    for split, files in inputs.splits.items():
        tables = [open_table(f, [*inputs.columns, *inputs.labels], config.sep) for f in files]
        counts[split] = sum(check(tables))
        if not counts[split]:
            raise InputError(f"The {split} split holds no rows: {', '.join(files)}.")
        frames[split] = pl.concat([table.frame for table in tables])
    if inputs.sizes:
        frames |= _divided(frames["train"], counts["train"], inputs.sizes, config.split_type)
    splits = {}
    for split in inputs.names:
        frame = _preprocessed(processor, frames[split], inputs.processor.__name__)
        splits[split] = check_computed(f"the {split} split", frame, columns)
    for column in columns:
        if column["type"] == "sequence" and not column.get("max_len"):
            column["max_len"] = _longest(splits["train"], column)
    splits = {split: frame.with_columns(_newest(columns)) for split, frame in splits.items()}
    everything = pl.concat(list(splits.values()))
    ids = splits["train"] if config.vocab_scope == "train" else everything
    if inputs.items:
        ids = pl.concat([everything, _items(config, inputs)], how="diagonal")
    what = f"The splits of {config.dataset_id} cannot be read"
    with explained(pl.exceptions.PolarsError, what, "write their files again"):
        processor.count(ids, splits["train"], everything, config.min_categr_count)
    return _Raw(processor, splits, sum(counts.values()))


def _divided(
    frame: pl.LazyFrame, rows: int, sizes: Mapping[str, float], split_type: str
) -> dict[str, pl.LazyFrame]:
    """Take validation and test rows from the training rows as FuxiCTR means to.

    It takes the test rows first, from the end of the file or of a random order, which does not
    depend on `seed`: runs with several seeds share their data.
    """
    part = np.zeros(rows, np.uint8)  # the place of a row's split in SPLITS
    order = np.arange(rows)
    if split_type == "random":
        np.random.RandomState(0).shuffle(order)
    left = rows
    for place in (2, 1):
        size = sizes.get(SPLITS[place], 0)
        count = int(rows * size) if size < 1 else int(size)
        if size and not 0 < count < left:
            raise InputError(
                f"{SPLITS[place]}_size {size} is {count} of {left} training rows: give every split "
                "at least one."
            )
        part[order[left - count : left]] = place
        left -= count
    numbered = pl.concat([frame, pl.LazyFrame({_PART: part})], how="horizontal")
    return {
        split: numbered.filter(pl.col(_PART) == place).drop(_PART)
        for place, split in enumerate(SPLITS)
        if split == "train" or split in sizes
    }


def _preprocessed(processor: Processor, frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
    columns = processor.feature_cols
    processor.feature_cols = [{**each, **each.get("declared", {})} for each in columns]
    try:
        return processor.preprocess(frame)
    except Exception as error:  # a user's function may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"A preprocess function of {name} fails ({reason}): in FuxiCTR 2.3 it takes the name "
            "of a column and returns a polars expression."
        ) from error
    finally:
        processor.feature_cols = columns


def _items(config: Config, inputs: _Inputs) -> pl.LazyFrame:
    """The ids of the item table, of those columns that are features."""
    ids = [
        column
        for column in inputs.columns
        if column["type"] in ("categorical", "sequence") and "preprocess" not in column
    ]
    tables = [open_table(file, ids, config.sep, required=False) for file in inputs.items]
    check(tables)
    frame = pl.concat([table.frame for table in tables])
    if not frame.collect_schema():
        raise InputError(
            f"vocab_data {inputs.items[0]} has none of the columns "
            f"{', '.join(column['name'] for column in ids)}: name another file, or remove the key."
        )
    return frame


def _longest(frame: pl.LazyFrame, column: Mapping[str, Any]) -> int:
    tokens = pl.col(column["name"]).str.split(column.get("splitter", "^"))
    return frame.select(tokens.list.len().max()).collect().item()


def _newest(columns: list[dict[str, Any]]) -> list[pl.Expr]:
    """Cut every sequence to its newest `max_len` tokens: FuxiCTR would keep the oldest."""
    return [
        pl.col(column["name"])
        .str.split(splitter := column.get("splitter", "^"))
        .list.tail(column["max_len"])
        .list.join(splitter)
        for column in columns
        if column["type"] == "sequence"
    ]


# ---------------------------------------------------------------------- what is written


def _encode(
    config: Config, inputs: _Inputs, raw: _Raw, building: Path, final: Path
) -> dict[str, str | None]:
    """Fit the vocabularies and write every split into `building`, to be moved to `final`.

    Returns:
        The digest of each split.
    """
    processor = raw.processor
    _settle_in(processor, building)
    everything = pl.concat(list(raw.splits.values()))
    processor.fit(
        raw.splits["train"],
        everything,
        rebuild_dataset=True,
        min_categr_count=config.min_categr_count,
        num_buckets=config.num_buckets,
    )
    for name, file in inputs.pretrained.items():
        vocabulary = processor.processor_dict[f"{name}::tokenizer"].vocab
        check_overlap(name, file, vocabulary, processor.feature_map.features[name]["oov_idx"])
    digests: dict[str, str | None] = {}
    with tqdm(total=raw.rows, desc=f"encode {config.dataset_id}", unit=" rows") as progress:
        for split, frame in raw.splits.items():
            digests[split] = _write(processor, frame, building / f"{split}.parquet", progress)
    _settle_in(processor, final)  # what is pickled names the folder in which it will be found
    processor.as_fuxictrs().save_pickle(str(building / PROCESSOR))
    return digests


def _settle_in(processor: FeatureProcessor, place: Path) -> None:
    processor.data_dir = processor.feature_map.data_dir = str(place)
    processor.pickle_file = str(place / PROCESSOR)
    processor.json_file = str(place / FEATURE_MAP)
    processor.vocab_file = str(place / VOCABULARY)


def _write(processor: FeatureProcessor, frame: pl.LazyFrame, path: Path, progress: tqdm) -> str:
    """Encode a split; its digest."""
    writer, digest = None, SplitDigest()
    try:
        for part in frame.collect().iter_slices(_ROWS_AT_ONCE):
            encoded = processor.transform({c: part[c].to_numpy() for c in part.columns})
            rows = pa.record_batch({k: _arrow(np.asarray(v)) for k, v in encoded.items()})
            digest.update(rows)
            writer = writer or pq.ParquetWriter(path, rows.schema)
            writer.write_batch(rows)
            progress.update(len(part))
    finally:
        if writer is not None:
            writer.close()
    return digest.hexdigest()


def _arrow(array: np.ndarray) -> pa.Array:
    if array.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
    return pa.array(array)


# ---------------------------------------------------------------------- the stamp


def _stamp(config: Config, inputs: _Inputs, known: Mapping[str, Any]) -> dict[str, Any]:
    """What the encoded data depends on: settings and content, and per file what was last seen.

    A file is read again only if its size or time differs from what is `known`.
    """
    files: dict[str, Any] = {}
    for path in inputs.files():
        status = os.stat(path)
        seen = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        before = known.get(path, {})
        same = all(before.get(key) == value for key, value in seen.items())
        files[path] = {**seen, "digest": before["digest"] if same else file_digest(path)}
    sources = {**inputs.splits, **({"vocab": inputs.items} if inputs.items else {})}
    settings: dict[str, Any] = {key: config.params.get(key) for key in _SETTINGS}
    settings["binary"] = [label["binary"] for label in inputs.labels]
    if inputs.sizes:
        settings["divided"] = [inputs.sizes, config.split_type]
    if config.feature_processor:
        settings["processor"] = [config.feature_processor, file_digest(source_of(inputs.processor))]
    return {
        "encoder": _ENCODER,
        "fuxictr": fuxictr_version,
        "settings": json.loads(json.dumps(settings, default=str)),
        "content": {name: [files[f]["digest"] for f in each] for name, each in sources.items()},
        "pretrained": {name: files[f]["digest"] for name, f in inputs.pretrained.items()},
        "files": files,
    }


def _is_current(home: Path, last: Mapping[str, Any], stamp: Mapping[str, Any]) -> bool:
    keys = ("encoder", "fuxictr", "settings", "content", "pretrained")
    return all(last.get(k) == stamp[k] for k in keys) and folder.unchanged(home, last)


def _remember(building: Path, home: Path, stamp: dict[str, Any]) -> None:
    """Note when files were last seen, so that they are not read again."""
    stamp["written"] = folder.seen_again(home, stamp["written"])
    if stamp != folder.read_stamp(home):
        folder.begin(building, [])
        folder.write_stamp(building, home, stamp)
        folder.clear(building)
