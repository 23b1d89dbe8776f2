"""A tuner's YAML: the experiment to start from, and the values to try."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, model_validator
from typing_extensions import Self

from fuxictr_miss.config import Config, load_config
from fuxictr_miss.config.keys import OF_THE_MACHINE
from fuxictr_miss.config.values import Checked, Switch, described
from fuxictr_miss.config.yaml_files import read_entries
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.paper.plan import Experiment
from fuxictr_miss.paper.search import check_monitor
from fuxictr_miss.self_supervision import check_method_keys, method_defaults

_INLINE = ("model_config", "dataset_config")
# Keys by which trials are named, compared or placed: all trials have the same.
_OF_ALL = {"metrics", "model_id", "monitor", "monitor_mode", *OF_THE_MACHINE}
_INSTEAD = {
    "dataset_id": "write it beside base_expid",
    "ssl_recipe": "search over its keys, or set ssl_recipe in the entry of base_expid",
}
# Keys that the encoded data depends on.
_OF_THE_DATA = frozenset((
    "data_format", "feature_cols", "feature_processor", "group_id", "label_col",
    "min_categr_count", "num_buckets", "sep", "split_type", "test_data", "test_size", "train_data",
    "valid_data", "valid_size", "vocab_data", "vocab_scope",
))  # fmt: skip


class Range(Checked):
    """Numbers to draw from, both ends included; whole ones if both ends are."""

    model_config = ConfigDict(extra="forbid")

    low: int | float = described("a number")
    high: int | float = described("a number")
    log: Switch = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise InputError(f"low must be below high, got {self.low} and {self.high}.")
        if self.log and self.low <= 0:
            raise InputError(f"low must be above 0 for log: True, got {self.low}.")
        return self

    @property
    def size(self) -> float:
        """The number of values."""
        return self.high - self.low + 1 if isinstance(self.low, int) else math.inf

    def __contains__(self, value: Any) -> bool:
        return type(value) is type(self.low) and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Trial(Experiment):
    """An experiment of a search; `number` is its place in the order of the search."""

    expid: str
    number: int

    @property
    def name(self) -> str:
        """Its expid in the search's config, as FuxiCTR's tuner forms it."""
        return f"{self.expid}_{self.number:03d}_{self.digest[:8]}"

    def row(self) -> dict[str, Any]:
        """The columns of the results file that are known before the run."""
        return {**super().row(), "number": self.number}


@dataclasses.dataclass(frozen=True)
class Space:
    """The values that a tuner's YAML has for each key, and the experiment whose keys they are."""

    place: str
    expid: str
    config: Config  # with the keys that have one value only
    values: Mapping[str, list[Any] | Range]

    @property
    def has_one_data_set(self) -> bool:
        """Whether all trials train on the same encoded data."""
        return not _OF_THE_DATA & self.values.keys()

    @property
    def size(self) -> float:
        """The number of combinations; infinite with a range of real numbers."""
        return math.prod(
            len(each) if isinstance(each, list) else each.size for each in self.values.values()
        )

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Every combination.

        Raises:
            InputError: there is a range.
        """
        for key, values in self.values.items():
            if isinstance(values, Range):
                raise InputError(
                    f"{self.place}: {key} is a range, which has no combinations: list its values, "
                    "or search by --search random or tpe."
                )
        for each in itertools.product(*self.values.values()):
            yield dict(zip(self.values, each, strict=True))

    def __contains__(self, settings: Mapping[str, Any]) -> bool:
        return settings.keys() == self.values.keys() and all(
            settings[key] in values for key, values in self.values.items()
        )

    def trial(self, number: int, settings: Mapping[str, Any]) -> Trial:
        """The trial of a combination; encoded data of its own gets a name of its own.

        Raises:
            InputError: the combination is invalid.
        """
        params = self.config.replace(settings, f"{self.place}, tuner_space").params
        of_data = sorted((k, params[k]) for k in _OF_THE_DATA & settings.keys())
        if of_data:
            digest = hashlib.md5(repr(of_data).encode()).hexdigest()[:8]
            params["dataset_id"] += f"_{digest}"
        model, dataset, seed = (params[key] for key in ("model", "dataset_id", "seed"))
        return Trial(model, dataset, seed, "search", settings, params, self.expid, number)

    def entries(self, trial: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        """A trial's parameters as two entries of a config folder: the model's and the data's."""
        model: dict[str, Any] = {}
        data: dict[str, Any] = {}
        for key, value in trial.params.items():
            if key not in ("model_id", "dataset_id"):
                (data if key in (*_OF_THE_DATA, "data_root") else model)[key] = value
        return {**model, "dataset_id": trial.dataset}, data


class _Tuner(Checked):
    """The keys of a tuner config."""

    model_config = ConfigDict(extra="forbid")

    base_config: str | None = None  # None: the folder of the tuner's file
    base_expid: str
    dataset_id: str | None = None
    tuner_space: dict[str, Any] = described("lines of the form key: [value, value]", min_length=1)


def read_space(path: Path) -> Space:
    """Read a tuner config and check every value.

    As in FuxiCTR's, `model_config` and `dataset_config` may stand in the file itself.

    Raises:
        InputError: a key is missing or unknown, or a value is invalid.
    """
    entries = read_entries(path)
    instead = {key: entries.pop(key) for key in _INLINE if key in entries}
    content = {key: entry.value for key, entry in entries.items()}
    beside = [key for key in content if key not in _Tuner.model_fields]
    if beside and beside == [content.get("dataset_id")]:  # as in FuxiCTR's own files
        print(f"{path}: {beside[0]} is ignored: base_config has the data set.", file=sys.stderr)
        del content[beside[0]]
    tuner = _Tuner.read(content, {"": str(path)})
    folder = tuner.base_config or str(path.parent)
    config = load_config(folder, tuner.base_expid, tuner.dataset_id, instead)
    own = ("ssl_", f"{config.model.rpartition('_')[2].lower()}_")
    valid = {*config.params, *Config.model_fields}
    valid.update(key for key in method_defaults() if key.startswith(own))
    fixed: dict[str, Any] = {}
    searched: dict[str, list[Any] | Range] = {}
    for key, given in tuner.tuner_space.items():
        if key not in valid:
            raise unknown(f"key in the tuner_space of {path}:", key, valid)
        values = _values(key, given, config, str(path))
        if isinstance(values, list) and len(values) == 1:
            fixed[key] = values[0]
        else:
            searched[key] = values
    where = f"{path}, tuner_space"
    config = _with(fixed, config, where)
    for key, each in searched.items():
        if key in _OF_ALL:
            raise InputError(f"{where}: {key} must have one value, the same for all trials.")
        for value in [each.low, each.high] if isinstance(each, Range) else each:
            _with({key: value}, config, where)
    check_monitor(config, f"{path} compares trials")
    return Space(str(path), tuner.base_expid, config, searched)


def _with(changes: Mapping[str, Any], config: Config, where: str) -> Config:
    changed = config.replace(changes, where)
    try:
        check_method_keys(changed.params)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return changed


def _values(key: str, given: Any, config: Config, place: str) -> list[Any] | Range:
    """The values of one key, unchecked."""
    if key in _INSTEAD:
        raise InputError(f"{place}: {key} cannot be in tuner_space: {_INSTEAD[key]}.")
    if isinstance(given, dict) and given.keys() & {"low", "high"}:
        found = Range.read(given, {"": f"{place}, tuner_space, {key}"})
        if any(isinstance(v, float) for v in (found.low, found.high, getattr(config, key, None))):
            return Range(low=float(found.low), high=float(found.high), log=found.log)
        return found
    values = given if isinstance(given, list) else [given]
    if not values:
        raise InputError(f"{place}: {key} in tuner_space has no value to try.")
    return [value for n, value in enumerate(values) if value not in values[:n]]
