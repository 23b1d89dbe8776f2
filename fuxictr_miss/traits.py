"""What a backbone class expects of its data and its config.

The traits of known classes are listed here. Your own class declares them in an attribute,
`traits = Traits(pooled=False)`; otherwise they are found by a training step on synthetic rows.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fuxictr
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.isolated_rng import isolated_rng
from fuxictr_miss.logs import without_fuxictr_info
from fuxictr_miss.mixin import backbone_of
from fuxictr_miss.sequence_groups import field_arguments, flat, sequence_groups

POOLING = "layers.MaskedAveragePooling()"


@dataclasses.dataclass(frozen=True)
class Traits:
    """How a backbone reads behavior sequences.

    Args:
        pooled: it takes one vector per sequence (a pooling `feature_encoder`), not per behavior.
        trim: its batches may be trimmed to their longest history, as it does not use positions.
        padding: the side, "pre" or "post", on which it expects padding; None if it uses a mask.
        needs: keys that the config must set because the class's defaults do not work; for the
            error message.
    """

    pooled: bool = True
    trim: bool = False
    padding: str | None = None
    needs: str = ""


_POOLED = Traits(trim=True)  # a pooled sequence has no positions
_UNPOOLED = Traits(pooled=False, trim=True)
_HYPERNET = (
    "hypernet_config, as {hidden_units: [64, 32], hidden_activations: relu, dropout_rates: 0}, and "
    "a rank_k of at most its narrowest layer"
)
_TASKS = "several labels in label_col, and their number in num_tasks"

# Our un-pooled backbones; all others of model_zoo pool. They use masks, so padding does not matter.
_OURS = dict.fromkeys(("DIEN", "DIN", "DMR", "SIM"), _UNPOOLED)

# The backbones of FuxiCTR's zoo (2.3.10).
_FUXICTR = {
    **dict.fromkeys(
        """
        AFM AFN AOANet AutoInt CCPM DCN DESTINE DLRM DNN DeepCrossing DeepFM DeepIM DualMLP EDCN
        EulerNet FFM FFMv2 FGCNN FM FiBiNET FiGNN FinalMLP FinalNet FmFM FwFM HFM HOFM InterHAt LR
        LorentzFM MaskNet NFM ONN ONNv2 PNN QNN QNN_alpha SAM WideDeep WuKong xDeepFM
        """.split(),  # noqa: SIM905
        _POOLED,
    ),
    "APG_DCNv2": Traits(trim=True, needs=f"parallel_dnn_hidden_units, {_HYPERNET}"),
    "APG_DeepFM": Traits(trim=True, needs=_HYPERNET),
    "DCNv2": Traits(trim=True, needs="parallel_dnn_hidden_units, as [40, 40, 40]"),
    "DSSM": Traits(trim=True, needs="features of source user and of source item (feature_specs)"),
    "FLEN": Traits(trim=True, needs="features of source user, item and context (feature_specs)"),
    "GDCN": Traits(trim=True, needs="dnn_hidden_units, as [40, 40, 40]"),
    "GDCNP": Traits(trim=True, needs="dnn_hidden_units, as [40, 40, 40]"),
    "PPNet": Traits(trim=True, needs="gate_priors: fields without a history, as [user_id]"),
    **dict.fromkeys(("MMoE", "PLE", "ShareBottom"), Traits(trim=True, needs=_TASKS)),
    "DIN": _UNPOOLED,
    "DIEN": Traits(pooled=False, trim=True, padding="post"),  # uses packed sequences
    "BST": Traits(pooled=False),  # a position embedding of fixed length
    "DMIN": Traits(pooled=False, needs="an embedding_dim that num_heads divides"),  # as BST
    "DMR": Traits(pooled=False, padding="pre"),  # as BST; the last position is the newest behavior
    "TransAct": Traits(pooled=False, padding="pre"),  # reads the last first_k_cols positions
}


class Adapted(NamedTuple):
    """A backbone's traits, and the feature map and keys in the form that it expects."""

    traits: Traits
    feature_map: FeatureMap
    params: dict[str, Any]

    def pad(self, columns: dict[str, Tensor], model_class: type[BaseModel]) -> None:
        """Move the padding of the sequence columns (rows, L) to the side that the class expects."""
        if self.traits.padding is not None:
            for group in _sequence_groups(model_class, self.feature_map, self.params):
                side = padded([columns[name] for name in group], self.traits.padding)
                columns.update(zip(group, side, strict=True))


def adapt(
    model_class: type[BaseModel], feature_map: FeatureMap, params: Mapping[str, Any]
) -> Adapted:
    """Adapt the feature map and the config to a backbone or its enhanced variant.

    All models use the same encoded data; only the `feature_encoder` of sequences differs, which
    FuxiCTR reads when it builds the embedding layer. Sequences that no key of an un-pooled model
    names are pooled, as nothing else would use them. Encoders other than FuxiCTR's default stay.

    Raises:
        InputError: the class does not run with this config on this data; says what to set.
    """
    backbone = backbone_of(model_class)
    params = _with_groups(params, feature_map)
    _check_regularizer(backbone, params)
    traits = traits_of(backbone)
    if traits is None or not _is_ours(backbone):
        _check_fields(backbone, feature_map, params)
        traits = _probed(backbone, feature_map, params, traits)
    return Adapted(traits, _encoded(feature_map, backbone, traits, params), params)


def traits_of(model_class: type[BaseModel]) -> Traits | None:
    """The traits of a known backbone or its enhanced variant; None for an unknown one.

    A class derived from a known one inherits its traits, but its histories are not trimmed.
    """
    backbone = backbone_of(model_class)
    for each in backbone.__mro__:
        if "traits" in vars(each):
            return vars(each)["traits"]
        ours = _is_ours(each)
        known = _OURS.get(each.__name__, _POOLED) if ours else _FUXICTR.get(each.__name__)
        if known is not None:
            exact = each is backbone and (ours or ".src." in each.__module__)
            return known if exact else dataclasses.replace(known, trim=False)
    return None


def padded(sequences: list[Tensor], side: str) -> list[Tensor]:
    """Shift the histories of each row so that the padding at their ends is on one side.

    Args:
        sequences: ids (rows, L) each; they describe the same behaviors and shift together.
        side: "pre" or "post".

    Returns:
        The shifted ids (rows, L).
    """
    real = torch.stack([ids != 0 for ids in sequences]).any(dim=0).to(torch.uint8)  # (rows, L)
    at_end = side == "pre"
    shift = (real.flip(1) if at_end else real).argmax(dim=1, keepdim=True)  # padding to move
    everything = torch.arange(real.shape[1])
    source = (everything - shift if at_end else everything + shift) % real.shape[1]
    return [ids.gather(1, source) for ids in sequences]


def _is_ours(model_class: type) -> bool:
    return model_class.__module__.startswith("fuxictr_miss.model_zoo.")


# ---------------------------------------------------------------------- fields in the config


def _with_groups(params: Mapping[str, Any], feature_map: FeatureMap) -> dict[str, Any]:
    """Turn groups of fields into tuples, which FuxiCTR's models require and YAML cannot write."""

    def is_group(value: Any) -> bool:
        return (
            isinstance(value, list)
            and value != []
            and all(isinstance(name, str) and name in feature_map.features for name in value)
        )

    return {
        key: [tuple(each) for each in value]
        if isinstance(value, list) and value and all(is_group(each) for each in value)
        else value
        for key, value in params.items()
    }


def _sequence_groups(
    model_class: type[BaseModel], feature_map: FeatureMap, params: Mapping[str, Any]
) -> list[list[str]]:
    """The groups of sequences that the class's fields name."""
    fields = field_arguments(backbone_of(model_class), params)
    return [g for groups in sequence_groups(fields, feature_map).values() for g in groups]


def _check_regularizer(backbone: type[BaseModel], params: Mapping[str, Any]) -> None:
    """Refuse FuxiCTR's two regularizer keys for FM, FwFM and LR, which take `regularizer`."""
    both = [key for key in ("embedding_regularizer", "net_regularizer") if key in params]
    if both and "regularizer" in inspect.signature(backbone).parameters:
        raise InputError(f"{backbone.__name__} takes regularizer, not {' and '.join(both)}.")


def _check_fields(
    backbone: type[BaseModel], feature_map: FeatureMap, params: Mapping[str, Any]
) -> None:
    """Refuse fields that the data lacks; for default fields, say which keys to set."""
    features = feature_map.features
    fields = field_arguments(backbone, params)
    missing = []
    for key, value in fields.items():
        lacking = [name for name in flat(value) if name not in features]
        if lacking and key in params:
            raise unknown(f"field in {key}:", lacking[0], features)
        missing += lacking
    if missing:
        unset = [key for key in fields if key not in params]
        raise InputError(
            f"{backbone.__name__} asks by default for {', '.join(dict.fromkeys(missing))}, which "
            f"this data lacks. Set its keys, for example: {_example(unset, feature_map)}."
        )


def _example(keys: list[str], feature_map: FeatureMap) -> str:
    """Example YAML for field keys: all sequences, and the features they share tables with."""
    features = feature_map.features
    sequences = [name for name, spec in features.items() if spec["type"] == "sequence"]
    targets = [features[name].get("share_embedding", "...") for name in sequences]
    lines = []
    for key in keys:
        if "neg" in key or "context" in key:
            lines.append(f"{key}: []")
        else:
            lines.append(f"{key}: [[{', '.join(sequences if 'seq' in key else targets)}]]")
    return ", ".join(lines)


def _encoded(
    feature_map: FeatureMap, backbone: type[BaseModel], traits: Traits, params: Mapping[str, Any]
) -> FeatureMap:
    """A copy of the feature map with the sequence encoders that the class expects."""
    adapted = copy.deepcopy(feature_map)
    named = {name for group in _sequence_groups(backbone, feature_map, params) for name in group}
    for name, spec in adapted.features.items():
        if spec["type"] == "sequence" and spec.get("feature_encoder", POOLING) == POOLING:
            if traits.pooled or (named and name not in named):
                spec["feature_encoder"] = POOLING
            else:
                spec.pop("feature_encoder", None)
    return adapted


# ---------------------------------------------------------------------- probing an unknown class

_ROWS, _IDS = 4, 4


def _probed(
    backbone: type[BaseModel],
    feature_map: FeatureMap,
    params: Mapping[str, Any],
    known: Traits | None,
) -> Traits:
    """The traits with which the class can train a step on synthetic rows.

    Raises:
        InputError: it can with none; says why.
    """
    problems = []
    for traits in [known] if known else [Traits(pooled=True), Traits(pooled=False)]:
        problem = _step_error(backbone, _encoded(feature_map, backbone, traits, params), params)
        if problem is None:
            return traits
        problems.append(problem)
    name = backbone.__name__
    if known is None:
        raise InputError(
            f"{name} does not run with this config on this data, neither on pooled sequences "
            f"({problems[0]}) nor on un-pooled ones ({problems[1]}). Its keys: "
            f"{', '.join(_keys(backbone))}."
        )
    advice = f" It needs {known.needs}." if known.needs else ""
    raise InputError(f"{name} does not run with this config on this data: {problems[0]}.{advice}")


def _step_error(
    backbone: type[BaseModel], feature_map: FeatureMap, params: Mapping[str, Any]
) -> str | None:
    """Build the class with tiny tables and train one step; return the error, None if it works."""
    tiny = copy.deepcopy(feature_map)
    for spec in tiny.features.values():
        spec.pop("pretrained_emb", None)
        if "vocab_size" in spec:
            spec["vocab_size"] = _IDS
    device = torch.device("cpu")
    with isolated_rng(device, 0), without_fuxictr_info(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are shown when the real model is built
        try:
            model = backbone(tiny, **{**params, "gpu": -1})
            model._max_gradient_norm = 10.0  # set by fit() before it calls train_step()
            model.train().train_step(_rows(tiny))
            with torch.no_grad():
                model.eval().forward(_rows(tiny))
        except InputError:
            raise
        except Exception as error:  # a foreign class may raise anything
            return error_summary(error)
    return None


def _rows(feature_map: FeatureMap) -> dict[str, Tensor]:
    """A random batch that fits the feature map."""
    shapes = {"sequence": "max_len", "embedding": "pretrain_dim"}
    batch: dict[str, Tensor] = {}
    for name, spec in feature_map.features.items():
        kind = spec["type"]
        if kind != "meta":
            shape = (_ROWS, spec[shapes[kind]]) if kind in shapes else (_ROWS,)
            is_id = kind in ("categorical", "sequence")
            batch[name] = torch.randint(1, _IDS, shape) if is_id else torch.rand(shape)
    for label in feature_map.labels:
        batch[label] = (torch.arange(_ROWS) % 2).float()
    return batch


def error_summary(error: Exception) -> str:
    """The error in one line, with the last line of code outside the libraries in its traceback."""
    text = str(error).strip().splitlines()
    libraries = (torch.__path__[0], fuxictr.__path__[0])
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames[1:] if not each.filename.startswith(libraries)] or frames
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
    return f"{type(error).__name__}{': ' if text else ''}{text[0] if text else ''} in {place}"


def _keys(backbone: type[BaseModel]) -> list[str]:
    names = inspect.signature(backbone).parameters
    return [name for name in names if name not in ("feature_map", "kwargs", "model_id", "gpu")]
