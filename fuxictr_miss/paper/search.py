"""Hyper-parameter search: the same budget for every model, chosen by validation only.

The trials are a list that is known before anything runs, so that a plan can be printed, and a
report made again, without running; `fuxictr_miss/tuning/` draws each trial from the results so far.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fuxictr.utils import Monitor

from fuxictr_miss.config import Config, list_expids
from fuxictr_miss.config.settings import SSLSettings, keys_of
from fuxictr_miss.config.yaml_files import read_values
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.paper.plan import Experiment, Planner
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.tables import Variant
from fuxictr_miss.paper.yardsticks import YARDSTICKS

SEED = 0  # of all trials; the tables use seeds from 1


@dataclasses.dataclass(frozen=True)
class Winner:
    """The trial with the best validation metric."""

    overrides: Mapping[str, Any]
    value: float  # its validation metric
    trials: int  # number of successful trials


def read_spaces(config: str) -> dict[str, dict[str, list[Any]]]:
    """Read `<config>/search.yaml`: section -> key -> values.

    Raises:
        InputError: the file is missing, a section is unknown, or a value is not a list.
    """
    path = Path(config) / "search.yaml"
    if not path.exists():
        raise InputError(f"--search needs {path}, with a list of values per key.")
    spaces = read_values(path)
    parts = {part for expid in list_expids(config) for part in expid.split("_")}
    for section, space in spaces.items():
        if section not in {"ssl", "backbone", *parts}:
            raise unknown(f"section in {path}:", section, {"ssl", "backbone", *parts})
        if not isinstance(space, dict):
            raise InputError(f"{path}: {section} must have lines of the form key: [value, value].")
        for key, values in space.items():
            if not isinstance(values, list) or not values:
                raise InputError(f"{path}: {section}: {key} must be a list of values.")
    return spaces


def space_of(model: str, spaces: Mapping[str, dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """The search space of a model: its method's or the shared `ssl` one, and its backbone's."""
    backbone, _, method = model.rpartition("_")
    plain = spaces.get(backbone or model, spaces.get("backbone", {}))
    if not backbone:
        return plain
    return {**spaces.get(method, spaces.get("ssl", {})), **plain}


def trials(
    planner: Planner,
    variants: Iterable[Variant],
    datasets: Iterable[str],
    budget: int,
    spaces: Mapping[str, dict[str, list[Any]]],
) -> dict[tuple[str, str], list[Experiment]]:
    """Choose `budget` trials for every data set and model; the first is the unchanged config.

    A larger budget contains the trials of a smaller one. A space with fewer combinations is tried
    completely. Without a budget there are none.

    Raises:
        InputError: a key of the space is not a key of the model, or the monitored metric is not in
            its `metrics`.
    """
    models = list(dict.fromkeys(variant.model for variant in variants)) if budget else []
    models = [model for model in models if model not in YARDSTICKS]  # they have nothing to choose
    found: dict[tuple[str, str], list[Experiment]] = {}
    for dataset, model in itertools.product(datasets, models):
        start = planner.experiment(Variant(model, model), dataset, SEED, "search")
        if start is None:
            continue
        space = space_of(model, spaces)
        valid = {*start.params, *keys_of(SSLSettings, "ssl_").model_fields}
        for key in space:
            if key not in valid:
                raise unknown(f"key for {model} in search.yaml", key, valid)
        check_monitor(Config.of(start.params), f"--search chooses {model} on {dataset}")
        chosen = {start.key: start}
        for settings in _candidates(space, f"{model} {dataset}"):
            if len(chosen) >= budget:
                break
            trial = planner.experiment(Variant(model, model, settings), dataset, SEED, "search")
            if trial is not None:
                chosen.setdefault(trial.key, trial)
        found[dataset, model] = list(chosen.values())
    return found


def winners(
    tried: Mapping[tuple[str, str], list[Experiment]], results: Results
) -> dict[tuple[str, str], Winner]:
    """The best trial per data set and model, by the metric that early stopping monitors.

    The earlier trial wins a tie. A model without a successful trial has no winner.
    """
    best: dict[tuple[str, str], Winner] = {}
    for place, experiments in tried.items():
        config = Config.of(experiments[0].params)
        sign = 1 if config.monitor_mode == "max" else -1
        done = [
            (validation_value(row, config), each)
            for each in experiments
            if (row := results.finished(each.key))
        ]
        if done:
            value, experiment = max(done, key=lambda pair: sign * pair[0])
            best[place] = Winner(experiment.overrides, value, len(done))
    return best


def check_monitor(config: Config, what: str) -> None:
    """Refuse a search by a metric that no trial measures.

    Raises:
        InputError: the monitored metric is not among `metrics`.
    """
    for metric in Monitor(config.monitor).get_metrics():
        if metric not in config.metrics:
            raise InputError(f"{what} by {metric}: add it to metrics.")


def validation_value(row: Mapping[str, Any], config: Config) -> float:
    """What early stopping monitors, of a successful trial's row."""
    monitor = Monitor(config.monitor)
    return monitor.get_value({name: row[f"valid_{name}"] for name in monitor.get_metrics()})


def _candidates(space: Mapping[str, list[Any]], seed: str) -> Iterable[dict[str, Any]]:
    """Yield settings that change one key (first values first), then random combinations."""
    for turn in range(max(map(len, space.values()), default=0)):
        yield from ({key: values[turn]} for key, values in space.items() if turn < len(values))
    lengths = [len(values) for values in space.values()]
    rng = random.Random(seed)
    seen: set[tuple[int, ...]] = set()
    while len(seen) < math.prod(lengths):
        places = tuple(map(rng.randrange, lengths))
        if places not in seen:
            seen.add(places)
            yield {key: space[key][place] for key, place in zip(space, places, strict=True)}
