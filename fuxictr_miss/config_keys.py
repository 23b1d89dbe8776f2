"""The config keys that FuxiCTR 2.3.10 or this package reads: the type and range of each.

Values are checked once, when a config is read, and trusted afterwards. Other keys, such as
`dnn_hidden_units`, belong to the model's class and are mostly unchecked. `settings.py` has the keys
of the methods.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from fuxictr_miss.errors import InputError, unknown

# FuxiCTR's metrics and ECE, and whether higher is better. For grouped metrics it is; they need
# `group_id`.
_METRICS = {"AUC": True, "logloss": False, "binary_crossentropy": False, "ECE": False}
_GROUP_METRICS = ("gAUC", "avgAUC", "MRR", "NDCG(1)", "NDCG(5)", "NDCG(10)")
_NDCG = re.compile(r"NDCG\((k=)?[1-9][0-9]*\)")
# Classes of torch.optim that FuxiCTR can use: they need only a learning rate and take dense
# gradients. `adam` is ours (optimizers.py).
OPTIMIZERS = ("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam",
              "RAdam", "RMSprop", "Rprop", "SGD", "adam")  # fmt: skip
# Losses of torch.nn.functional that take a prediction, a label and a reduction.
LOSSES = ("bce", "binary_cross_entropy", "binary_cross_entropy_with_logits", "binary_crossentropy",
          "huber_loss", "l1_loss", "mse_loss", "poisson_nll_loss", "smooth_l1_loss",
          "soft_margin_loss")  # fmt: skip
TASKS = ("binary_classification", "regression")
_NUMBER = r"\+?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_REGULARIZER = re.compile(rf"^(?:l[12]\({_NUMBER}\)|l1_l2\({_NUMBER},\s*{_NUMBER}\))$")
_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def number(value: Any) -> Any:
    """Convert text like 1e-3, which YAML 1.1 does not read as a number; return others unchanged."""
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        return float(value)
    return value


def _name(value: Any) -> Any:
    """Convert an int back to text, as YAML reads a name like 2024 as a number."""
    return str(value) if type(value) is int else value


def _part_of_a_path(name: str) -> str:
    fits = 0 < len(name.encode()) <= 200 and not re.search(r"[/\\\0]", name)
    if not fits or name in (".", "..") or name != name.strip():
        raise ValueError
    return name


def _switch(value: Any) -> Any:
    return bool(value) if type(value) is int and value in (0, 1) else value


def _regularizer(value: Any) -> Any:
    """Convert text like 1e-3; the float type converts ints, which `get_regularizer` ignores."""
    if isinstance(value, str) and not _REGULARIZER.fullmatch(value):
        return number(value)
    return value


def _one_of(key: str, value: Any, valid: Iterable[str]) -> Any:
    if value not in list(valid):
        raise unknown(key, value, valid)
    return value


def _rule(description: str, **limits: Any) -> Any:
    return Field(description=description, **limits)


def _among(*valid: str, or_null: bool = False) -> Any:
    def known(value: Any, info: ValidationInfo) -> Any:
        if or_null and value is None:
            return value
        return _one_of(str(info.field_name), value, [*valid, *(["null"] if or_null else [])])

    return BeforeValidator(known)


Whole = Annotated[int, Strict()]
Real = Annotated[float, Strict(), Field(allow_inf_nan=False), BeforeValidator(number)]
String = Annotated[str, Strict()]
Count = Annotated[Whole, _rule("a whole number from 1 to 2147483647", ge=1, lt=2**31)]
Natural = Annotated[Whole, _rule("a whole number from 0 to 2147483647", ge=0, lt=2**31)]
Positive = Annotated[Real, _rule("a number above 0", gt=0)]
Rows = Annotated[
    Annotated[Whole, Field(ge=0)] | Annotated[Real, Field(ge=0, lt=1)],
    _rule("a share of the rows below 1, or their number"),
]
Regularizer = Annotated[
    Annotated[Real, Field(ge=0)] | Annotated[String, Field(pattern=_REGULARIZER)] | None,
    BeforeValidator(_regularizer),
    _rule("a number of 0 or more, null, or a text like l1(1e-5), l2(1e-5) or l1_l2(1e-5,1e-4)"),
]
Switch = Annotated[bool, Strict(), BeforeValidator(_switch), _rule("True or False, without quotes")]
TextOrNull = Annotated[String | None, _rule("a text, or null")]
Folder = Annotated[String, _rule("the path of a folder", min_length=1)]
Name = Annotated[
    String,
    BeforeValidator(_name),
    AfterValidator(_part_of_a_path),
    _rule("a name that a file can have: at most 200 bytes, no / or \\, no space at an end"),
]


class Keys(BaseModel):
    """The known keys with their allowed values. The defaults here are not used for missing keys."""

    # the experiment
    model: Name = ""
    model_id: Name = ""
    dataset_id: Name = ""
    model_root: Folder = ""
    data_root: Folder = ""
    model_zoo_path: TextOrNull = None
    gpu: Annotated[Whole, _rule("-1 for the CPU, or the index of a GPU", ge=-1)] = -1
    seed: Annotated[Whole, _rule("a whole number from 0 to 4294967295", ge=0, lt=2**32)] = 0
    # data
    data_format: Annotated[str, _among("csv", "npz", "parquet")] = "csv"
    train_data: TextOrNull = None
    valid_data: TextOrNull = None
    test_data: TextOrNull = None
    vocab_data: TextOrNull = None
    vocab_scope: Annotated[str | None, _among("all", "train", or_null=True)] = None
    preprocess_command: TextOrNull = None
    feature_cols: Annotated[
        list[dict[str, Any]], _rule("a list of features, each {name: ..., ...}", min_length=1)
    ] = []  # pydantic copies it
    label_col: Annotated[
        dict[str, Any] | list[dict[str, Any]], _rule("{name: ..., dtype: float}, or a list of them")
    ] = {}
    group_id: Annotated[String | None, BeforeValidator(_name), _rule("a column, or null")] = None
    use_features: Annotated[list[str] | None, _rule("a list of features, or null")] = None
    feature_specs: Annotated[
        list[dict[str, Any]] | None, _rule("a list of {name: ..., ...}, or null")
    ] = None
    feature_config: Any = None
    min_categr_count: Natural = 0
    num_buckets: Natural = 0
    sep: Annotated[String, _rule("one letter", min_length=1, max_length=1)] = ","
    valid_size: Rows = 0
    test_size: Rows = 0
    split_type: Annotated[str, _among("random", "sequential")] = "sequential"
    rebuild_dataset: Switch = True
    pickle_feature_encoder: Switch = True
    data_block_size: Natural = 0
    data_loader: Any = None
    # the run
    batch_size: Count = 1
    buffer_size: Natural = 0
    num_workers: Natural = 0
    shuffle: Switch = True
    num_threads: Count = 1
    train_sample_rate: Annotated[Real, _rule("a number above 0 and at most 1", gt=0, le=1)] = 1.0
    label_noise_rate: Annotated[Real, _rule("a number from 0 to below 1", ge=0, lt=1)] = 0.0
    memory_budget_gb: Annotated[
        Annotated[Real, Field(ge=0)] | None, _rule("a number of 0 or more, or null")
    ] = None
    epochs: Count = 1
    eval_steps: Annotated[
        Annotated[Whole, Field(ge=1)] | None, _rule("a whole number from 1, or null")
    ] = None
    early_stop_patience: Annotated[
        Whole, _rule("a whole number of 1 or more (above epochs: no early stop)", ge=1)
    ] = 1
    save_best_only: Switch = True
    reduce_lr_on_plateau: Switch = True
    verbose: Annotated[int, _rule("0 or more")] = 0
    debug_mode: Switch = False
    # the model
    task: str | list[str] = "binary_classification"
    num_tasks: Count = 1
    loss: str | list[str] = "bce"
    loss_weight: Any = None
    metrics: list[str] = []
    monitor: Any = "AUC"
    monitor_mode: Annotated[str, _among("max", "min")] = "max"
    optimizer: str = "adam"
    learning_rate: Positive = 1e-3
    max_gradient_norm: Positive = 10.0
    embedding_dim: Count = 1
    embedding_regularizer: Regularizer = None
    net_regularizer: Regularizer = None
    regularizer: Regularizer = None  # of LR and FM
    autocast: Annotated[str | None, _among("bf16", or_null=True)] = None

    @field_validator("verbose", mode="before")
    @classmethod
    def _level(cls, value: Any) -> Any:
        if not isinstance(value, int) or value < 0:
            raise ValueError
        return int(value)

    @field_validator("optimizer", mode="before")
    @classmethod
    def _an_optimizer(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() == "adam":  # FuxiCTR ignores case
            return value
        return _one_of("optimizer", value, OPTIMIZERS)

    @field_validator("task", "loss", mode="before")
    @classmethod
    def _one_or_a_list(cls, value: Any, info: ValidationInfo) -> Any:
        valid = TASKS if info.field_name == "task" else LOSSES
        for each in value if isinstance(value, list) and value else [value]:
            _one_of(str(info.field_name), each, valid)
        return value

    @field_validator("metrics", mode="before")
    @classmethod
    def _a_list_of_metrics(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not names:
            raise InputError(
                f"metrics must be a list of metrics like [AUC, logloss], got {value!r}."
            )
        return [_metric("metric in metrics:", name) for name in names]

    @field_validator("monitor", mode="before")
    @classmethod
    def _a_metric_or_weights(cls, value: Any) -> Any:
        if isinstance(value, dict) and value:
            weights = {_metric("metric in monitor:", name): number(value[name]) for name in value}
            for name, weight in weights.items():
                if type(weight) not in (int, float) or not 0 < abs(weight) < float("inf"):
                    raise InputError(
                        f"The weight of {name} in monitor must be a number other than 0, "
                        f"got {weight!r}."
                    )
            return weights
        return _metric("monitor", value)

    @model_validator(mode="after")
    def _check_combinations(self) -> Keys:
        """Check keys against one another, as far as they are given."""
        given = self.model_fields_set
        weights = {self.monitor: 1} if isinstance(self.monitor, str) else self.monitor
        for name, weight in weights.items() if given & {"monitor", "monitor_mode"} else ():
            if (_METRICS.get(name, True) == (weight > 0)) != (self.monitor_mode == "max"):
                raise InputError(
                    f"monitor {self.monitor!r} with monitor_mode {self.monitor_mode!r} keeps the "
                    f"epoch with the worst {name}: change the mode or the sign of the weight."
                )
        asked = [*self.metrics, *(weights if "monitor" in given else ())]
        grouped = [name for name in asked if name not in _METRICS]
        if grouped and not self.group_id:
            raise InputError(
                f"{grouped[0]} is a mean over groups of rows: set group_id to the column of the "
                "group, for example user_id, or remove it from metrics and monitor."
            )
        if "feature_cols" in given:
            columns = [name for each in self.feature_cols for name in _names_of(each)]
            for key, name in self._features():
                if name not in columns:
                    raise unknown(key, name, columns)
        return self

    def _features(self) -> Iterator[tuple[str, str]]:
        """Pairs of a key and a feature that it names."""
        if self.group_id:
            yield "group_id", self.group_id
        for name in self.use_features or ():
            yield "feature in use_features:", name
        for each in self.feature_specs or ():
            yield from (("feature in feature_specs:", name) for name in _names_of(each))


# Keys of model classes that mean the same in every class, by their ending. PyTorch would report a
# wrong value unclearly or not at all: `use_softmax: maybe` is true, [0] a layer of no units.
_Size = Annotated[Whole, Field(ge=1)]
_Share = Annotated[Real, Field(ge=0, le=1)]
_OF_MODELS: dict[str, tuple[Any, str]] = {
    "hidden_units": (
        TypeAdapter(list[_Size | list[_Size]] | None),
        "a list of layer sizes, whole numbers from 1",
    ),
    "dropout": (TypeAdapter(_Share | list[_Share] | None), "a number from 0 to 1, or a list"),
    "dropout_rates": (TypeAdapter(_Share | list[_Share] | None), "a number from 0 to 1, or a list"),
    "activations": (
        TypeAdapter(String | list[String | None] | None),
        "the name of an activation, or a list",
    ),
    **dict.fromkeys(
        ("batch_norm", "use_softmax", "use_residual", "use_scale", "use_wide"),
        (TypeAdapter(Switch | None), "True or False, without quotes"),
    ),
}


def _check_keys_of_models(params: Mapping[str, Any], places: Mapping[str, str]) -> None:
    for key, value in params.items():
        for ending, (kind, rule) in _OF_MODELS.items():
            if key == ending or key.endswith(f"_{ending}"):
                try:
                    kind.validate_python(value)
                except ValidationError:
                    sentence = f"{key} must be {rule}, got {_shown(value)}."
                    place = places.get(key)
                    raise InputError(f"{place}: {sentence}" if place else sentence) from None


# FuxiCTR's own run_expid.py raises a KeyError if one of these is missing.
REQUIRED = ("model", "dataset_id", "model_root", "data_root", "metrics", "optimizer", "loss",
            "batch_size", "epochs", "seed", "verbose")  # fmt: skip
NAMES = ("model", "model_id", "dataset_id", "group_id")  # text even if it looks like a number


def checked(params: Mapping[str, Any], places: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Validate the keys above and return `params` with their values converted.

    Args:
        params: the whole config of an experiment.
        places: where each key was read; "" for errors that concern several keys.

    Raises:
        InputError: a value has the wrong type, is out of its range, or contradicts another.
    """
    try:
        keys = Keys.model_validate({k: v for k, v in params.items() if k in Keys.model_fields})
    except ValidationError as errors:
        first = errors.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        place = (places or {}).get(key)
        raise InputError(f"{place}: {_sentence(first)}" if place else _sentence(first)) from None
    _check_keys_of_models(params, places or {})
    return {**params, **{name: getattr(keys, name) for name in keys.model_fields_set}}


def _sentence(error: ErrorDetails) -> str:
    own = error.get("ctx", {}).get("error")
    if isinstance(own, InputError):
        return str(own)
    key = str(error["loc"][0])
    return f"{key} must be {Keys.model_fields[key].description}, got {_shown(error['input'])}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _metric(kind: str, name: Any) -> str:
    if isinstance(name, str) and _NDCG.fullmatch(name):
        return name
    return _one_of(kind, name, [*_METRICS, *_GROUP_METRICS])


def _names_of(column: Mapping[str, Any]) -> list[str]:
    names = column.get("name", [])
    return [str(name) for name in names] if isinstance(names, list) else [str(names)]
