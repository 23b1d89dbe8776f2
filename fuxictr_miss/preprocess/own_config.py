"""A config for the splits of one's own log: the data set, and DIN and PNN with _MISS and _PPMI.

What is written stands between two comments, the first with its digest. A later run replaces it only
while it is as it was written; all else in the files stays as it is.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fuxictr_miss.config import load_config
from fuxictr_miss.config.feature_names import check_feature_name
from fuxictr_miss.config.yaml_files import read_entries, read_values
from fuxictr_miss.errors import InputError
from fuxictr_miss.files import atomic_write, writable
from fuxictr_miss.preprocess.instances import history_name
from fuxictr_miss.preprocess.protocol import SPLITS

_MODELS = """\
_{name}: &{name}
  dataset_id: {id}
  model_root: checkpoints/
  task: binary_classification
  loss: binary_crossentropy
  metrics: [AUC, logloss]
  monitor: AUC
  monitor_mode: max
  optimizer: adam
  learning_rate: 1.0e-3
  batch_size: 128
  embedding_dim: 10
  epochs: 30
  early_stop_patience: 3
  reduce_lr_on_plateau: False
  seed: 2021
  verbose: 1

DIN_{name}: &DIN_{name}
  <<: *{name}
  model: DIN
  dnn_hidden_units: [40, 40, 40]
  attention_hidden_units: [40]
  din_use_softmax: True

DIN_MISS_{name}: {{<<: *DIN_{name}, model: DIN_MISS}}
DIN_PPMI_{name}: {{<<: *DIN_{name}, model: DIN_PPMI}}

PNN_{name}: &PNN_{name}
  <<: *{name}
  model: PNN
  hidden_units: [40, 40, 40]
  product_type: inner

PNN_MISS_{name}: {{<<: *PNN_{name}, model: PNN_MISS}}
PNN_PPMI_{name}: {{<<: *PNN_{name}, model: PNN_PPMI}}
"""
_BEGIN = (
    "# --- {name}, by fuxictr-miss preprocess, which replaces this if it is unchanged: {digest}\n"
)
_END = "# --- end of {name}\n"


@dataclass(frozen=True)
class OwnConfig:
    """Entries of a config folder.

    Args:
        folder: of the config; it need not exist.
        name: of the data set.
        splits: their folder.
        attributes: of the item.
        max_len: of a history.
        in_parts: whether each split is a folder of files.
    """

    folder: Path
    name: str
    splits: Path
    attributes: Sequence[str]
    max_len: int
    in_parts: bool

    def check(self, context: Sequence[str]) -> None:
        """Refuse what could not be written, before a log is read.

        Args:
            context: columns of a row.

        Raises:
            InputError: the name or a column's is none that a config can have; the folder cannot be
                written; an entry of this name is there that is not as an earlier run wrote it.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", self.name):
            raise InputError(
                f"--name {self.name!r} must be at most 100 letters, digits, _ and -, the first a "
                "letter or digit."
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"--config-folder {self.folder} is a file. Name a folder.")
        if not writable(self.folder):
            raise InputError(f"--config-folder {self.folder} cannot be written. Name another one.")
        for column in (*self.attributes, *context):
            check_feature_name(column)
        self._texts({column: {"type": "categorical"} for column in context})

    def write(self, context: Mapping[str, Mapping[str, Any]]) -> None:
        """Write all entries or none, and print the command that trains on them.

        Args:
            context: of each column of a row its `type`, and of a numeric one how many values are
                `missing` and the `median_of_train`.

        Raises:
            InputError: as `check` does, if the folder has changed since.
        """
        texts = self._texts(context)
        with ExitStack() as all_or_none:
            for path, text in texts.items():
                unfinished = all_or_none.enter_context(atomic_write(path))
                unfinished.write_bytes(text.encode())
        command = (
            f"{_train()} --config {shlex.quote(str(self.folder))} --expid DIN_MISS_{self.name}"
        )
        print(f"{self.folder} has {', '.join(self._expids)}. Next:\n\n    {command}\n")

    @property
    def _expids(self) -> list[str]:
        models = yaml.safe_load(_MODELS.format(name=self.name, id=""))
        return [name for name in models if not name.startswith("_")]

    def _texts(self, context: Mapping[str, Mapping[str, Any]]) -> dict[Path, str]:
        """The files with the entries in them, known to be readable."""
        data_set, dataset_id = _yaml({self.name: self._data_set(context)}), _yaml([self.name])
        models = _MODELS.format(name=self.name, id=dataset_id.strip("[]\n"))
        texts = {}
        for kind, entries in (("dataset_config", data_set), ("model_config", models)):
            path = self.folder / f"{kind}.yaml"
            if path.with_suffix("").is_dir() and not path.exists():
                path = path.with_suffix("") / f"{self.name}.yaml"
            texts[path] = self._with_entries(path, entries, self._files(kind))
        self._check_reading(texts)
        return texts

    def _files(self, kind: str) -> list[Path]:
        """Those that FuxiCTR reads."""
        one = self.folder / f"{kind}.yaml"
        return [one] if one.exists() else sorted((self.folder / kind).glob("*.yaml"))

    def _with_entries(self, path: Path, entries: str, files: Sequence[Path]) -> str:
        """The text of a file with `entries` in the place of those of an earlier run.

        Raises:
            InputError: one of them is in `files`, but not as an earlier run wrote it.
        """
        ours = yaml.safe_load(entries)
        taken = {
            name: entry.place
            for file in files
            for name, entry in read_entries(file).items()
            if name in map(str, ours)
        }
        text = path.read_bytes().decode() if path in files else ""
        begin = re.escape(_BEGIN).replace(r"\{digest\}", "([0-9a-f]{16})")
        pattern = f"(?ms)^{begin}(.*?)^{re.escape(_END)}".replace(r"\{name\}", self.name)
        last = re.search(pattern, text)
        if last and _digest(last[2]) != last[1]:
            raise InputError(
                f"{path}: the entries for {self.name} have been changed since they were written. "
                "Name another --config-folder or --name, or for the splits alone give --output in "
                "the place of --name."
            )
        if taken and not last:
            name, place = next(iter(taken.items()))
            raise InputError(
                f"{place}: there is an entry {name} already, which this command did not write. "
                "Name another --config-folder or --name, or remove it."
            )
        block = _BEGIN.format(name=self.name, digest=_digest(entries))
        block += entries + _END.format(name=self.name)
        if last:
            return text[: last.start()] + block + text[last.end() :]
        return text + ("" if not text else "\n" if text.endswith("\n") else "\n\n") + block

    def _check_reading(self, texts: Mapping[Path, str]) -> None:
        """Refuse texts with which the folder could not be read, or would say something else.

        A file may be one mapping in braces, end in the middle of a value, or use our anchors.
        """
        files = [*self._files("dataset_config"), *self._files("model_config"), *texts]
        with tempfile.TemporaryDirectory() as temporary:
            copies = {path: Path(temporary, path.relative_to(self.folder)) for path in files}
            for path, copy in copies.items():
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(texts[path].encode() if path in texts else path.read_bytes())
            try:
                for path in texts:
                    if self._others(path) != self._others(copies[path]):
                        raise InputError(f"{path} ends in the middle of a value.")
                for expid in self._expids:
                    load_config(temporary, expid)
            except InputError as error:
                reason = str(error).replace(temporary, str(self.folder))
                raise InputError(
                    f"The entries for {self.name} cannot be added. With them, {reason} Mend that, "
                    "or name another --config-folder."
                ) from error

    def _others(self, path: Path) -> dict[str, Any]:
        """The entries that are not for this data set."""
        ours = {self.name, f"_{self.name}", *self._expids}
        values = read_values(path) if path.exists() else {}
        return {name: value for name, value in values.items() if name not in ours}

    def _data_set(self, context: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        ending = "" if self.in_parts else ".parquet"
        splits = {s: f"{self.splits.as_posix()}/{s}{ending}" for s in SPLITS}
        items = ["item_id", *self.attributes]
        histories = [history_name(item) for item in items]
        ids = {"active": True, "dtype": "str", "type": "categorical"}
        numbers = {"active": True, "dtype": "float", "type": "numeric"}
        sequences = {"active": True, "dtype": "str", "type": "sequence", "splitter": "^"}
        columns: list[dict[str, Any]] = [{"name": name, **ids} for name in ("user_id", *items)]
        for name, about in context.items():
            column: dict[str, Any] = {"name": name, **ids}
            if about["type"] == "numeric":
                column = {"name": name, **numbers, "normalizer": "StandardScaler"}
                if about["missing"]:
                    column["fill_na"] = about["median_of_train"]
            columns.append(column)
        for item, history in zip(items, histories, strict=True):
            shared = {"max_len": self.max_len, "share_embedding": item}
            columns.append({"name": history, **sequences, **shared})
        alone = len(items) == 1
        return {
            "data_root": "data/encoded/",
            "data_format": "parquet",
            **{f"{split}_data": path for split, path in splits.items()},
            "vocab_data": f"{self.splits.as_posix()}/items.parquet",
            "feature_cols": columns,
            "label_col": {"name": "label", "dtype": "float"},
            "din_target_field": items if alone else [items],
            "din_sequence_field": histories if alone else [histories],
        }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _yaml(value: Any) -> str:
    return yaml.safe_dump(
        value, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True
    )


def _train() -> str:
    """The command that trains, in the way in which this one was started."""
    here = Path(sys.executable).parent
    python = "python" if _is_in(here, "python") else shlex.quote(sys.executable)
    script = Path(sys.argv[0])
    if script.suffix == ".py":
        return f"{python} {shlex.quote(str(script.parent.parent / 'run_expid.py'))}"
    return (
        "fuxictr-miss train" if _is_in(here, "fuxictr-miss") else f"{python} -m fuxictr_miss train"
    )


def _is_in(folder: Path, program: str) -> bool:
    """Whether a shell finds a program in this folder."""
    found = shutil.which(program)
    return found is not None and Path(found).parent == folder
