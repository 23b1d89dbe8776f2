"""Start a training from an exported artefact: known ids keep their vectors, new ones are fresh."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.data.encoded import numbered_ids
from fuxictr_miss.data.folder import VOCABULARY
from fuxictr_miss.embeddings import id_tables
from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.mixin import backbone_of
from fuxictr_miss.self_supervision import PART, contrast_of, self_supervision_of
from fuxictr_miss.serving.vocabulary import AGAIN, check_file, read_vocabulary
from fuxictr_miss.text.id_text import RESERVED

log = logging.getLogger(__name__)

_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, AttributeError, TypeError)


class Artefact(NamedTuple):
    """What a training takes over of an exported folder."""

    folder: Path
    model: str  # the backbone's name
    weights: dict[str, Tensor]
    vocabularies: dict[str, dict[str, Any]]  # of each feature: `oov` and `ids`
    digest: str  # of all of this


class MovedRows(NamedTuple):
    """Which rows of an old table become which of the new one."""

    old: Tensor
    new: Tensor


def read_artefact(folder: str | Path) -> Artefact:
    """Read the weights and the vocabularies of an exported artefact.

    Args:
        folder: what `fuxictr-miss export --output` wrote.

    Raises:
        InputError: it is no artefact, or of another version.
    """
    folder = Path(folder)
    for name in ("vocab.json", "model.pt2"):
        if not (folder / name).is_file():
            raise InputError(
                f"--init-from: {folder} is no exported artefact, as it has no {name}: name a "
                "folder that fuxictr-miss export --output has written."
            )
    content = read_vocabulary(folder)
    with explained(_UNREADABLE, f"{folder / 'vocab.json'} is damaged", AGAIN):
        known = content["vocabularies"]
        vocabularies = {
            each["name"]: known[each["vocabulary"]]
            for each in content["inputs"]
            if "vocabulary" in each
        }
        model = str(content["model"])
    check_file(folder, content, "model.pt2")
    weights = _weights_in(folder / "model.pt2")
    digest = hashlib.blake2b(json.dumps([model, vocabularies]).encode(), digest_size=8)
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(weight.contiguous().numpy().tobytes())
    return Artefact(folder, model, weights, vocabularies, digest.hexdigest())


def _weights_in(path: Path) -> dict[str, Tensor]:
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it logs the traceback of an error that it raises anyway
    try:
        with explained(Exception, f"{path} cannot be read", AGAIN):
            state = torch.export.load(path).state_dict
    finally:
        logger.setLevel(level)
    return {name: weight.detach() for name, weight in state.items()}


def start_from(model: BaseModel, artefact: Artefact) -> None:
    """Take over the weights of an artefact, whose ids may have other numbers, and log how many.

    In every table, ids of both vocabularies get their old vectors, and so do padding and unknown
    ids; new ones keep their initial values, and old ones that are gone are dropped. All other
    weights of the backbone are taken over as they are; those of a method stay fresh.

    Args:
        model: untrained, enhanced or plain.
        artefact: of the same backbone with the same layers.

    Raises:
        InputError: the artefact is of another backbone, or a weight has another shape; or the
            training would overwrite the tables at once.
    """
    _check_kind(model, artefact)
    features = _features_of_tables(model)
    rows = _rows(model, artefact, set(features.values()))
    weights = _weights(model, artefact)
    misfits = [f"{name} is there only" for name in artefact.weights if name not in weights]
    for name, (value, old) in weights.items():
        feature = features.get(id(value))
        if feature is None or feature in rows:
            misfits += _misfits(name, value, old, rows[feature] if feature else None)
    if misfits:
        raise InputError(
            f"--init-from: {artefact.folder} does not fit {type(model).__name__}: "
            f"{'; '.join(misfits[:3])}. Use the features, embedding_dim and layers of the "
            "exported model, or start without it."
        )
    with torch.no_grad():
        for value, old in weights.values():
            feature = features.get(id(value))
            if feature is None:
                value.copy_(old)
            elif feature in rows:  # else the exported model does not read it
                value[rows[feature].new.to(value.device)] = old[rows[feature].old].to(value)
    if ssl := self_supervision_of(model):
        ssl.warm = True


def _weights(model: BaseModel, artefact: Artefact) -> dict[str, tuple[Tensor, Tensor]]:
    """The backbone's weights by name, and the artefact's; of a shared one, any of its names.

    Raises:
        InputError: the artefact lacks one.
    """
    own = {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if not name.startswith(f"{PART}.")
    }
    old = {
        id(value): artefact.weights[name] for name, value in own.items() if name in artefact.weights
    }
    missing = [name for name, value in own.items() if id(value) not in old]
    if missing:
        raise InputError(
            f"--init-from: {artefact.folder} has no {missing[0]}, which {type(model).__name__} "
            "has with this config: use the features and layers of the exported model, or start "
            "without it."
        )
    return {name: (value, old[id(value)]) for name, value in own.items()}


def _misfits(name: str, value: Tensor, old: Tensor, rows: MovedRows | None) -> list[str]:
    """Why a weight cannot be taken over; [] if it can."""
    there, here = list(old.shape), list(value.shape)
    if rows is not None and there[1:] == here[1:] and int(rows.old.max()) < len(old):
        return []
    return [] if there == here else [f"{name} is {_shape(old)} there and {_shape(value)} here"]


def _check_kind(model: BaseModel, artefact: Artefact) -> None:
    backbone = backbone_of(type(model)).__name__
    if artefact.model != backbone:
        raise InputError(
            f"--init-from: {artefact.folder} is a {artefact.model}, not a {backbone}: export a "
            f"{backbone}, or train a {artefact.model}."
        )
    ssl = contrast_of(model)
    if ssl is not None and any(hasattr(each, "closed_form") for each in ssl.methods):
        raise InputError(
            f"--init-from: {type(model).__name__} begins with tables that are computed from the "
            f"data, so no vector of {artefact.folder} would stay: train another method."
        )


def _features_of_tables(model: BaseModel) -> dict[int, str]:
    """The feature of each weight with a row per id, by the weight's `id`; shared ones once."""
    features: dict[int, str] = {}
    for feature, table in id_tables(model):
        features.setdefault(id(table.weight), feature)
    return features


def _rows(model: BaseModel, artefact: Artefact, features: set[str]) -> dict[str, MovedRows]:
    """For each feature that the artefact knows, the rows of old ids and where they are now."""
    folder = Path(model.feature_map.data_dir)
    vocabulary = numbered_ids(folder, "encode the raw data, or start without --init-from")
    rows: dict[str, MovedRows] = {}
    logged: set[str] = set()
    for feature in model.feature_map.features:
        if feature not in features or feature not in artefact.vocabularies:
            continue
        if feature not in vocabulary:
            raise InputError(
                f"{folder / VOCABULARY} has no ids of {feature!r}: encode the data again."
            )
        old, new = artefact.vocabularies[feature], vocabulary[feature]
        ids = old["ids"]
        known = [(ids[token], number) for token, number in new.items() if token in ids]
        reserved = [(0, 0), (old["oov"], new["__OOV__"])]
        rows[feature] = MovedRows(*torch.tensor([*reserved, *known]).unbind(1))
        name = model.feature_map.features[feature].get("share_embedding", feature)
        if name not in logged:
            logged.add(name)
            _log_known(name, len(known), len(new), old, artefact.folder)
    return rows


def _log_known(name: str, known: int, size: int, old: Mapping[str, Any], folder: Path) -> None:
    size -= len(RESERVED)
    gone = len(old["ids"]) - known
    dropped = f"; {gone:,} of its ids are gone" if gone else ""
    log.info(
        "%s: %s of %s ids from %s, %s new%s.",
        name, f"{known:,}", f"{size:,}", folder, f"{size - known:,}", dropped,
    )  # fmt: skip
    if not known:
        log.warning("No id of %s is in %s: are both of the same log?", name, folder)


def _shape(weight: Tensor) -> str:
    return " x ".join(map(str, weight.shape)) or "a number"
