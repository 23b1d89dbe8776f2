"""Trained embeddings as FuxiCTR's `pretrained_emb`: an h5 file with `key` and `value`.

    feature_cols:
      - {name: item_id, ..., pretrained_emb: mine_item_id.h5, pretrain_dim: 10, freeze_emb: False,
         pretrain_usage: init}

in the dataset config of any FuxiCTR model starts its table from such a file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import torch
from fuxictr.pytorch.models import BaseModel

from fuxictr_miss.behavior import main_tables, side_by_side
from fuxictr_miss.errors import InputError

_NO_TOKENS = ("__PAD__", "__OOV__")


def export_embeddings(model: BaseModel, path: str | Path) -> list[Path]:
    """Write every embedding table of a trained model, enhanced or not.

    FuxiCTR reads one file a feature: `FILE.h5` becomes `FILE_<feature>.h5`, one for each table. A
    table that a history shares with its target is written once, under the target. Padding and the
    row for unknown tokens are left out.

    Args:
        model: built on a data set whose folder still holds `feature_vocab.json`.
        path: ends in ".h5".

    Returns:
        The files.

    Raises:
        InputError: another ending, no vocabulary or no table there, or a file cannot be written.
    """
    path = checked(path)
    feature_map = model.feature_map
    vocabulary_file = Path(feature_map.data_dir) / "feature_vocab.json"
    try:
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The model's vocabulary cannot be read: {error}.") from error
    embedded = [name for name in feature_map.features if name in vocabulary]
    sequences = [name for name in embedded if feature_map.features[name]["type"] == "sequence"]
    layers = [
        model.get_submodule(place).embedding_layers
        for place in main_tables(model, sequences or embedded)
    ]
    if not layers:
        raise InputError(f"{type(model).__name__} has no embedding table to export.")
    written: dict[int, Path] = {}
    for name in embedded:
        if name in layers[0] and id(layers[0][name]) not in written:
            ids = {t: i for t, i in vocabulary[name].items() if t not in _NO_TOKENS}
            table = side_by_side([layer[name] for layer in layers])
            with torch.no_grad():
                vectors = table(torch.tensor(list(ids.values()), device=model.device))
            file = path.with_name(f"{path.stem}_{name}.h5")
            _write(file, list(ids), vectors.cpu().numpy())
            written[id(layers[0][name])] = file
    return list(written.values())


def checked(path: str | Path) -> Path:
    """The path, if its ending is the one by which FuxiCTR knows the format.

    Raises:
        InputError: it is not.
    """
    if Path(path).suffix != ".h5":
        raise InputError(f"Embeddings go to a file that ends in .h5, got {str(path)!r}.")
    return Path(path)


def _write(file: Path, tokens: list[str], vectors: np.ndarray) -> None:
    unfinished = file.with_name(f"{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(unfinished, "w") as content:
            content["key"] = _keys(tokens)
            content["value"] = vectors
        os.replace(unfinished, file)
    except OSError as error:
        if unfinished.exists():
            unfinished.unlink()
        raise InputError(f"Cannot write {file}: {error}.") from error


def _keys(tokens: list[str]) -> np.ndarray:
    """Bytes; FuxiCTR takes those for ASCII, so others go as NumPy's text, which h5py wraps."""
    keys = np.array(tokens)
    if all(token.isascii() for token in tokens):
        return keys.astype("S")
    return keys.astype(h5py.opaque_dtype(keys.dtype))
