"""FuxiCTR's benchmark: the published results on its four sequence data sets, beside ours.

The published runs choose their epoch on the test split. Ours do both: by default 5% of the training
users are held out for that, and under the published protocol nothing is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fuxictr_miss.errors import unknown
from fuxictr_miss.paper.plan import Experiment, loaded_config
from fuxictr_miss.paper.report import mean_and_deviation
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.sheet import Sheet
from fuxictr_miss.paper.source import ABSENT, FAILED, NOT_YET
from fuxictr_miss.registry import list_models

DATASETS = ("amazonelectronics_x1", "taobaoad_x1", "kuaivideo_x1", "microvideo1.7m_x1")
METRICS = ("gAUC", "AUC", "logloss")
BACKBONES = ("DIN", "DIEN", "BST", "DMIN", "DMR", "PNN")
MODELS = tuple(name for each in BACKBONES for name in (each, f"{each}_MISS"))
PUBLISHED = "_published"  # behind a data set's name: the published protocol
SAMPLE = "_sample"  # before it: made-up rows

# reczoo/BARS, ranking/ctr/<model>/<model>_<data set>/results.csv, in the order of DATASETS
_RESULTS = """
DIN   .8835 .8860 .4302  .5765 .6524 .1924  .6696 .7495 .4321  .6883 .7360 .4116
DIEN  .8856 .8888 .4257  .5769 .6529 .1928  .6711 .7504 .4330  .6867 .7321 .4122
BST   .8841 .8864 .4301  .5763 .6511 .1928  .6690 .7484 .4338  .6854 .7342 .4118
DMIN  .8856 .8877 .4246  .5770 .6511 .1928  .6726 .7508 .4302  .6879 .7332 .4115
DMR   .8851 .8873 .4277  .5768 .6524 .1931  .6689 .7485 .4354  .6875 .7354 .4122
"""
_CAPTIONS = (
    "published: reczoo/BARS, one run, which chose its epoch on the test split.",
    "stops on test: the same protocol here. All training users train, and the epoch is chosen on "
    "the test split, so these numbers and the published ones are too good.",
    "All other rows: 5% of the training users are held out, and the epoch is chosen on them.",
    "PNN is not published on these data sets; it has the hyper-parameters of the published DNN.",
)
_MADE_UP = "The rows are made up (bars_sample.py): beside the published results they say nothing."


@dataclasses.dataclass(frozen=True)
class Suite:
    """The experiments of the benchmark, and their table.

    Args:
        config: the folder with its configs.
        datasets: of `DATASETS`.
        models: of `MODELS`; those that are run.
        seeds: seeds 1 to N.
        zoo: a checkout of FuxiCTR, whose classes take precedence; None: our own classes.
        sample: run on made-up rows instead.
    """

    config: str
    datasets: Sequence[str]
    models: Sequence[str]
    seeds: int
    zoo: str | None = None
    sample: bool = False

    def __post_init__(self) -> None:
        for kind, names, valid in (
            ("data set of --suite bars", self.datasets, DATASETS),
            ("model of --suite bars", self.models, MODELS),
        ):
            for name in names:
                if name not in valid:
                    raise unknown(kind, name, valid)

    @property
    def name(self) -> str:
        """Of its report."""
        return f"bars{SAMPLE}" if self.sample else "bars"

    @functools.cached_property
    def left_out(self) -> list[str]:
        """The models whose classes are not at hand."""
        known = set(list_models(self.zoo))
        return [model for model in self.models if model not in known]

    def experiments(self) -> list[Experiment]:
        """Every model on every data set under both protocols, with each seed."""
        return [
            experiment
            for dataset in self.datasets
            for ending in ("", PUBLISHED)
            for model in self.models
            if model not in self.left_out
            for experiment in self._seeds(model, dataset, ending)
        ]

    def why_left_out(self) -> str:
        """How to get the missing classes, in one sentence; "" if none is missing."""
        if not self.left_out:
            return ""
        return (
            f"Left out: {', '.join(self.left_out)}, which are classes of FuxiCTR's zoo: "
            "git clone https://github.com/reczoo/FuxiCTR, and add --zoo FuxiCTR."
        )

    def sheet(self, results: Results) -> Sheet:
        """The table: a block for each backbone, three columns for each data set."""
        published = _read()
        sheet = Sheet(
            f"FuxiCTR's benchmark{' on made-up rows' if self.sample else ''}",
            [("", "Model"), *((dataset, name) for dataset in self.datasets for name in METRICS)],
            [],
        )
        for backbone in BACKBONES:
            models = [
                each
                for each in MODELS
                if each in self.models and each.removesuffix("_MISS") == backbone
            ]
            lines = [
                [f"{model.replace('_', '-')}{suffix}"]
                + [
                    cell
                    for name in self.datasets
                    for cell in self._cells(sheet, results, model, name, end)
                ]
                for end, suffix in (("", ""), (PUBLISHED, ", stops on test"))
                for model in models
            ]
            if models and backbone in published:
                values = [published[backbone][name] for name in self.datasets]
                first = [f"{number:.4f}" for each in values for number in each]
                lines.insert(0, [f"{backbone}, published", *first])
            if lines:
                sheet.blocks.append(lines)
        seeds = f"mean ± sample standard deviation of {self.seeds} seeds"
        seeds = "one seed" if self.seeds == 1 else seeds
        classes = f"Classes of {self.zoo}." if self.zoo else "Classes of this package's model_zoo."
        own = [f"Test split, {seeds}.", *_CAPTIONS, classes, self.why_left_out()]
        sheet.captions = [line for line in (_MADE_UP if self.sample else "", *own) if line]
        return sheet

    def _cells(
        self, sheet: Sheet, results: Results, model: str, dataset: str, ending: str
    ) -> list[str]:
        """The metrics of a model on a data set; a footnote says what is missing."""
        if model in self.left_out:
            return [ABSENT] * len(METRICS)
        experiments = self._seeds(model, dataset, ending)
        rows = [row for each in experiments if (row := results.rows.get(each.key))]
        done = [row for row in rows if row["status"] == "ok"]
        note = ""
        if bad := [row for row in rows if row["status"] != "ok"]:
            why = f"{bad[0]['status']}, {bad[0].get('reason', '')}"
            note = (
                f"{model} on {experiments[0].dataset}: {len(bad)} seeds without a result ({why})."
            )
        elif done and len(done) < self.seeds:
            note = f"n = {len(done)}: not all seeds are finished."
        mark = f"<sup>{sheet.note(note)}</sup>" if note else ""
        if not done:
            return [(FAILED if bad else NOT_YET) + mark] * len(METRICS)
        columns = [pd.Series([row[f"test_{name}"] for row in done]) for name in METRICS]
        return [mean_and_deviation(values) + mark for values in columns]

    def _seeds(self, model: str, dataset: str, ending: str) -> list[Experiment]:
        """The experiments of one cell."""
        name = f"{dataset}{SAMPLE if self.sample else ''}{ending}"
        params = loaded_config(self.config, f"{model}_{dataset}", name).params
        overrides: dict[str, Any] = {"model_zoo_path": self.zoo} if self.zoo else {}
        params = {**params, **overrides}
        return [
            Experiment(model, name, seed, "final", overrides, params)
            for seed in range(1, self.seeds + 1)
        ]


def _read() -> Mapping[str, Mapping[str, list[float]]]:
    found = {}
    for line in _RESULTS.strip().splitlines():
        model, *numbers = line.split()
        values = [float(number) for number in numbers]
        found[model] = {name: values[3 * i : 3 * i + 3] for i, name in enumerate(DATASETS)}
    return found
