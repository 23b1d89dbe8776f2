"""Write a trained model as an artefact: all that scoring of raw rows needs, in one folder."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.pytorch.models import BaseModel

from fuxictr_miss.config import Config
from fuxictr_miss.data.folder import FEATURE_MAP
from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.export import check_new
from fuxictr_miss.serving.card import card
from fuxictr_miss.serving.program import (
    lengths_are_fixed,
    onnx_model,
    predictions,
    quantize_tables,
    save_onnx,
    save_program,
    traced,
)
from fuxictr_miss.serving.raw_inputs import columns_of, raw_inputs
from fuxictr_miss.serving.sample import Sample
from fuxictr_miss.serving.scorer import Scorer
from fuxictr_miss.serving.vocabulary import FORMAT, digests_of
from fuxictr_miss.training.checkpoint import data_of
from fuxictr_miss.traits import possible_traits

_MODELS = ("model.onnx", "model.pt2")
_TOLERANCE = 1e-4  # between PyTorch and ONNX Runtime; usually it is below 1e-6


def export(
    model: BaseModel,
    folder: str | Path,
    config: Config | Mapping[str, Any] | None = None,
    quantize: bool = False,
) -> Path:
    """Write the plain backbone of a trained model, and how its raw rows are encoded.

    `Scorer` scores raw rows with the folder, without PyTorch. It holds `model.onnx`, `model.pt2`,
    `feature_map.json`, `vocab.json`, `card.md` and `sample.json`, and is written whole or not at
    all. It is read once before: on raw rows of the splits, it must give PyTorch's predictions.

    Args:
        model: enhanced or plain, with the folder of its encoded data still in place.
        folder: new or empty.
        config: of the experiment. It is needed only if somebody else encoded the data, for the
            types and splitters in its `feature_cols`.
        quantize: hold the embedding tables of `model.onnx` as int8.

    Returns:
        The folder.

    Raises:
        InputError: the model, or a column of its data, cannot be exported; or the folder is not
            empty or cannot be written.

    Example:
        >>> import fuxictr_miss as fm
        >>> from fuxictr_miss.config import load_config
        >>> from fuxictr_miss.experiment import load_trained
        >>> model = load_trained(load_config("config", "DIN_MISS_demo"))  # after `make demo`
        >>> sorted(file.name for file in fm.serving.export(model, "served").iterdir())[:3]
        ['card.md', 'feature_map.json', 'model.onnx']
    """
    folder = Path(folder)
    check_new(folder)
    with _backbone(model) as plain, torch.no_grad():
        traits = possible_traits(type(plain))[0]
        columns = columns_of(plain.feature_map, None if config is None else Config.of(config))
        sample = Sample(plain.feature_map)
        sides = sample.sides(plain.feature_map, traits.padding, foreign=not columns)
        raw = raw_inputs(plain.feature_map, columns, sides)
        few = {name: values[:4] for name, values in sample.columns.items()}
        expected = predictions(plain, sample.columns)
        if taken := [name for name in sample.columns if name in expected]:
            raise InputError(
                f"The feature {taken[0]!r} has the name of a prediction: rename the column, in the "
                "data and in the config, and train again."
            )
        program = traced(plain, few, traits.trim)
        as_onnx = onnx_model(plain, few)
        read = [value.name for value in as_onnx.graph.inputs]
        raw, sample.columns = raw.of(read), {name: sample.columns[name] for name in read}
        if len(read) < len(few):
            program = traced(plain, {name: few[name] for name in read}, traits.trim)
        if quantize:
            quantize_tables(as_onnx)
        with _whole(folder) as place:
            save_onnx(as_onnx, place / "model.onnx")
            save_program(program, place / "model.pt2")
            plain.feature_map.save(str(place / FEATURE_MAP))
            vocabulary = {
                "format": FORMAT,
                "model": type(plain).__name__,
                "dataset_id": plain.feature_map.dataset_id,
                "data": data_of(model),
                "outputs": list(expected),
                "files": digests_of(place, list(_MODELS)),
                **raw._asdict(),
            }
            _write_json(place / "vocab.json", vocabulary)
            scorer = Scorer(place)
            moved = _check_predictions(scorer, sample, expected, quantize)
            shown = {"rows": sample.raw(raw)}
            shown["scores"] = _check_rows(scorer, sample, shown["rows"])
            _write_json(place / "sample.json", shown)
            notes = _notes(place, program, moved, quantize)
            page = card(model, vocabulary, shown, notes, folder)
            (place / "card.md").write_text(page, encoding="utf-8")
    return folder


@contextmanager
def _backbone(model: BaseModel) -> Iterator[BaseModel]:
    """The plain backbone on the CPU, in eval() for the block."""
    plain = model.to_backbone() if hasattr(model, "to_backbone") else model
    if plain.device.type != "cpu":
        plain = copy.deepcopy(plain) if plain is model else plain
        plain.device = torch.device("cpu")  # where it puts its inputs
        plain.to(plain.device)
    was_training = plain.training
    try:
        yield plain.eval()
    finally:
        plain.train(was_training)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` if nothing fails.

    An empty one that is there may be a mount or somebody's working folder: it is kept and filled.
    """
    home = Path(os.path.realpath(folder))
    fill, name = home.is_dir(), f".{home.name}.{os.getpid()}.tmp"
    unfinished = home / name if fill else home.with_name(name)
    with explained(OSError, f"Cannot write {folder}", "free some space or name another folder"):
        home.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
        try:
            yield unfinished
            if fill:
                if os.listdir(home) != [name]:  # somebody was quicker
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
                for file in sorted(os.listdir(unfinished), key="vocab.json".__eq__):  # it the last
                    os.replace(unfinished / file, home / file)
            else:
                os.replace(unfinished, home)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _check_predictions(
    scorer: Scorer, sample: Sample, expected: Mapping[str, np.ndarray], quantized: bool
) -> float:
    """How far ONNX Runtime's predictions of encoded rows are from PyTorch's."""
    moved = 0.0
    if odd := next((name for name, y in expected.items() if not np.isfinite(y).all()), None):
        raise InputError(
            f"The model's {odd} of the {sample.split} split is not a number in some row: its "
            "training diverged, or a number of the row is far out of the training's range."
        )
    for rows in (1, 2, sample.rows):
        found = scorer.run(sample.arrays(rows))
        moved = max(moved, *(_difference(found[n], y[:rows]) for n, y in expected.items()))
    if moved > _TOLERANCE and not quantized:
        raise InputError(
            f"model.onnx moves a prediction of the {sample.split} split by {moved:.2g}: serve this "
            "model by --backbone and FuxiCTR."
        )
    return moved


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest between two arrays; infinite where only one is NaN."""
    both = np.isnan(one) & np.isnan(other)
    return float(np.nan_to_num(np.where(both, 0, abs(one - other)), nan=np.inf).max())


def _check_rows(scorer: Scorer, sample: Sample, rows: list[dict[str, Any]]) -> Any:
    """The scores of raw rows, which must be encoded as the first rows of the split were."""
    for name, values in scorer.encode(rows).items():
        trained = sample.arrays(len(rows))[name]
        same = np.isclose(values, trained) if values.dtype == np.float32 else values == trained
        wrong = np.flatnonzero(~same.reshape(len(rows), -1).all(axis=1))
        if len(wrong):
            raise InputError(
                f"Row {wrong[0] + 1} of the {sample.split} split is encoded in column {name!r} as "
                f"{values[wrong[0]]}, and was in training as {trained[wrong[0]]}: build the data "
                "set again and train on it."
            )
    scores = scorer.score(rows)
    if isinstance(scores, dict):
        return {name: each.tolist() for name, each in scores.items()}
    return scores.tolist()


def _notes(place: Path, program: Any, moved: float, quantized: bool) -> dict[str, str]:
    """What the card says of the two models."""
    size = {name: f"{(place / name).stat().st_size / 1e6:,.1f} MB" for name in _MODELS}
    tables = "embedding tables in int8" if quantized else "float32"
    lengths = "max_len items" if lengths_are_fixed(program) else "up to max_len items"
    return {
        "model.onnx": f"{size['model.onnx']}, {tables}, histories of max_len items; predictions "
        f"within {moved:.2g} of PyTorch's",
        "model.pt2": f"{size['model.pt2']}, float32, histories of {lengths}",
    }
