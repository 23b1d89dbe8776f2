"""Turn selected tables and figures into experiments, each listed once even if several share it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fuxictr_miss.config import check, list_datasets, list_expids, load_params
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.paper.tables import FIGURES, TABLES, Variant, at_rate

Winners = Mapping[tuple[str, str], Mapping[str, Any]]  # (data set, model) -> chosen settings


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One training run: a model, a data set, a seed and all settings.

    `overrides` are the settings that differ from the config; `params` includes them.
    """

    model: str
    dataset: str
    seed: int
    purpose: str  # "final" | "search"
    overrides: Mapping[str, Any]
    params: Mapping[str, Any] = dataclasses.field(repr=False)

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the settings that this model reads, without the seed."""
        read = {k: v for k, v in self.params.items() if k not in _ignored_keys(self)}
        return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def key(self) -> str:
        return f"{self.digest}-{self.seed}"


class Planner:
    """Turns cells of tables into experiments, with the settings of one config folder.

    Args:
        config: folder with `model_config` and `dataset_config`.
        winners: settings that a search chose; all cells of the model on that data set use them.
    """

    def __init__(self, config: str, winners: Winners | None = None) -> None:
        self.config = config
        self.winners = winners or {}
        self.expids = set(list_expids(config))

    def experiment(
        self, variant: Variant, dataset: str, seed: int, purpose: str = "final"
    ) -> Experiment | None:
        """The experiment of a cell; None if the config has no such expid (`absence` says why).

        Raises:
            InputError: a setting is invalid.
        """
        expid = f"{variant.model}_{dataset}"
        if expid not in self.expids:
            return None
        params = _loaded(self.config, expid)
        overrides = {**self.winners.get((dataset, variant.model), {}), **variant.settings}
        if _removes_nothing(overrides.get("miss_variant"), params):
            overrides["miss_variant"] = ""
        overrides = {k: v for k, v in overrides.items() if params.get(k, _MISSING) != v}
        place = f"{self.config}, {expid} with {overrides}"
        params = check({**params, **overrides}, dict.fromkeys([*overrides, ""], place))
        return Experiment(variant.model, dataset, seed, purpose, overrides, params)

    def absence(self, variant: Variant, dataset: str) -> str:
        """Why the config has no such model for a data set, as a footnote."""
        expid = f"{variant.model}_{dataset}"
        if variant.model.endswith("_Rule"):
            return f"{expid} is not in the config: Rule needs a category, and {dataset} has none."
        return f"{expid} is not in the config."

    def note(self, variant: Variant, dataset: str) -> str:
        """A footnote for a cell; "" if it needs none."""
        expid = f"{variant.model}_{dataset}"
        if expid in self.expids and _removes_nothing(
            variant.settings.get("miss_variant"), _loaded(self.config, expid)
        ):
            return (
                f"{dataset} has one feature per behavior (J = 1), so there is no feature level to "
                "remove: these are the experiments of the full MISS."
            )
        return ""

    def experiments(
        self, variants: Iterable[Variant], datasets: Iterable[str], seeds: int
    ) -> list[Experiment]:
        """The experiments of these variants for seeds 1 to `seeds`, without duplicates."""
        found: dict[str, Experiment] = {}
        variants = list(variants)
        for dataset in datasets:
            for variant in variants:
                for seed in range(1, seeds + 1):
                    experiment = self.experiment(variant, dataset, seed)
                    if experiment is not None:
                        found.setdefault(experiment.key, experiment)
        return list(found.values())


def variants_of(tables: Iterable[int], figures: Iterable[int]) -> Iterator[Variant]:
    """The variants that these tables and figures show, in their order."""
    for number in tables:
        table = TABLES[number]
        for block in table.blocks:
            if table.rate:
                yield from (at_rate(v, table.rate, rate) for rate in table.rates for v in block)
            else:
                yield from block
    for number in figures:
        figure = FIGURES[number]
        yield from map(figure.at, figure.values) if figure.key else figure.variants


def check_datasets(config: str, datasets: Iterable[str]) -> None:
    """Refuse an unknown data set.

    Raises:
        InputError: names the closest valid one.
    """
    valid = list_datasets(config)
    for dataset in datasets:
        if dataset not in valid:
            raise unknown("data set", dataset, valid)


def dataset_params(config: str, dataset: str) -> dict[str, Any]:
    """The parameters of some experiment on a data set; the data keys are the same in all.

    Raises:
        InputError: the config has no experiment on this data set.
    """
    for expid in list_expids(config):
        if expid.endswith(f"_{dataset}"):
            params = _loaded(config, expid)
            if params["dataset_id"] == dataset:
                return params
    raise InputError(
        f"{config} has no experiment on data set {dataset!r}: add one to its model_config, with an "
        f"expid of the form <Model>_<data set>, for example DIN_{dataset}."
    )


_MISSING = object()
_loaded = functools.lru_cache(maxsize=None)(load_params)


def _removes_nothing(part: Any, params: Mapping[str, Any]) -> bool:
    """Whether a `miss_variant` equals the full MISS: "/F" does with one sequence (J = 1)."""
    sequences = [column for column in params["feature_cols"] if column.get("type") == "sequence"]
    names = [
        n for c in sequences for n in ([c["name"]] if isinstance(c["name"], str) else c["name"])
    ]
    return part == "/F" and len(names) == 1


def _ignored_keys(experiment: Experiment) -> set[str]:
    """Keys that do not affect this experiment: those of other methods and `RUNTIME_KEYS`."""
    from fuxictr_miss.experiment import RUNTIME_KEYS  # late: these import torch
    from fuxictr_miss.methods.base import list_methods

    backbone, _, method = experiment.model.rpartition("_")
    methods = {name.lower() for name in list_methods()}
    method = method.lower() if backbone else experiment.model.lower()
    unread = {f"{name}_" for name in methods - {method}}
    if method not in methods:
        unread.add("ssl_")
    others = {k for k in experiment.params if k.startswith(tuple(unread))}
    return others | RUNTIME_KEYS | {"model_id", "seed"}
