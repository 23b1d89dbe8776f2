"""Read groups of fields from the config, and combine the embeddings of fields."""

from __future__ import annotations

from collections.abc import Sequence

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import MaskedAveragePooling
from torch import Tensor

from fuxictr_miss.errors import InputError, unknown

FieldKey = str | Sequence[str | Sequence[str]] | None
Group = tuple[str, ...]


def read_groups(key: str, fields: FieldKey, feature_map: FeatureMap) -> list[Group]:
    """Normalise the value of a field key to a list of groups, each a tuple of field names.

    `a` becomes [(a,)]; the list [a, b] becomes two groups, [(a,), (b,)]; [[a, b]] and the bare
    tuple (a, b) become one group, [(a, b)]; None and [] become []. FuxiCTR writes a group as a
    tuple, which YAML lacks.

    Raises:
        InputError: a field is not in the data.
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
    target_key: str,
    targets: FieldKey,
    sequence_key: str,
    sequences: FieldKey,
    feature_map: FeatureMap,
) -> list[tuple[Group, Group]]:
    """Read both keys and pair their groups of equal length: [(targets, sequences), ...].

    Raises:
        InputError: the groups do not pair up, or a field of `sequences` is not a sequence.
    """
    target_groups = read_groups(target_key, targets, feature_map)
    sequence_groups = read_groups(sequence_key, sequences, feature_map)
    if not target_groups or [len(g) for g in target_groups] != [len(g) for g in sequence_groups]:
        raise InputError(
            f"{target_key}={targets!r} and {sequence_key}={sequences!r} must pair up: the same "
            "number of groups, and of fields in each."
        )
    for field in [field for group in sequence_groups for field in group]:
        if feature_map.features[field]["type"] != "sequence":
            raise InputError(f"{sequence_key} names {field!r}, which is not a sequence.")
    return list(zip(target_groups, sequence_groups, strict=True))


def width(group: Sequence[str], feature_map: FeatureMap, embedding_dim: int) -> int:
    """The dimension of a group's concatenated embeddings."""
    return sum(feature_map.features[f].get("embedding_dim", embedding_dim) for f in group)


def flat_embeddings(embeddings: dict[str, Tensor], feature_map: FeatureMap) -> dict[str, Tensor]:
    """The embeddings (B, K) in the order of the feature map, sequences (B, L, K) pooled.

    A sequence that is still un-pooled is not named by the model's keys. It is pooled to the mean of
    its behaviors, FuxiCTR's default.
    """
    pool = MaskedAveragePooling()
    return {
        name: pool(embeddings[name]) if embeddings[name].dim() == 3 else embeddings[name]
        for name in feature_map.features
        if name in embeddings
    }
