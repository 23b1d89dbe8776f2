"""What each table and figure of the paper compares (Section VI)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

ROMAN = {2: "II", 3: "III", 4: "IV", 5: "V", 6: "VI", 7: "VII", 8: "VIII", 9: "IX", 10: "X"}
METRICS = {"AUC": "AUC", "logloss": "Logloss"}  # ours -> the paper's
HIGHER_IS_BETTER = {"AUC": True, "logloss": False}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of a table of the paper, as a model with settings.

    Args:
        name: the row's name in the paper.
        model: our name of the model; the expid is `<model>_<data set>`.
        settings: keys that this row sets in the model's config.
        ours: whether it is compared with the strongest baseline of its block.
    """

    name: str
    model: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ours: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper; rows are compared within their block.

    In Tables IX and X each row sets the key `rate` to one of `rates` for both models of the block.
    """

    title: str
    blocks: tuple[tuple[Variant, ...], ...] = ()
    rate: str = ""
    rates: tuple[float, ...] = ()
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A curve over the values of a key (Fig. 6, 7) or over the steps of a run (Fig. 5)."""

    title: str
    variants: tuple[Variant, ...]
    key: str = ""
    values: tuple[float, ...] = ()
    caption: str = ""

    def at(self, value: float) -> Variant:
        """The model of Fig. 6 or 7 at one value of the key."""
        (variant,) = self.variants
        return dataclasses.replace(variant, settings={**variant.settings, self.key: value})


def at_rate(variant: Variant, key: str, rate: float) -> Variant:
    """A model of Table IX or X at one rate."""
    return dataclasses.replace(variant, settings={**variant.settings, key: rate})


_BACKBONES = {"IPNN": "PNN", "DIN": "DIN", "FiGNN": "FiGNN"}
_METHODS = ("Rule", "IRSSL", "S3Rec", "CL4SRec")
_ABLATIONS = ("/F", "/F/U", "/F/L", "/F/U/L", "/M/F/U/L")  # a longer name removes more
_JOINT = {"ssl_training": "joint"}
_PRE = {"ssl_training": "pretrain"}
_PRE_JOINT = {"ssl_training": "pretrain_joint", "ssl_embedding_lr_scale": 1.0}
_SEARCHED = (0.05, 0.1, 0.5, 1.0, 5.0)  # α and τ in Section VI.A.5
_DIN = Variant("DIN", "DIN")


def _plain(name: str) -> Variant:
    return Variant(name, _BACKBONES[name])


def _miss(name: str) -> Variant:
    return Variant(f"{name}-MISS", f"{_BACKBONES[name]}_MISS", ours=True)


def _methods(name: str) -> tuple[Variant, ...]:
    others = [Variant(f"{name}-{m}", f"{_BACKBONES[name]}_{m}") for m in _METHODS]
    return (_plain(name), *others, _miss(name))


def _ablations(name: str) -> tuple[Variant, ...]:
    parts = [
        Variant(f"{name}-MISS{part}", f"{_BACKBONES[name]}_MISS", {"miss_variant": part})
        for part in _ABLATIONS
    ]
    return (_miss(name), *parts, _plain(name))


TABLES = {
    2: Table("Dataset statistics"),
    3: Table(
        "Overall performance",
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
                Variant("MISS", "DIN_MISS", ours=True),
            ),
        ),
    ),
    4: Table("Compatibility", tuple((_plain(n), _miss(n)) for n in ("DIN", "IPNN", "FiGNN"))),
    5: Table("Self-supervised methods", tuple(_methods(name) for name in ("IPNN", "DIN"))),
    6: Table("Ablations", tuple(_ablations(name) for name in ("IPNN", "DIN"))),
    7: Table(
        "Multi-interest extractors",
        (
            (
                _DIN,
                Variant("MISS-SA", "DIN_MISS", {"miss_extractor": "self_attention"}),
                Variant("MISS-LSTM", "DIN_MISS", {"miss_extractor": "lstm"}),
                Variant("MISS-CNN", "DIN_MISS", {"miss_extractor": "cnn"}, ours=True),
            ),
        ),
    ),
    8: Table(
        "Training strategies",
        (
            (
                _DIN,
                Variant("MISS-Joint", "DIN_MISS", _JOINT, ours=True),
                Variant("MISS-Pre", "DIN_MISS", _PRE, ours=True),
                Variant("MISS-Pre-Joint", "DIN_MISS", _PRE_JOINT, ours=True),
            ),
        ),
        caption="MISS-Pre-Joint (pretraining, then joint training) is not in the paper.",
    ),
    9: Table(
        "Sampling rate (SR) of the training rows",
        ((_DIN, _miss("DIN")),),
        rate="train_sample_rate",
        rates=(0.8, 0.9, 1.0),
    ),
    10: Table(
        "Label noise rate (NR) of the training rows",
        ((_DIN, _miss("DIN")),),
        rate="label_noise_rate",
        rates=(0.0, 0.1, 0.2),
    ),
}

FIGURES = {
    5: Figure(
        "Similarity of the views over training steps",
        tuple(dataclasses.replace(variant, ours=False) for variant in TABLES[7].blocks[0][1:]),
        caption="Mean over the seeds.",
    ),
    6: Figure(
        "Weight of the self-supervised losses",
        (Variant("MISS", "DIN_MISS", _JOINT),),
        key="ssl_weight",
        values=_SEARCHED,
        caption="Under joint training (Eq. 17), where α1 = α2 weighs one loss against another; "
        "a pretraining without labels hardly depends on it.",
    ),
    7: Figure(
        "Softmax temperature",
        (Variant("MISS", "DIN_MISS"),),
        key="ssl_temperature",
        values=_SEARCHED,
        caption="Under the configured training strategy.",
    ),
}
