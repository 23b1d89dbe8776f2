"""Groups of fields as YAML can write them, and what the grouped sequences have in common."""

from __future__ import annotations

from collections.abc import Sequence

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import MaskedAveragePooling
from torch import Tensor

from fuxictr_miss.errors import InputError, unknown

Fields = str | Sequence[str | Sequence[str]] | None
Group = tuple[str, ...]


def read_groups(key: str, fields: Fields, feature_map: FeatureMap) -> list[Group]:
    """Bring a key to one form: a list of groups, each a tuple of field names.

    `a` is [(a,)]; the list [a, b] is two groups, [(a,), (b,)]; [[a, b]] and the bare tuple (a, b)
    are one group, [(a, b)]; None and [] are no group. FuxiCTR writes a group as a tuple, which
    YAML lacks.

    Raises:
        InputError: for a field that the data lacks.
    """
    if fields is None:
        fields = []
    elif isinstance(fields, str) or (
        isinstance(fields, tuple) and all(isinstance(field, str) for field in fields)
    ):
        fields = [fields]
    groups = [(group,) if isinstance(group, str) else tuple(group) for group in fields]
    for field in [field for group in groups for field in group]:
        if field not in feature_map.features:
            raise unknown(f"field in {key}:", field, feature_map.features)
    return groups


def pair_groups(
    target_key: str, targets: Fields, sequence_key: str, sequences: Fields, feature_map: FeatureMap
) -> list[tuple[Group, Group]]:
    """Read both keys and pair their groups: [(targets, sequences), ...], equally long.

    Raises:
        InputError: for groups that do not pair up, or a sequence field that is none.
    """
    target_groups = read_groups(target_key, targets, feature_map)
    sequence_groups = read_groups(sequence_key, sequences, feature_map)
    if not target_groups or [len(g) for g in target_groups] != [len(g) for g in sequence_groups]:
        raise InputError(
            f"{target_key}={targets!r} and {sequence_key}={sequences!r} must pair up: as many "
            "groups, and as many fields in each."
        )
    for field in [field for group in sequence_groups for field in group]:
        if feature_map.features[field]["type"] != "sequence":
            raise InputError(f"{sequence_key} names {field!r}, which is no sequence.")
    return list(zip(target_groups, sequence_groups, strict=True))


def width(group: Sequence[str], feature_map: FeatureMap, embedding_dim: int) -> int:
    """The dimension of a group's embeddings side by side."""
    return sum(feature_map.features[f].get("embedding_dim", embedding_dim) for f in group)


def flat_embeddings(embeddings: dict[str, Tensor], feature_map: FeatureMap) -> dict[str, Tensor]:
    """The embeddings (B, K) in the order of the feature map.

    A sequence that came un-pooled, (B, L, K), and is still so, is one that the model's keys do
    not name: it counts as FuxiCTR's default for a sequence, the mean of its behaviors.
    """
    pool = MaskedAveragePooling()
    return {
        name: pool(embeddings[name]) if embeddings[name].dim() == 3 else embeddings[name]
        for name in feature_map.features
        if name in embeddings
    }
