"""The `ssl_` and method keys of a model config, read into checked dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from fuxictr_miss.config_keys import number
from fuxictr_miss.errors import InputError, unknown

STRATEGIES = ("joint", "pretrain", "pretrain_joint")

SettingsT = TypeVar("SettingsT")


@dataclasses.dataclass(frozen=True)
class SSLSettings:
    """Settings shared by all self-supervised methods; the config keys start with `ssl_`."""

    weight: float = 0.5  # α1 of Eq. 17
    feature_weight: float | None = None  # α2 of Eq. 17; None: α1
    temperature: float = 0.1  # τ of Eq. 15
    block_size: int | None = 128  # rows contrasted with one another; None: the batch
    every: int = 1  # contrast at every n-th joint step, with n times the weight
    training: str = "joint"  # one of STRATEGIES
    pretrain_epochs: int = 30  # maximum; the held-out contrastive loss may stop it earlier
    pretrain_batch_size: int | None = None  # histories per pretraining step; None: batch_size
    pretrain_learning_rate: float | None = None  # None: learning_rate
    embedding_lr_scale: float = 1.0  # factor for all tables after a pretraining; 0 freezes
    # one behavior's sequences, or one list per behavior; None: the behaviors the backbone reads
    sequences: list | None = None

    def __post_init__(self) -> None:
        require(self.weight >= 0, "ssl_weight", self.weight, "0 or more")
        require((self.feature_weight or 0) >= 0, "ssl_feature_weight", self.feature_weight, ">= 0")
        require(self.temperature > 0, "ssl_temperature", self.temperature, "positive")
        block = self.block_size
        require(block is None or block >= 1, "ssl_block_size", block, "1 or more, or null")
        require(self.every >= 1, "ssl_every", self.every, "1 or more")
        require(self.pretrain_epochs >= 1, "ssl_pretrain_epochs", self.pretrain_epochs, ">= 1")
        size, rate = self.pretrain_batch_size, self.pretrain_learning_rate
        require(size is None or size >= 1, "ssl_pretrain_batch_size", size, "1 or more, or null")
        require(rate is None or rate > 0, "ssl_pretrain_learning_rate", rate, "positive, or null")
        scale = self.embedding_lr_scale
        require(scale >= 0, "ssl_embedding_lr_scale", scale, "0 or more")
        names = [name for group in self.behaviors for name in group]
        once = all(self.behaviors) and len(set(names)) == len(names)
        named = all(isinstance(name, str) for name in names) and (names or self.sequences is None)
        rule = "a list of sequences, each once, or a list of such lists, or null"
        require(bool(once and named), "ssl_sequences", self.sequences, rule)
        if self.training not in STRATEGIES:
            raise unknown("ssl_training", self.training, STRATEGIES)

    @property
    def behaviors(self) -> list[list[str]]:
        """`sequences` as one list per behavior; empty if the backbone decides."""
        if self.sequences and all(isinstance(each, list | tuple) for each in self.sequences):
            return [list(each) for each in self.sequences]
        return [list(self.sequences)] if self.sequences else []

    @property
    def alpha(self) -> tuple[float, float]:
        """α1 and α2."""
        second = self.weight if self.feature_weight is None else self.feature_weight
        return self.weight, second


def require(holds: bool, key: str, value: object, rule: str) -> None:
    """Raise an `InputError` with the key, the rule and the value unless `holds`."""
    if not holds:
        raise InputError(f"{key} must be {rule}, got {value!r}.")


def read_settings(kind: type[SettingsT], prefix: str, params: Mapping[str, Any]) -> SettingsT:
    """Build `kind` from the keys of `params` that start with `prefix`.

    Raises:
        InputError: a value has the wrong type or breaks a rule of `kind`.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        key = prefix + field.name
        if key in params:
            kind_of_value = field.type
            if not isinstance(kind_of_value, str):  # no `from __future__ import annotations`
                kind_of_value = inspect.formatannotation(kind_of_value)
            values[field.name] = _checked(key, params[key], kind_of_value)
    return kind(**values)


def keys_of(kind: type, prefix: str) -> list[str]:
    """The config keys of a settings class."""
    return [prefix + field.name for field in dataclasses.fields(kind)]


def check_keys(params: Mapping[str, Any], prefixes: Iterable[str], valid: Iterable[str]) -> None:
    """Refuse an unknown key with one of the prefixes.

    Raises:
        InputError: names the key and the closest valid one.
    """
    starts, valid = tuple(prefixes), set(valid)
    for key in params:
        if str(key).startswith(starts) and key not in valid:
            raise unknown("key", key, valid)


def _checked(key: str, value: Any, annotation: str) -> Any:
    """Convert `value` to the annotated type.

    Raises:
        InputError: says which type was expected.
    """
    allowed = [each.strip() for each in annotation.split("|")]
    if value is None and "None" in allowed:
        return None
    if "float" in allowed:
        value = number(value)
        if type(value) in (int, float):
            require(math.isfinite(value), key, value, "a finite number")
            return float(value)
    if type(value).__name__ in allowed:
        return value
    if isinstance(value, list | tuple):
        for each in allowed:
            if each.startswith("list["):
                inner = each[5:-1]
                return [_checked(f"an entry of {key}", entry, inner) for entry in value]
    raise InputError(f"{key} must be of type {annotation.replace('|', 'or')}, got {value!r}.")
