"""The `ssl_` and method keys of a config, read into dataclasses whose annotations check them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import AfterValidator, ValidatorFunctionWrapHandler, WrapValidator

from fuxictr_miss.config.values import (
    Checked,
    Count,
    NonNegative,
    Places,
    Positive,
    Share,
    Switch,
    described,
)

SettingsT = TypeVar("SettingsT")


def _each_once(sequences: list[Any]) -> list[Any]:
    names = [name for group in _groups(sequences) for name in group]
    if not names or not all(_groups(sequences)) or len(set(names)) < len(names):
        raise ValueError
    return sequences


def _groups(sequences: list[Any]) -> list[list[str]]:
    """One list per behavior."""
    if all(isinstance(each, list) for each in sequences):
        return sequences
    return [sequences]


def _or_null(value: Any, check: ValidatorFunctionWrapHandler) -> float | None:
    return None if value is None else check(value)


Recipe = Literal["paper", "recommended"]
# null only as long as K is not known: a method gets a number (`SSLSettings.of_width`)
Temperature = Annotated[
    float, described("a number above 0, or null", gt=0), WrapValidator(_or_null)
]
Sequences = Annotated[
    list[str] | list[list[str]],
    AfterValidator(_each_once),
    described("a list of sequences, each once, or a list of such lists"),
]


@dataclasses.dataclass(frozen=True)
class SSLSettings:
    """Settings shared by all self-supervised methods; the config keys start with `ssl_`."""

    recipe: Recipe | None = None  # the set of values that missing keys get (config/recipes.yaml)
    weight: NonNegative = 0.5  # α1 of Eq. 17
    feature_weight: NonNegative | None = None  # α2 of Eq. 17; None: α1
    temperature: Temperature = 0.1  # τ of Eq. 15; null: 0.1 √(K / 10), for K dimensions
    block_size: Count | None = 128  # rows that InfoNCE contrasts with one another; None: the batch
    gather_negatives: Switch = True  # of torchrun's processes, where they share a block
    every: Count = 1  # contrast at every n-th joint step, with n times the weight
    training: Literal["joint", "pretrain", "pretrain_joint"] = "joint"  # Table VIII
    pretrain_epochs: Count = 30  # maximum; at a constant rate the held-out loss may stop it
    pretrain_batch_size: Count | None = None  # histories per pretraining step; None: batch_size
    pretrain_learning_rate: Positive | None = None  # None: learning_rate
    pretrain_schedule: Literal["constant", "linear"] = "constant"  # of its rate; linear: down to 0
    # pairs: users by behaviors - 1, or by behaviors where one has a pair
    pretrain_sampling: Literal["users", "pairs"] = "users"
    start: Literal["tables", "svd"] = "tables"  # of the tables, before any training; svd: PPMI-SVD
    # of the tables' rows after the pretraining; log_count: as log(1 + count), 1 on average
    row_norm: Literal["free", "log_count"] = "free"
    # share of the label loss's gradient that reaches the tables which the contrastive loss trains
    label_gradient: Share = 1.0
    other_gradient: Share = 1.0  # the same for all other tables, such as the user's
    label_learning_rate: Positive | None = None  # of the label phase; None: learning_rate
    # trials at the end, each kept only if validation improves: all tables train, twice, and frozen
    # tables meet the newest rows of each user alone
    thaw: Switch = False
    user: str | None = None  # column of the user; None: group_id, or user_id, userid, user
    # one behavior's sequences, or one list per behavior; None: the behaviors the backbone reads
    sequences: Sequences | None = None

    def of_width(self, dim: int) -> SSLSettings:
        """The settings for embeddings of K = `dim`, with their temperature.

        At one temperature, wider embeddings fit the training pairs more closely and are worth less:
        validation prefers 0.1 for 10 dimensions, 0.2 for 32 and 0.3 for 64 (docs/method.md).
        """
        if self.temperature is not None:
            return self
        return dataclasses.replace(self, temperature=0.1 * math.sqrt(dim / 10))

    @property
    def behaviors(self) -> list[list[str]]:
        """`sequences` as one list per behavior; empty if the backbone decides."""
        return _groups(self.sequences or [])

    @property
    def alpha(self) -> tuple[float, float]:
        """α1 and α2."""
        second = self.weight if self.feature_weight is None else self.feature_weight
        return self.weight, second


def read_settings(
    kind: type[SettingsT],
    prefix: str,
    params: Mapping[str, Any],
    places: Places | None = None,
) -> SettingsT:
    """Build a dataclass from the keys of `params` that start with `prefix`.

    Args:
        kind: the dataclass; each of its fields has a default.
        prefix: a field `width` is the key `<prefix>width`.
        params: keys of others are ignored.
        places: where they were read, for the error message.

    Raises:
        InputError: a value is not what the annotation of its field takes.
    """
    keys = keys_of(kind, prefix)  # type: ignore[arg-type]  # mypy holds that types have no hash
    given = {key: params[key] for key in keys.model_fields if key in params}
    values = keys.read(given, places)
    return kind(**{key.removeprefix(prefix): getattr(values, key) for key in given})


@cache
def keys_of(kind: type, prefix: str) -> type[Checked]:
    """The config keys of a settings class, as the fields of a model."""
    hints = get_type_hints(kind, include_extras=True)
    return Checked.with_keys(
        {prefix + field.name: hints[field.name] for field in dataclasses.fields(kind)}
    )
