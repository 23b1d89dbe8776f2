"""Score raw rows with an exported model: numpy, polars and ONNX Runtime, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl

from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.serving.encode import Encoder
from fuxictr_miss.serving.rows import as_frame
from fuxictr_miss.serving.vocabulary import AGAIN, check_file, read_vocabulary

_ROWS_AT_ONCE = 2048  # with histories of 3,000 items, some 300 MB


class Scorer:
    """An exported model, open for raw rows.

    Args:
        folder: what `fuxictr-miss export` wrote.
        threads: of the model.

    Attributes:
        inputs: the model's, by name.
        outputs: the model's, by name: y_pred, or one of each task.
        columns: the raw columns that rows must have.
        unknown: of each column of ids, how many were unknown to the model so far; each of them was
            scored by the row of the embedding table that is for unknown ids.

    Raises:
        InputError: the folder is no such artefact, or a file of it is damaged.

    Example:
        >>> import fuxictr_miss as fm
        >>> from fuxictr_miss.config import load_config
        >>> from fuxictr_miss.experiment import load_trained
        >>> model = load_trained(load_config("config", "DIN_MISS_demo"))  # after `make demo`
        >>> scorer = fm.serving.Scorer(fm.serving.export(model, "to_score"))
        >>> row = {"user_id": "new", "item_id": None, "cate_id": None}
        >>> row |= {"item_history": "", "cate_history": []}
        >>> scorer.score([row]).shape
        (1,)
        >>> scorer.unknown["user_id"]
        1
    """

    def __init__(self, folder: str | Path, threads: int = 1) -> None:
        self.folder = Path(folder)
        content = read_vocabulary(self.folder)
        check_file(self.folder, content, "model.onnx")
        self._session = _session(self.folder / "model.onnx", threads)
        what = f"{self.folder / 'vocab.json'} is damaged"
        with explained((KeyError, TypeError, ValueError, pl.exceptions.PolarsError), what, AGAIN):
            self.outputs = list(content["outputs"])
            inputs = {each["name"]: each for each in content["inputs"]}
            self._check_model(inputs)
            self.inputs = [each.name for each in self._session.get_inputs()]
            read = [inputs[name] for name in self.inputs]
            self._encoder = Encoder(read, content["vocabularies"])
        self.columns = self._encoder.columns
        self.unknown = self._encoder.unknown

    def score(self, rows: Any) -> Any:
        """Probabilities of raw rows.

        Args:
            rows: a polars or pandas data frame, a list of dicts, or a dict of columns. A history is
                text, joined as the training's, or a list; the oldest item comes first. Labels and
                other columns may be among them.

        Returns:
            (B,) float32; of several tasks {name: (B,)}.

        Raises:
            InputError: a column is missing, or a row, which is named, cannot be read.
        """
        frame = as_frame(rows, self.columns)
        scores = self.score_frame(frame)
        return scores if len(self.outputs) > 1 else scores[self.outputs[0]]

    def score_frame(
        self, rows: pl.DataFrame, place: str = "", before: int = 0
    ) -> dict[str, np.ndarray]:
        """The outputs, (B,) each, of a part of some rows.

        Args:
            rows: raw.
            place: of the rows, at the start of an error's sentence, such as "new.csv, ".
            before: how many rows stand before these, for the row that an error names.
        """
        parts = [
            self._scored(part, place, before + start)
            for start in range(0, len(rows), _ROWS_AT_ONCE)
            for part in [rows.slice(start, _ROWS_AT_ONCE)]
        ] or [dict.fromkeys(self.outputs, np.empty(0, np.float32))]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _scored(self, rows: pl.DataFrame, place: str, before: int) -> dict[str, np.ndarray]:
        outputs = self.run(self._encoder.encode(rows, place, before))
        for name, each in outputs.items():
            if not np.isfinite(each).all():
                row = int(np.flatnonzero(~np.isfinite(each))[0])
                raise InputError(
                    f"{place}row {before + row + 1}: the model's {name} is {each[row]}, no "
                    "probability: is a number in this row far out of the training's range?"
                )
        return outputs

    def encode(self, rows: Any) -> dict[str, np.ndarray]:
        """The model's inputs of raw rows, for another runtime: (B,) or (B, max_len) each."""
        return self._encoder.encode(as_frame(rows, self.columns))

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The model's outputs of encoded rows, (B,) each."""
        outputs = self._session.run(self.outputs, dict(inputs))
        return {name: each.reshape(-1) for name, each in zip(self.outputs, outputs, strict=True)}

    def _check_model(self, inputs: Mapping[str, Mapping[str, Any]]) -> None:
        """Whether the model is the one that the vocabulary is of."""
        place = self.folder / "model.onnx"
        produced = [each.name for each in self._session.get_outputs()]
        if set(self.outputs) - set(produced):
            raise InputError(
                f"{place} has the outputs {', '.join(produced)}, where vocab.json names "
                f"{', '.join(self.outputs)}: {AGAIN}."
            )
        for each in self._session.get_inputs():
            spec = inputs.get(each.name)
            if spec is None:
                raise InputError(
                    f"{place} reads {each.name!r}, which vocab.json does not name: {AGAIN}."
                )
            length = spec["max_len"] if spec["type"] == "sequence" else None
            wanted = "tensor(float)" if spec["type"] == "numeric" else "tensor(int64)"
            if each.type != wanted or list(each.shape[1:]) != [length] * (length is not None):
                raise InputError(
                    f"{place} reads {each.name!r} as {each.type} of {each.shape}, which is not "
                    f"what vocab.json says: {AGAIN}."
                )


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    with explained(Exception, f"{path} cannot be read", AGAIN):  # it has no class for its errors
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
