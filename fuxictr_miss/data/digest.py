"""One short text for encoded data: equal where features, ids, rows and vectors are equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuxictr_miss.data.folder import FEATURE_MAP, SPLITS, VOCABULARY, read_stamp, unchanged
from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import file_digest, files_at

_ROWS_AT_ONCE = 65_536
_FORMATS = ("parquet", "npz", "h5", "csv")  # FuxiCTR's


def data_digest(folder: str | Path, splits: Mapping[str, Sequence[str]] | None = None) -> str:
    """The digest of a folder of encoded data, by `build_dataset` or by FuxiCTR.

    It covers the features and their settings, the vocabularies, every value of every split, and
    the pretrained embeddings; not the folder, the data set's name, or times.

    Args:
        folder: it holds `feature_map.json`.
        splits: the files of each split; None: those that the folder holds under the usual names.

    Returns:
        16 characters. Of data that `build_dataset` wrote it was computed then; other data is read.

    Raises:
        InputError: there is no feature map, or a file cannot be read.

    Example:
        >>> from fuxictr_miss.data import data_digest
        >>> len(data_digest("data/encoded/demo"))  # after `make demo`
        16
    """
    folder = Path(folder)
    stamp = read_stamp(folder)
    if "digest" in stamp and unchanged(folder, stamp):
        return stamp["digest"]
    files = {split: _files(folder, split) for split in SPLITS} if splits is None else splits
    return digest_of(folder, {split: _split_digest(each) for split, each in files.items()})


def stamped_digest(params: Mapping[str, Any]) -> str:
    """The digest that `build_dataset` wrote, to recognise rows of other data under the same name.

    It is "" of data that FuxiCTR encoded. The same values in other files, such as those of another
    version of pyarrow, have the same one.
    """
    folder = Path(params["data_root"]) / params["dataset_id"]
    return str(read_stamp(folder).get("digest", ""))


def digest_of(folder: Path, splits: Mapping[str, str | None]) -> str:
    """The digest of a folder whose splits have these.

    Args:
        splits: {split: digest}; None where there is no such split.
    """
    feature_map = _json(folder / FEATURE_MAP)
    feature_map.pop("dataset_id", None)
    vocabulary = folder / VOCABULARY
    features = [spec for entry in feature_map.get("features", []) for spec in entry.values()]
    vectors = [spec["pretrained_emb"] for spec in features if spec.get("pretrained_emb")]
    missing = [name for name in vectors if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder / missing[0]} is not there; build the data set again.")
    content = {
        "features": feature_map,
        "vocabulary": _json(vocabulary) if vocabulary.exists() else None,
        "splits": {split: digest for split, digest in splits.items() if digest},
        "pretrained": [file_digest(folder / name) for name in vectors],
    }
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


class SplitDigest:
    """The digest of a split's columns, whatever the parts in which they come."""

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}
        self._kinds: dict[str, str] = {}

    def update(self, rows: pa.RecordBatch) -> None:
        """Add some rows."""
        for name, column in zip(rows.schema.names, rows.columns, strict=True):
            values, lengths = _values(column)
            if values.dtype == object:
                values = np.frombuffer("\0".join(map(str, [*values, ""])).encode(), np.uint8)
            hashes = self._columns.setdefault(name, (_hash(), _hash()))
            self._kinds[name] = str(values.dtype)
            hashes[0].update(np.ascontiguousarray(values).view(np.uint8))
            if lengths is not None:
                hashes[1].update(np.ascontiguousarray(lengths, np.int32).view(np.uint8))

    def hexdigest(self) -> str:
        digest = _hash()
        for name, (values, lengths) in sorted(self._columns.items()):
            parts = (name, self._kinds[name], values.hexdigest(), lengths.hexdigest())
            digest.update(json.dumps(parts).encode())
        return digest.hexdigest()


def _hash() -> Any:
    return hashlib.blake2b(digest_size=16)


def _json(path: Path) -> Any:
    with explained((OSError, ValueError), f"{path} cannot be read", "build the data set first"):
        return json.loads(path.read_text(encoding="utf-8"))


def _split_digest(files: Sequence[str]) -> str | None:
    if files and all(Path(file).suffix == ".parquet" for file in files):
        return _parquet_digest(files)
    return "".join(file_digest(file) for file in files) or None


def _files(folder: Path, split: str) -> list[str]:
    """A split's files in the first of FuxiCTR's formats that it has, or in all of the others."""
    each = [_of_format(folder, split, ending) for ending in _FORMATS]
    return each[0] or [file for files in each for file in files]


def _of_format(folder: Path, split: str, ending: str) -> list[str]:
    file = folder / f"{split}.{ending}"
    place = file if file.exists() else folder / split
    return files_at(place, ending) if file.exists() or place.is_dir() else []


def _parquet_digest(files: Sequence[str]) -> str:
    digest = SplitDigest()
    for path in files:
        what = f"{path} cannot be read as parquet"
        with (
            explained((OSError, pa.ArrowException), what, "build the data set again"),
            pq.ParquetFile(path) as file,
        ):
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                digest.update(batch)
    return digest.hexdigest()


def _values(column: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of all rows in one, and of a column of lists their lengths."""
    if not pa.types.is_nested(column.type):
        return column.to_numpy(zero_copy_only=False), None
    if pa.types.is_fixed_size_list(column.type):
        lengths = np.full(len(column), column.type.list_size)
    else:
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy(zero_copy_only=False), lengths
