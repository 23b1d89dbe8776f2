"""Turn groups of fields into tuples.

Fault: FuxiCTR's sequence models (`model_zoo/DIN/src/DIN.py` and its like) tell a group of fields
from a list of fields by `isinstance(field, tuple)`, and YAML has no tuples.
Obsolete when they take lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fuxictr.features import FeatureMap


def groups_as_tuples(params: Mapping[str, Any], feature_map: FeatureMap) -> dict[str, Any]:
    """A copy of the config; `[[item_id, cate_id]]` becomes `[(item_id, cate_id)]`."""

    def is_group(value: Any) -> bool:
        return (
            isinstance(value, list)
            and value != []
            and all(isinstance(name, str) and name in feature_map.features for name in value)
        )

    return {
        key: [tuple(each) for each in value]
        if isinstance(value, list) and all(map(is_group, value))
        else value
        for key, value in params.items()
    }
