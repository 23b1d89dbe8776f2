"""Adapt a data set and a config to a backbone: all models use the same encoded data."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.fuxictr_fixes.field_groups import groups_as_tuples
from fuxictr_miss.fuxictr_fixes.trial_step import trial_step
from fuxictr_miss.mixin import backbone_of
from fuxictr_miss.sequence_groups import field_arguments, flat, sequence_groups
from fuxictr_miss.traits import Traits, possible_traits

POOLING = "layers.MaskedAveragePooling()"
_NOT_IN_CONFIG = {"feature_map", "kwargs", "model_id", "gpu"}


class Adapted(NamedTuple):
    """A backbone's traits, and the feature map and keys in the form that it expects."""

    traits: Traits
    feature_map: FeatureMap
    params: dict[str, Any]

    def pad(self, columns: dict[str, Tensor], model_class: type[BaseModel]) -> None:
        """Move the padding of the sequence columns (rows, L) to the side that the class expects."""
        if self.traits.padding is not None:
            for group in _sequence_groups(backbone_of(model_class), self.feature_map, self.params):
                side = padded([columns[name] for name in group], self.traits.padding)
                columns.update(zip(group, side, strict=True))


def adapt(
    model_class: type[BaseModel], feature_map: FeatureMap, params: Mapping[str, Any]
) -> Adapted:
    """Adapt the feature map and the config to a backbone or its enhanced variant.

    Only the `feature_encoder` of sequences differs between backbones; FuxiCTR reads it when it
    builds the embedding layer. Sequences that no key of an un-pooled model names are pooled, as
    nothing else would use them. Encoders other than FuxiCTR's default stay.

    Raises:
        InputError: the class does not run with this config on this data; says what to set.
    """
    backbone = backbone_of(model_class)
    params = groups_as_tuples(params, feature_map)
    _check_regularizer(backbone, params)
    _check_fields(backbone, feature_map, params)
    errors = []
    for traits in possible_traits(backbone):
        encoded = _encoded(feature_map, backbone, traits, params)
        error = trial_step(backbone, encoded, params)
        if error is None:
            return Adapted(traits, encoded, params)
        errors.append(error)
    reason = errors[0]
    if len(set(errors)) > 1:
        reason = f"{errors[0]} on pooled sequences, {errors[1]} on un-pooled ones"
    needs = f"It needs {traits.needs}. " if traits.needs else ""
    keys = [key for key in inspect.signature(backbone).parameters if key not in _NOT_IN_CONFIG]
    raise InputError(
        f"{backbone.__name__} does not run with this config on this data: {reason}. {needs}Check "
        f"its keys ({', '.join(keys)}), and the embedding_dim of single features if any has its "
        "own."
    )


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


def _sequence_groups(
    backbone: type[BaseModel], feature_map: FeatureMap, params: Mapping[str, Any]
) -> list[list[str]]:
    """The groups of sequences that the class's fields name."""
    fields = field_arguments(backbone, params)
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
    missing: list[str] = []
    unset: list[str] = []
    for key, value in field_arguments(backbone, params).items():
        lacking = [name for name in flat(value) if name not in features]
        if key not in params:
            missing += lacking
            unset.append(key)
        elif lacking:
            raise unknown(f"field in {key}:", lacking[0], features)
    if missing:
        raise InputError(
            f"{backbone.__name__} asks by default for {', '.join(dict.fromkeys(missing))}, which "
            f"this data lacks. Set its keys, for example: {_example(unset, feature_map)}."
        )


def _example(keys: list[str], feature_map: FeatureMap) -> str:
    """Example YAML for field keys: all sequences, and the features they share tables with."""
    targets = {
        name: spec.get("share_embedding", "...")
        for name, spec in feature_map.features.items()
        if spec["type"] == "sequence"
    }
    lines = []
    for key in keys:
        names = ", ".join(targets if "seq" in key else targets.values())
        lines.append(f"{key}: " + ("[]" if "neg" in key or "context" in key else f"[[{names}]]"))
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
