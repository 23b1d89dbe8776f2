"""Files of pretrained embeddings, as FuxiCTR's `pretrained_emb` names them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuxictr.preprocess.tokenizer import load_pretrain_emb

from fuxictr_miss.errors import InputError, explained, unknown
from fuxictr_miss.fuxictr_fixes.feature_processor import FROM_PACKAGE

log = logging.getLogger(__name__)

_USAGES = ("init", "sum", "concat")
_ENDINGS = (".h5", ".npz", *([".parquet"] if FROM_PACKAGE else []))  # that FuxiCTR reads
_FEW = 0.05  # of the vocabulary's tokens: below it a warning


def pretrained_files(columns: list[dict[str, Any]]) -> dict[str, str]:
    """Of each feature that starts from a file, that file."""
    return {
        column["name"]: str(column["pretrained_emb"])
        for column in columns
        if column.get("pretrained_emb")
    }


def written_name(feature: str, file: str) -> str:
    """What FuxiCTR calls its copy of the file, beside the encoded data."""
    return f"pretrained_{feature}{Path(file).suffix}"


def check_pretrained(column: Mapping[str, Any], default_dim: Any) -> None:
    """Whether a file holds one finite vector a token, of the width that the config says.

    Args:
        column: with `pretrained_emb`.
        default_dim: the model's `embedding_dim`: FuxiCTR's width where `pretrain_dim` is not set.

    Raises:
        InputError: names the file and what it holds.
    """
    name, file = column["name"], str(column["pretrained_emb"])
    if column["type"] not in ("categorical", "sequence"):
        raise InputError(f"Feature {name!r} is {column['type']}: only ids take a pretrained_emb.")
    if "/" in name or "\\" in name:
        raise InputError(f"Feature {name!r} cannot have a pretrained_emb: rename it without '/'.")
    if (usage := column.get("pretrain_usage", "init")) not in _USAGES:
        raise unknown(f"pretrain_usage of {name!r}:", usage, _USAGES)
    if Path(file).suffix not in _ENDINGS:
        raise InputError(
            f"Feature {name!r}: pretrained_emb must end in {', '.join(_ENDINGS)}; got {file!r}."
        )
    if not Path(file).is_file():
        raise InputError(
            f"The pretrained_emb of {name!r} is not there: {file}. Write it with "
            "run_expid.py --export-embeddings, or remove the key."
        )
    keys, vectors = _read(file)
    if keys.ndim != 1 or vectors.ndim != 2 or len(keys) != len(vectors):
        raise InputError(
            f"{file} must hold one key and one vector a token: 'key' has the shape {keys.shape}, "
            f"'value' {vectors.shape}."
        )
    dim = column.get("pretrain_dim") or column.get("embedding_dim") or default_dim
    if dim is not None and vectors.shape[1] != dim:
        raise InputError(
            f"{file} holds vectors of width {vectors.shape[1]}, but {name!r} expects {dim}: set "
            f"pretrain_dim: {vectors.shape[1]}."
        )
    if not len(keys):
        raise InputError(f"{file} holds no vector; write it again or remove pretrained_emb.")
    tokens = _text(keys, file)
    if not np.issubdtype(vectors.dtype, np.number):
        raise InputError(f"{file}: 'value' holds {vectors.dtype}, not numbers.")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise InputError(
            f"{file}: the vector of {str(tokens[bad[0]])!r} is not finite ({len(bad)} are not); "
            "remove these tokens or write the file again."
        )
    different, times = np.unique(tokens, return_counts=True)
    if len(different) < len(tokens):
        twice = str(different[times.argmax()])
        raise InputError(f"{file} holds {twice!r} {times.max()} times; keep one vector a token.")


def check_overlap(feature: str, file: str, vocabulary: Mapping[Any, int], oov: int) -> None:
    """Whether the tokens of the data have a vector in the file.

    Args:
        vocabulary: ids of tokens; those of the file alone are above `oov`.

    Raises:
        InputError: none has.
    """
    seen = {str(token) for token, number in vocabulary.items() if 0 < number < oov}
    known = set(_text(_read(file)[0], file).tolist())
    share = len(seen & known) / max(1, len(seen))
    if not share:
        raise InputError(
            f"{file} has no token in common with {feature!r}: it holds {min(known)!r}, the data "
            f"{min(seen, default='')!r}. Export the embeddings of this data set's ids."
        )
    level = logging.WARNING if share < _FEW else logging.INFO
    log.log(level, "%s: %.1f%% of the tokens of %s have a vector.", file, 100 * share, feature)


def _read(file: str) -> tuple[np.ndarray, np.ndarray]:
    # whatever h5py, NumPy and polars raise for a file that is not one
    what = f"{file} cannot be read as embeddings with 'key' and 'value'"
    with explained(Exception, what, "write it again, or remove pretrained_emb"):
        keys, vectors = load_pretrain_emb(file, keys=["key", "value"])
    return np.asarray(keys), np.asarray(vectors)


def _text(keys: np.ndarray, file: str) -> np.ndarray:
    """Keys as FuxiCTR reads them."""
    try:
        return keys.astype(str)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: FuxiCTR takes keys in bytes for ASCII, and {error.object!r} is not; write "
            "them as NumPy text."
        ) from error
