"""What each table and figure of the paper shows (Section VI): a report is a piece of data.

A new row is one `Variant`, a new column one `Metric`, a new table one entry of `REPORTS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

BASELINE, CONTROL, OURS = "baseline", "control", "ours"
DATASETS = {  # as people say them, in figures
    "amazonbeauty": "Amazon Beauty",
    "amazoncds": "Amazon CDs",
    "amazoncds_subset": "Amazon CDs (part)",
    "amazonbooks": "Amazon Books",
    "alipay": "Alipay",
}


@dataclasses.dataclass(frozen=True)
class Metric:
    """A column for each data set.

    Args:
        name: the head of the column.
        read: gives the value of a row of the results file, or None.
        sign: 1 if higher is better, -1 if lower is, 0 if neither.
    """

    name: str
    read: Callable[[Mapping[str, Any]], float | None]
    sign: int = 1


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of a table: a model with settings.

    Args:
        name: the row's name in the paper.
        model: our name of the model; the expid is `<model>_<data set>`.
        settings: keys that this row sets in the model's config.
        role: `OURS` is compared with the strongest `BASELINE` and the strongest `CONTROL`.
    """

    name: str
    model: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    role: str = BASELINE


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
        axis: what a figure plots the metrics over: a key of `settings`, or "training step".
    """

    title: str
    blocks: tuple[tuple[Variant, ...], ...]
    metrics: tuple[Metric, ...]
    first: str = "Model"
    split: str = "Test split"
    caption: str = ""
    axis: str = ""


def _similarity(epoch: int) -> Callable[[Mapping[str, Any]], float | None]:
    def read(row: Mapping[str, Any]) -> float | None:
        curve = row.get("curve", {}).get("similarity")
        return curve[epoch] if curve else None

    return read


_METRICS = (
    Metric("AUC", lambda row: row.get("test_AUC")),
    Metric("Logloss", lambda row: row.get("test_logloss"), sign=-1),
)
_FIG_5 = (
    Metric("first epoch", _similarity(0), sign=0),
    Metric("last epoch", _similarity(-1), sign=0),
)

_BACKBONES = {"IPNN": "PNN", "DIN": "DIN", "FiGNN": "FiGNN"}
_METHODS = ("Rule", "IRSSL", "S3Rec", "CL4SRec")
_ABLATIONS = ("/F", "/F/U", "/F/L", "/F/U/L", "/M/F/U/L")  # a longer name removes more
_JOINT = {"ssl_training": "joint"}
_PRE = {"ssl_training": "pretrain"}
_PRE_JOINT = {"ssl_training": "pretrain_joint", "ssl_embedding_lr_scale": 1.0}
_SEARCHED = (0.05, 0.1, 0.5, 1.0, 5.0)  # α and τ in Section VI.A.5
_DIN = Variant("DIN", "DIN")


def _pair(name: str) -> tuple[Variant, Variant]:
    """A backbone without and with MISS."""
    model = _BACKBONES[name]
    return Variant(name, model), Variant(f"{name}-MISS", f"{model}_MISS", role=OURS)


def _methods(name: str) -> tuple[Variant, ...]:
    plain, miss = _pair(name)
    return (plain, *(Variant(f"{name}-{m}", f"{plain.model}_{m}") for m in _METHODS), miss)


def _ablations(name: str) -> tuple[Variant, ...]:
    plain, miss = _pair(name)
    parts = (Variant(miss.name + x, miss.model, {"miss_variant": x}) for x in _ABLATIONS)
    return (miss, *parts, plain)


def _rates(short: str, key: str, *rates: float) -> tuple[tuple[Variant, ...], ...]:
    """One block a rate: DIN and DIN-MISS."""
    return tuple(
        tuple(
            dataclasses.replace(each, name=f"{each.name}, {short} {rate:.0%}", settings={key: rate})
            for each in _pair("DIN")
        )
        for rate in rates
    )


def _values(key: str, settings: Mapping[str, Any]) -> tuple[tuple[Variant, ...], ...]:
    """One block: MISS at every value of a key."""
    row = Variant("", "DIN_MISS", role=OURS)
    return (
        tuple(
            dataclasses.replace(row, name=f"{value:g}", settings={**settings, key: value})
            for value in _SEARCHED
        ),
    )


_EXTRACTORS = (
    Variant("MISS-SA", "DIN_MISS", {"miss_extractor": "self_attention"}),
    Variant("MISS-LSTM", "DIN_MISS", {"miss_extractor": "lstm"}),
    Variant("MISS-CNN", "DIN_MISS", {"miss_extractor": "cnn"}, OURS),
)

REPORTS = {
    "table_2": Report("Table II. Dataset statistics", (), (), "Dataset"),
    "table_3": Report(
        "Table III. Overall performance",
        (
            (
                Variant("LR", "LR"),
                Variant("FM", "FM"),
                Variant("DeepFM", "DeepFM"),
                Variant("IPNN", "PNN"),
                Variant("DCN", "DCN"),
                Variant("DCN-M", "DCNv2"),
                Variant("xDeepFM", "xDeepFM"),
                _DIN,
                Variant("DIEN", "DIEN"),
                Variant("SIM(soft)", "SIM"),
                Variant("DMR", "DMR"),
                Variant("AutoInt+", "AutoInt"),
                Variant("FiGNN", "FiGNN"),
                Variant("MISS", "DIN_MISS", role=OURS),
            ),
        ),
        _METRICS,
    ),
    "table_4": Report(
        "Table IV. Compatibility", tuple(_pair(name) for name in ("DIN", "IPNN", "FiGNN")), _METRICS
    ),
    "table_5": Report(
        "Table V. Self-supervised methods", (_methods("IPNN"), _methods("DIN")), _METRICS
    ),
    "table_6": Report("Table VI. Ablations", (_ablations("IPNN"), _ablations("DIN")), _METRICS),
    "table_7": Report("Table VII. Multi-interest extractors", ((_DIN, *_EXTRACTORS),), _METRICS),
    "table_8": Report(
        "Table VIII. Training strategies",
        (
            (
                _DIN,
                Variant("MISS-Joint", "DIN_MISS", _JOINT, OURS),
                Variant("MISS-Pre", "DIN_MISS", _PRE, OURS),
                Variant("MISS-Pre-Joint", "DIN_MISS", _PRE_JOINT, OURS),
            ),
        ),
        _METRICS,
        caption="MISS-Pre-Joint (pretraining, then joint training) is not in the paper.",
    ),
    "table_9": Report(
        "Table IX. Sampling rate (SR) of the training rows",
        _rates("SR", "train_sample_rate", 0.8, 0.9, 1.0),
        _METRICS,
    ),
    "table_10": Report(
        "Table X. Label noise rate (NR) of the training rows",
        _rates("NR", "label_noise_rate", 0.0, 0.1, 0.2),
        _METRICS,
    ),
    "figure_5": Report(
        "Fig. 5. Cosine similarity of the views over training steps",
        (tuple(dataclasses.replace(each, role=OURS) for each in _EXTRACTORS),),
        _FIG_5,
        first="Extractor",
        split="Training batches",
        axis="training step",
    ),
    "figure_6": Report(
        "Fig. 6. Weight of the self-supervised losses",
        _values("ssl_weight", _JOINT),
        _METRICS,
        first="loss weight α1 = α2",
        axis="ssl_weight",
        caption="Under joint training (Eq. 17), where α1 = α2 weighs one loss against another; "
        "a pretraining without labels hardly depends on it.",
    ),
    "figure_7": Report(
        "Fig. 7. Softmax temperature",
        _values("ssl_temperature", {}),
        _METRICS,
        first="temperature τ",
        axis="ssl_temperature",
        caption="Under the configured training strategy.",
    ),
}
