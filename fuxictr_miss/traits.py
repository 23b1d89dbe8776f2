"""What a backbone class expects of its sequences, in one place."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from torch import nn

POOLING = "layers.MaskedAveragePooling()"


@dataclasses.dataclass(frozen=True)
class Traits:
    """How a backbone reads behavior sequences.

    Args:
        pooled: it wants one vector a sequence (a pooling `feature_encoder`), not one a behavior.
        trim: its batches may be cut to the longest history in them, as it reads no position.
    """

    pooled: bool = True
    trim: bool = True


# Attention over the history itself. All others stack or concatenate one vector a field.
_UNPOOLED = dict.fromkeys(("DIEN", "DIN", "DMR", "SIM"), Traits(pooled=False))


def traits_of(model_class: type[nn.Module]) -> Traits:
    """The traits of a backbone or of its enhanced variant, by class name.

    A class of unknown name may carry its own as the attribute `traits`; else it is taken for one
    that pools, as all of FuxiCTR's feature-interaction models do.
    """
    for each in model_class.__mro__:
        if "traits" in vars(each):
            return vars(each)["traits"]
        if each.__name__ in _UNPOOLED:
            return _UNPOOLED[each.__name__]
    return Traits()


def adapt_feature_map(feature_map: Any, model_class: type[nn.Module]) -> Any:
    """A copy of the feature map whose sequences are encoded as the model wants them.

    One data set serves all models: only `feature_encoder` changes, which FuxiCTR reads when it
    builds the embedding layer. A `feature_encoder` other than FuxiCTR's default stays.
    """
    adapted = copy.deepcopy(feature_map)
    for spec in adapted.features.values():
        if spec["type"] == "sequence" and spec.get("feature_encoder", POOLING) == POOLING:
            if traits_of(model_class).pooled:
                spec["feature_encoder"] = POOLING
            else:
                spec.pop("feature_encoder", None)
    return adapted
