"""Group the sequences of a data set into behaviors, as the backbone reads them."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fuxictr.features import FeatureMap

from fuxictr_miss.errors import unknown

# words in a key or a name: what was shown and passed over, or refused
_NEGATIVE = {
    "neg", "negative", "negatives", "skip", "skips", "skipped", "dislike", "dislikes", "disliked",
    "unclicked", "noclk", "noclick", "nonclick", "not",
}  # fmt: skip


def field_arguments(backbone: type, params: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a class's `*_field` arguments, from the config or by default."""
    return {
        name: params.get(name, argument.default)
        for name, argument in inspect.signature(backbone).parameters.items()
        if name.endswith("_field")
    }


def sequence_groups(
    fields: Mapping[str, Any], feature_map: FeatureMap
) -> dict[str, list[list[str]]]:
    """The groups of sequences in the values of field keys; keys that name no sequence are left out.

    Values are in FuxiCTR's form: the list [a, b] is two groups, [(a, b)] and (a, b) are one.
    """
    sequences = set(_sequences(feature_map))
    found: dict[str, list[list[str]]] = {}
    for key, value in fields.items():
        groups = [
            [name for name in flat(group) if name in sequences]
            for group in (value if isinstance(value, list) else [value])
        ]
        if any(groups):
            found[key] = [names for names in groups if names]
    return found


def behavior_groups(
    backbone: type, feature_map: FeatureMap, params: Mapping[str, Any]
) -> list[list[str]]:
    """The behaviors that a backbone reads, each a list of the sequences that are its attributes.

    They come from the first of these that names a sequence: the backbone's own `*_field` arguments;
    the first such `*_field` key of the config; the feature map, where a new behavior begins at each
    change of `max_len` and at each second sequence of the same table. Keys and sequences with a
    word like "neg", "skipped" or "disliked" in their names are left out. A class that reads all of
    its groups as attributes of one behavior sets the class attribute `reads_one_behavior = True`.
    """
    own = sequence_groups(field_arguments(backbone, params), feature_map)
    others = {key: value for key, value in params.items() if key.endswith("_field")}
    named = own or dict(itertools.islice(sequence_groups(others, feature_map).items(), 1))
    if named:
        groups = [g for key, each in named.items() if not _is_negative(key) for g in each]
    else:
        groups = _by_table(feature_map)
    if own and getattr(backbone, "reads_one_behavior", False):
        groups = [flat(groups)]
    behaviors = [tuple(name for name in group if not _is_negative(name)) for group in groups]
    return [list(behavior) for behavior in dict.fromkeys(behaviors) if behavior]


def flat(fields: Any) -> list[str]:
    """The names in a field, a group of fields, or a list of both."""
    if isinstance(fields, str):
        return [fields]
    if isinstance(fields, list | tuple):
        return [name for each in fields for name in flat(each)]
    return []


def _sequences(feature_map: FeatureMap) -> list[str]:
    return [name for name, spec in feature_map.features.items() if spec["type"] == "sequence"]


def _is_negative(name: str) -> bool:
    return not _NEGATIVE.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def _by_table(feature_map: FeatureMap) -> list[list[str]]:
    groups: list[list[str]] = []
    seen: set[tuple[Any, ...]] = set()
    for name in _sequences(feature_map):
        if _is_negative(name):
            continue
        spec = feature_map.features[name]
        length, table = ("max_len", spec["max_len"]), ("table", spec.get("share_embedding", name))
        if not groups or length not in seen or table in seen:
            groups.append([])
            seen = {length}
        groups[-1].append(name)
        seen.add(table)
    return groups


def check_names(names: Iterable[str], feature_map: FeatureMap) -> None:
    """Refuse a name in `ssl_sequences` that is not a sequence of the data set.

    Raises:
        InputError: names the closest valid one.
    """
    available = _sequences(feature_map)
    for name in names:
        if name not in available:
            raise unknown("sequence in ssl_sequences", name, available)
