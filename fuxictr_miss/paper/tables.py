"""What each table and figure of the paper shows (Section VI): a report is a piece of data.

A new row is one `Variant`, a new column one `Metric`, a new table one entry of `REPORTS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

SUITES = ("bars", "bars_sample")  # reports that are not the paper's, see bars.py
BASELINE, CONTROL, OURS = "baseline", "control", "ours"
DATASETS = {  # as people say them, in figures
    "amazonbeauty": "Amazon Beauty",
    "amazoncds": "Amazon CDs",
    "amazoncds_subset": "Amazon CDs (part)",
    "amazonbooks": "Amazon Books",
    "alipay": "Alipay",
    "amazonapps": "Amazon Apps",
    "amazonapps_everyprefix": "Amazon Apps (every prefix)",
    "amazonbeauty_everyprefix": "Amazon Beauty (every prefix)",
    "movielens1m": "MovieLens-1M",
    "completejourney": "Complete Journey",
}


@dataclasses.dataclass(frozen=True)
class Metric:
    """A column for each data set.

    Args:
        name: the head of the column.
        read: gives the value of a row of the results file, or None.
        sign: 1 if higher is better, -1 if lower is, 0 if the rows are not compared by it.
        digits: behind the point.
    """

    name: str
    read: Callable[[Mapping[str, Any]], float | None]
    sign: int = 1
    digits: int = 4


METRICS = (
    Metric("AUC", lambda row: row.get("test_AUC")),
    Metric("Logloss", lambda row: row.get("test_logloss"), sign=-1),
)
# of a whole run; what else the machine does counts little
SECONDS = Metric("Seconds", lambda row: row.get("processor_seconds"), sign=0, digits=1)
_WITH_ECE = (*METRICS, Metric("ECE", lambda row: row.get("test_ECE"), sign=-1))


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of a table: a model with settings.

    Args:
        name: the row's name in the paper; " (paper)" or " (recommended)" behind it is the recipe.
        model: our name of the model; the expid is `<model>_<data set>`. Or a yardstick.
        settings: keys that this row sets in the model's config; those that `ssl_recipe` names come
            with it.
        role: `OURS` is compared with the strongest `BASELINE` and the strongest `CONTROL`.
        without: a feature that the model does not get, if any.
    """

    name: str
    model: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    role: str = BASELINE
    without: str | None = None

    @property
    def in_paper(self) -> str:
        """Its name in the paper's tables, if it is there."""
        return self.name.replace(" (paper)", "")


@dataclasses.dataclass(frozen=True)
class Report:
    """A table or a figure.

    Args:
        title: with the paper's number.
        blocks: the rows; those of one block are compared. Table II has none.
        metrics: the columns for each data set.
        first: the head of the first column.
        split: what the metrics are measured on.
        caption: a remark under the table.
        axis: what a figure plots the metrics over: a key of `settings`, "training step", or
            "seconds" for a point of each row.
    """

    title: str
    blocks: tuple[tuple[Variant, ...], ...]
    metrics: tuple[Metric, ...] = METRICS
    first: str = "Model"
    split: str = "Test split"
    caption: str = ""
    axis: str = ""


def _similarity(epoch: int) -> Callable[[Mapping[str, Any]], float | None]:
    def read(row: Mapping[str, Any]) -> float | None:
        curve = row.get("curve", {}).get("similarity")
        return curve[epoch] if curve else None

    return read


_MODELS = {"IPNN": "PNN", "DCN-M": "DCNv2", "SIM(soft)": "SIM", "AutoInt+": "AutoInt"}
_BASELINES = ("LR", "FM", "DeepFM", "IPNN", "DCN", "DCN-M", "xDeepFM", "DIN", "DIEN", "SIM(soft)",
              "DMR", "AutoInt+", "FiGNN")  # fmt: skip
_METHODS = ("Rule", "IRSSL", "S3Rec", "CL4SRec")
RIVALS: dict[str, Mapping[str, Any]] = {  # not in the paper; keys beside the recommended recipe
    "Item2Vec": {},
    "NextItem": {"nextitem_power": 1.0, "nextitem_log_q": False},
    "CL4CTR": {},
    "MAP": {},
    "DuoRec": {},
    "ICSRec": {},
}
_WITHOUT = ("/F", "/F/U", "/F/L", "/F/U/L", "/M/F/U/L")  # a longer name removes more
_ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {  # what is removed from a recipe, or added
    "paper": {each: {"miss_variant": each} for each in _WITHOUT},
    "recommended": {  # it has neither F nor U
        "+F": {"miss_variant": ""},
        "+U": {"miss_max_width": 3},
        "/L": {"miss_variant": "/F/L"},
        "/M/L": {"miss_variant": "/M/F/U/L"},
    },
}
_SEARCHED = (0.05, 0.1, 0.5, 1.0, 5.0)  # α and τ in Section VI.A.5


def _plain(*names: str) -> tuple[Variant, ...]:
    """Backbones by the paper's names."""
    return tuple(Variant(name, _MODELS.get(name, name)) for name in names)


def _miss(name: str, model: str = "DIN_MISS", recipe: str = "paper", **settings: Any) -> Variant:
    return Variant(name, model, {"ssl_recipe": recipe, **settings}, OURS)


def _recipes(name: str, model: str = "DIN_MISS", **settings: Any) -> tuple[Variant, ...]:
    """MISS under both recipes."""
    return tuple(_miss(f"{name} ({recipe})", model, recipe, **settings) for recipe in _RECIPES)


def _pair(name: str) -> tuple[Variant, ...]:
    """A backbone without MISS, and with it under both recipes."""
    (plain,) = _plain(name)
    return plain, *_recipes(f"{name}-MISS", f"{plain.model}_MISS")


def _controls(name: str) -> tuple[Variant, ...]:
    """What a gain of MISS on a backbone may come from without any contrastive loss."""
    (plain,) = _plain(name)
    return (
        Variant(f"{name}, no user id", plain.model, role=CONTROL, without="user_id"),
        Variant(f"{name}, tables as drawn", f"{plain.model}_MISS", _AS_DRAWN, CONTROL),
        Variant(f"{name}-PPMI", f"{plain.model}_PPMI", role=CONTROL),
    )


def _methods(name: str) -> tuple[Variant, ...]:
    """Every method as published and under the recommended recipe, and what is beside them."""
    plain, *miss = _pair(name)
    names = (*_METHODS, *RIVALS)
    others = (Variant(f"{name}-{m}", f"{plain.model}_{m}") for m in names)
    frozen = (
        Variant(
            f"{name}-{m} (recommended)",
            f"{plain.model}_{m}",
            {"ssl_recipe": "recommended", **RIVALS.get(m, {})},
        )
        for m in names
    )
    return (plain, *others, *frozen, *_YARDSTICKS, *_controls(name), *miss)


def _ablations(name: str) -> tuple[tuple[Variant, ...], ...]:
    """A block for each recipe: MISS, and it with and without some parts; first the paper's."""
    (plain,) = _plain(name)
    blocks = []
    for recipe, parts in _ABLATIONS.items():
        changed = (("", {}), *parts.items())
        miss, *others = (
            _miss(f"{name}-MISS{part} ({recipe})", f"{plain.model}_MISS", recipe, **settings)
            for part, settings in changed
        )
        blocks.append((miss, *(dataclasses.replace(each, role=BASELINE) for each in others)))
    return (*blocks[0], plain), blocks[1]


def _rates(short: str, key: str, *rates: float) -> tuple[tuple[Variant, ...], ...]:
    """A block for each rate: DIN and DIN-MISS."""
    return tuple(
        tuple(
            dataclasses.replace(
                each, name=f"{each.name}, {short} {rate:.0%}", settings={**each.settings, key: rate}
            )
            for each in _pair("DIN")
        )
        for rate in rates
    )


def _values(key: str, recipes: tuple[str, ...], **settings: Any) -> tuple[tuple[Variant, ...], ...]:
    """A block for each recipe: MISS at every value of a key."""
    return tuple(
        tuple(
            _miss(f"{value:g} ({recipe})", recipe=recipe, **{**settings, key: value})
            for value in _SEARCHED
        )
        for recipe in recipes
    )


def _extractors(recipe: str, others: str) -> tuple[Variant, ...]:
    """MISS with each extractor; `others` is the role of all but its own."""
    found = (("MISS-SA", "self_attention"), ("MISS-LSTM", "lstm"), ("MISS-CNN", "cnn"))
    *rivals, own = (
        _miss(f"{name} ({recipe})", recipe=recipe, miss_extractor=extractor)
        for name, extractor in found
    )
    return (*(dataclasses.replace(each, role=others) for each in rivals), own)


_RECIPES = ("paper", "recommended")
_STRATEGIES = (
    *_recipes("MISS-Joint", ssl_training="joint"),
    *_recipes("MISS-Pre", ssl_training="pretrain"),
    *_recipes("MISS-Pre-Joint", ssl_training="pretrain_joint"),
)
_YARDSTICKS = (  # of the histories alone, without a backbone
    Variant("Popularity", "Popularity", role=CONTROL),
    Variant("item-kNN", "ItemKNN", role=CONTROL),
    Variant("PPMI-SVD", "PPMISVD", role=CONTROL),
    Variant("SASRec", "SASRec", role=CONTROL),
)
# The recommended recipe with nothing learned from the histories: a step of 1e-30 changes no float.
_AS_DRAWN = {
    "ssl_recipe": "recommended",
    "ssl_training": "pretrain",
    "ssl_start": "tables",
    "ssl_pretrain_epochs": 1,
    "ssl_pretrain_learning_rate": 1e-30,
    "ssl_label_gradient": 0.0,
    "ssl_other_gradient": 0.0,
    "ssl_thaw": False,
}
_CONTROLS = (
    "Controls: Popularity, item-kNN, PPMI-SVD and SASRec score by the training histories alone and "
    "give no probabilities; -PPMI: the recommended recipe on tables of PPMI-SVD; tables as drawn: "
    "the recommended recipe with frozen tables of random directions."
)

_OF_SECONDS = (
    "Seconds: processor time of a whole run on one thread, training, validation and test; the data "
    "are encoded already. Processors differed in speed; runs on a GPU have no time here."
)

REPORTS = {
    "table_2": Report("Table II. Dataset statistics", (), first="Dataset"),
    "table_3": Report(
        "Table III. Overall performance",
        (
            (
                *_plain(*_BASELINES),
                *_YARDSTICKS,
                *_controls("IPNN"),
                *_controls("DIN"),
                *_recipes("IPNN-MISS", "PNN_MISS"),
                *_recipes("DIN-MISS"),
            ),
        ),
        _WITH_ECE,
        caption=_CONTROLS,
    ),
    "table_4": Report("Table IV. Compatibility", (_pair("DIN"), _pair("IPNN"), _pair("FiGNN"))),
    "table_5": Report(
        "Table V. Self-supervised methods",
        (_methods("IPNN"), _methods("DIN")),
        (*_WITH_ECE, SECONDS),
        caption=f"{_CONTROLS} {_OF_SECONDS}",
    ),
    "table_6": Report(
        "Table VI. Ablations",
        (*_ablations("IPNN"), *_ablations("DIN")),
        caption="The recommended recipe has no feature level and no unions: +F and +U add them.",
    ),
    "table_7": Report(
        "Table VII. Multi-interest extractors",
        (
            (*_plain("DIN"), *_extractors("paper", BASELINE)),
            _extractors("recommended", BASELINE),
        ),
    ),
    "table_8": Report(
        "Table VIII. Training strategies",
        ((*_plain("DIN"), *_STRATEGIES),),
        caption="MISS-Pre-Joint (pretraining, then joint training) is not in the paper.",
    ),
    "table_9": Report(
        "Table IX. Sampling rate (SR) of the training rows",
        _rates("SR", "train_sample_rate", 0.8, 0.9, 1.0),
    ),
    "table_10": Report(
        "Table X. Label noise rate (NR) of the training rows",
        _rates("NR", "label_noise_rate", 0.0, 0.1, 0.2),
    ),
    "figure_5": Report(
        "Fig. 5. Cosine similarity of the views over training steps",
        tuple(_extractors(recipe, OURS) for recipe in _RECIPES),
        (
            Metric("first epoch", _similarity(0), sign=0),
            Metric("last epoch", _similarity(-1), sign=0),
        ),
        first="Extractor",
        split="Training batches",
        axis="training step",
    ),
    "figure_6": Report(
        "Fig. 6. Weight of the self-supervised losses",
        _values("ssl_weight", ("paper",), ssl_feature_weight=None),
        first="loss weight α1 = α2",
        axis="ssl_weight",
        caption="Under joint training (Eq. 17), where α1 = α2 weighs one loss against another. "
        "Under the recommended recipe no weight is trained by both, and α only scales gradients "
        "against Adam's ε.",
    ),
    "figure_7": Report(
        "Fig. 7. Softmax temperature",
        _values("ssl_temperature", _RECIPES),
        first="temperature τ",
        axis="ssl_temperature",
    ),
    "figure_cost": Report(
        "Cost and quality of the self-supervised methods",
        (_methods("IPNN"), _methods("DIN")),
        (METRICS[0], SECONDS),
        axis="seconds",
        caption=f"{_CONTROLS} {_OF_SECONDS} The line joins what nothing cheaper is better than.",
    ),
}
