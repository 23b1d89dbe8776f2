"""Keys that have a new name: ours, for one release, and those of FuxiCTR 1 and 2.0."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fuxictr_miss.errors import InputError

log = logging.getLogger(__name__)

RENAMED = {"ssl_embedding_lr_scale": ("ssl_label_gradient", "ssl_other_gradient")}  # 0.3
# As most configs of the BARS benchmark have them.
_OF_OLD_FUXICTR = {
    "patience": "early_stop_patience",
    "workers": "num_workers",
    "debug": "debug_mode",
    "ordered_features": "use_features",
}
_EVERY_EPOCH = ("every_x_epochs", "eval_interval")
_WITHOUT_EFFECT = ("use_hdf5", "partition_block_size", "version")  # of how FuxiCTR kept its data


def with_new_names(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys with an old name replaced by the new ones, which get its value.

    Raises:
        InputError: an old key has a value that no new key can have, or another than the new one.
    """
    new = dict(params)
    for old, names in RENAMED.items():
        if old in new:
            log.warning("%s is now %s: use the new names.", old, " and ".join(names))
            new.update(dict.fromkeys(names, new.pop(old)))
    for old, name in _OF_OLD_FUXICTR.items():
        if old in new:
            value = new.pop(old)
            if new.setdefault(name, value) != value:
                raise InputError(
                    f"{old} is {value!r}, and {name}, its name in FuxiCTR 2.3, is {new[name]!r}: "
                    f"remove one of them."
                )
            log.warning("%s is read as %s, its name in FuxiCTR 2.3.", old, name)
    for old in _EVERY_EPOCH:
        if new.pop(old, 1) != 1:
            raise InputError(
                f"{old} is {params[old]!r}, which FuxiCTR 2.3 has not: remove it to evaluate after "
                "each epoch, or set eval_steps to a number of batches."
            )
    for old in _WITHOUT_EFFECT:
        new.pop(old, None)
    if isinstance(new.get("feature_cols"), list):
        new["feature_cols"] = [_column(each) for each in new["feature_cols"]]
    return new


def _column(column: Any) -> Any:
    """An entry of feature_cols: `encoder` and `na_value` are FuxiCTR 1's names."""
    if not isinstance(column, dict):
        return column
    new = dict(column)
    if "na_value" in new:
        new.setdefault("fill_na", new["na_value"])
        del new["na_value"]
    if "encoder" in new:
        encoder = new.pop("encoder")
        named = encoder not in (None, "", "null")
        new.setdefault("feature_encoder", f"layers.{encoder}()" if named else None)
    return new
