"""Turn selected tables and figures into experiments, each listed once even if several share it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fuxictr_miss.config import Config, list_datasets, list_expids, load_config
from fuxictr_miss.config.feature_names import names_of
from fuxictr_miss.config.keys import OF_THE_MACHINE
from fuxictr_miss.config.recipes import read_recipe
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.methods.base import list_methods
from fuxictr_miss.paper.tables import REPORTS, Variant
from fuxictr_miss.paper.yardsticks import BACKBONE, YARDSTICKS

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
        method = self.model.rpartition("_")[2].lower()
        methods = {name.lower() for name in list_methods()}
        unread = {f"{name}_" for name in methods - {method}}
        unread |= set() if method in methods else {"ssl_"}
        ignored = OF_THE_MACHINE | {"model_id", "seed"}
        read = {
            key: value
            for key, value in self.params.items()
            if key not in ignored and not key.startswith(tuple(unread))
        }
        return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def key(self) -> str:
        return f"{self.digest}-{self.seed}"

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.model}_{self.key}"

    def row(self) -> dict[str, Any]:
        """The columns of the results file that are known before the run."""
        row = {name: getattr(self, name) for name in ("key", "dataset", "model", "purpose", "seed")}
        return {**row, "digest": self.digest, "params": dict(self.overrides)}


class Planner:
    """Turns variants into experiments, with the settings of one config folder.

    Args:
        config: folder with `model_config` and `dataset_config`.
        winners: settings that a search chose; all variants of the model on that data set use them.
    """

    def __init__(self, config: str, winners: Winners | None = None) -> None:
        self.config = config
        self.winners = winners or {}
        self.expids = set(list_expids(config))

    def experiment(
        self, variant: Variant, dataset: str, seed: int, purpose: str = "final"
    ) -> Experiment | None:
        """The experiment of a variant; None if the config has no such expid (`absence` says why).

        Raises:
            InputError: a setting is invalid.
        """
        if self.absence(variant, dataset):
            return None
        expid = _expid(variant, dataset)
        config = loaded_config(self.config, expid)
        _check_is_what_it_is_called(self.config, config)
        params, recipe = config.params, _other_recipe(variant, config.params)
        chosen = self.winners.get((dataset, variant.model), {})
        overrides = {k: v for k, v in chosen.items() if k not in recipe}
        overrides.update(variant.settings)
        if self.note(variant, dataset):
            del overrides["miss_variant"]
        if variant.without is not None:
            names = params.get("use_features") or config.feature_names
            overrides["use_features"] = [name for name in names if name != variant.without]
        before = {**params, **recipe, "ssl_recipe": params.get("ssl_recipe")}
        overrides = {k: v for k, v in overrides.items() if k not in before or before[k] != v}
        place = f"{self.config}, {expid} with {overrides}"
        params = {**config.replace(overrides, place).params, "model": variant.model}
        return Experiment(variant.model, dataset, seed, purpose, overrides, params)

    def absence(self, variant: Variant, dataset: str) -> str:
        """Why a data set has no such experiment, as a footnote; "" if it has."""
        expid = _expid(variant, dataset)
        if expid not in self.expids:
            reason = f"{expid} is not in the config"
            if variant.model.endswith("_Rule"):
                return f"{reason}: Rule needs a category, and {dataset} has none."
            return f"{reason}."
        config = loaded_config(self.config, expid)
        if variant.without is not None and variant.without not in config.feature_names:
            return f"{dataset} has no {variant.without}."
        if config.group_id is not None and variant.without == config.group_id:
            return f"{dataset} groups its rows by {variant.without} (group_id), which has to stay."
        return ""

    def note(self, variant: Variant, dataset: str) -> str:
        """A footnote if this variant equals MISS itself (with J = 1, without F or with it)."""
        expid = _expid(variant, dataset)
        if variant.settings.get("miss_variant") not in ("", "/F") or expid not in self.expids:
            return ""
        columns = loaded_config(self.config, expid).feature_cols
        sequences = [column for column in columns if column.get("type") == "sequence"]
        if sum(len(names_of(column)) for column in sequences) != 1:
            return ""
        return (
            f"{dataset} has one feature per behavior (J = 1), so there is no feature level to "
            "remove or to add: these are the experiments of MISS itself."
        )

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

    def left_out(self, variants: Iterable[Variant], datasets: Iterable[str]) -> str:
        """Which experiments the config does not have, in one sentence; "" if it has all."""
        asked = (_expid(variant, dataset) for dataset in datasets for variant in variants)
        absent = [expid for expid in dict.fromkeys(asked) if expid not in self.expids]
        if not absent:
            return ""
        return f"Left out, as {self.config} has no such expid: {', '.join(absent)}."


def variants_of(reports: Iterable[str]) -> Iterator[Variant]:
    """The variants that these tables and figures show, in their order."""
    for name in reports:
        for block in REPORTS[name].blocks:
            yield from block


def dataset_params(config: str, dataset: str) -> dict[str, Any]:
    """The parameters of some experiment on a data set; the data keys are the same in all.

    Raises:
        InputError: the config has no such data set (names the closest) or no experiment on it.
    """
    if dataset not in (valid := list_datasets(config)):
        if dataset in list_expids(config):
            of_it = loaded_config(config, dataset).dataset_id
            raise InputError(
                f"{dataset} is an expid, and --dataset takes a data set: --dataset {of_it}, with "
                "--model to run only some of its models."
            )
        raise unknown("data set", dataset, valid)
    for expid in list_expids(config):
        if expid.endswith(f"_{dataset}"):
            loaded = loaded_config(config, expid)
            if loaded.dataset_id == dataset:
                return loaded.params
    raise InputError(
        f"{config} has no experiment on data set {dataset!r}: add one to its model_config, with an "
        f"expid of the form <Model>_<data set>, for example DIN_{dataset}."
    )


def _expid(variant: Variant, dataset: str) -> str:
    """The entry of the config with a variant's parameters."""
    model = BACKBONE if variant.model in YARDSTICKS else variant.model
    return f"{model}_{dataset}"


def _check_is_what_it_is_called(folder: str, config: Config) -> None:
    """The rows of tables are called by the expid: the model and the data set must be its own."""
    if config.model_id != f"{config.model}_{config.dataset_id}":
        raise InputError(
            f"{folder}: the tables take expid {config.model_id} for a model and its data set, but "
            f"it has model {config.model} and dataset_id {config.dataset_id}. Rename it, or change "
            "these keys."
        )


def _other_recipe(variant: Variant, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe of a variant sets; nothing if it is the config's own recipe."""
    name = variant.settings.get("ssl_recipe")
    return {} if name in (None, params.get("ssl_recipe")) else read_recipe(name)


loaded_config = functools.lru_cache(maxsize=None)(load_config)
