"""Export trained embeddings as FuxiCTR's `pretrained_emb`: h5 files with `key` and `value`.

    feature_cols:
      - {name: item_id, ..., pretrained_emb: mine_item_id.h5, pretrain_dim: 10, freeze_emb: False,
         pretrain_usage: init}

in a dataset config initializes the feature's table from such a file, in any FuxiCTR model.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from fuxictr.pytorch.models import BaseModel

from fuxictr_miss.config.feature_names import names_of
from fuxictr_miss.data.encoded import numbered_ids
from fuxictr_miss.data.folder import FEATURE_MAP
from fuxictr_miss.embeddings import main_tables, side_by_side
from fuxictr_miss.errors import InputError
from fuxictr_miss.files import atomic_write, writable
from fuxictr_miss.text.id_text import RESERVED
from fuxictr_miss.training.checkpoint import data_of

_MARK = ("written_by", "fuxictr_miss")  # an attribute that marks our files; FuxiCTR ignores it


def export_embeddings(model: BaseModel, path: str | Path) -> list[Path]:
    """Write every embedding table of a trained model, enhanced or not.

    FuxiCTR reads one file per feature, so `FILE.h5` becomes `FILE_<feature>.h5`, one per table. A
    table that a history shares with its target is written once, under the target's name. The rows
    for padding and unknown tokens are left out.

    Args:
        model: the folder of its encoded data must still have `feature_vocab.json`.
        path: ends in ".h5".

    Returns:
        The paths of the files.

    Raises:
        InputError: the suffix is not .h5, the vocabulary is missing, the model has no embedding
            table, or a file belongs to someone else or cannot be written.

    Example:
        >>> from fuxictr_miss.config import load_config
        >>> from fuxictr_miss.experiment import load_trained
        >>> model = load_trained(load_config("config", "DIN_MISS_demo"))  # after `make demo`
        >>> [file.name for file in export_embeddings(model, "embeddings/demo.h5")]
        ['demo_user_id.h5', 'demo_item_id.h5', 'demo_cate_id.h5']
    """
    path = check_embeddings_path(path)
    feature_map = model.feature_map
    vocabulary = numbered_ids(Path(feature_map.data_dir), "build the data set again")
    embedded = [name for name in feature_map.features if name in vocabulary]
    sequences = [name for name in embedded if feature_map.features[name]["type"] == "sequence"]
    layers = [
        model.get_submodule(place).embedding_layers
        for place in main_tables(model, sequences or embedded)
    ]
    if not layers:
        raise InputError(f"{type(model).__name__} has no embedding table to export.")
    tables: dict[int, str] = {}
    for name in embedded:
        if name in layers[0]:
            tables.setdefault(id(layers[0][name]), name)
    files = {name: _file_of(path, name) for name in tables.values()}
    for file in files.values():
        _refuse_foreign_file(file)
    with ExitStack() as whole, torch.no_grad():  # all files or none
        for name, file in files.items():
            ids = {t: i for t, i in vocabulary[name].items() if t not in RESERVED}
            table = side_by_side([layer[name] for layer in layers])
            vectors = table(torch.tensor(list(ids.values()), device=model.device))
            content = _h5(list(ids), vectors.cpu().numpy(), data_of(model))
            whole.enter_context(atomic_write(file)).write_bytes(content)
    return list(files.values())


def export_backbone(model: BaseModel, folder: Path) -> list[Path]:
    """Write the plain backbone of a trained model and its feature map.

    Args:
        model: enhanced or plain.
        folder: new or empty.

    Returns:
        The paths of `<model>.model` and `feature_map.json`. The first is a state_dict that loads
        strictly into FuxiCTR's class of that name built with the second.

    Raises:
        InputError: the folder is not empty, or cannot be written.

    Example:
        >>> from fuxictr_miss.config import load_config
        >>> from fuxictr_miss.experiment import load_trained
        >>> model = load_trained(load_config("config", "DIN_MISS_demo"))  # after `make demo`
        >>> [file.name for file in export_backbone(model, Path("exported"))]
        ['DIN.model', 'feature_map.json']
    """
    check_new(folder)
    plain = model.to_backbone() if hasattr(model, "to_backbone") else model
    files = [folder / f"{type(plain).__name__}.model", folder / FEATURE_MAP]
    weights = io.BytesIO()  # on a full disk torch and h5py do not say so, or end the process
    torch.save(plain.state_dict(), weights)
    with ExitStack() as whole:
        whole.enter_context(atomic_write(files[0])).write_bytes(weights.getbuffer())
        plain.feature_map.save(str(whole.enter_context(atomic_write(files[1]))))
    return files


def check_new(folder: Path) -> None:
    """Refuse a folder that is not empty.

    Raises:
        InputError: it is not empty, is a file, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder: name another.")
    if not writable(folder):
        raise InputError(f"{folder} cannot be written: name another folder.")


def check_embeddings_path(path: str | Path, feature_cols: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Check, before training, that `export_embeddings` can write to `path`.

    Args:
        path: FILE.h5.
        feature_cols: of the experiment's config. A feature's file may exist only if we wrote it
            and it is not the `pretrained_emb` of one of them.

    Returns:
        `path` as a `Path`.

    Raises:
        InputError: the suffix is not .h5, the folder cannot be written, or a file would be lost.
    """
    path = Path(path)
    if path.suffix != ".h5":
        raise InputError(f"The path of the embeddings must end in .h5, got {str(path)!r}.")
    if not writable(path.parent):
        raise InputError(f"Embeddings cannot be written to {path.parent}: name another folder.")
    columns = [each for each in feature_cols if each.get("active", True)]
    starts = {Path(c["pretrained_emb"]).resolve() for c in columns if c.get("pretrained_emb")}
    for column in columns:
        if column.get("type") in ("categorical", "sequence") and not column.get("share_embedding"):
            names = names_of(column)
            if odd := next((name for name in names if "/" in name), None):
                raise InputError(f"{odd!r} has a slash, so no file can have its name: rename it.")
            for file in (_file_of(path, name) for name in names):
                _refuse_foreign_file(file)
                if file.resolve() in starts:
                    raise InputError(
                        f"{file} is the pretrained_emb that this experiment starts from: give "
                        "--export-embeddings another name."
                    )
    return path


def _file_of(path: Path, feature: str) -> Path:
    return path.with_name(f"{path.stem}_{feature}.h5")


def _refuse_foreign_file(file: Path) -> None:
    if not file.exists():
        return
    try:
        with h5py.File(file) as content:
            ours = content.attrs.get(_MARK[0]) == _MARK[1]
    except OSError:
        ours = False
    if not ours:
        raise InputError(
            f"{file} was not written by --export-embeddings: move it, or give another name."
        )


def _h5(tokens: list[str], vectors: np.ndarray, data: str) -> bytes:
    """The bytes of a file."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as content:
        content.attrs[_MARK[0]] = _MARK[1]
        content.attrs["data"] = data  # digest of the encoded data that the vectors were trained on
        content["key"] = _keys(tokens)
        content["value"] = vectors
    return memory.getvalue()


def _keys(tokens: list[str]) -> np.ndarray:
    """Tokens as bytes if all are ASCII, as FuxiCTR decodes them, else as NumPy text for h5py."""
    keys = np.array(tokens)
    if all(token.isascii() for token in tokens):
        return keys.astype("S")
    return keys.astype(h5py.opaque_dtype(keys.dtype))
