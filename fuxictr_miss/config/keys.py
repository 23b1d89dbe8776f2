"""`Config`: the keys that FuxiCTR 2.3.10 or this package reads, each with its type and default.

Values are checked once, when a config is made, and trusted afterwards. Other keys, such as
`dnn_hidden_units`, belong to the model's class and are mostly unchecked.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from fuxictr_miss.config.feature_names import names_of
from fuxictr_miss.config.recipes import default_recipe, read_recipe, with_recipe
from fuxictr_miss.config.renamed import RENAMED, with_new_names
from fuxictr_miss.config.settings import SSLSettings, keys_of, read_settings
from fuxictr_miss.config.values import (
    Checked,
    Count,
    Natural,
    NonNegative,
    Places,
    Positive,
    Rate,
    Share,
    Switch,
    described,
)
from fuxictr_miss.config.yaml_files import read_value
from fuxictr_miss.errors import InputError, unknown

# FuxiCTR's metrics and ECE, and whether higher is better. For grouped metrics it is; they need
# `group_id`.
_HIGHER_IS_BETTER = {"AUC": True, "logloss": False, "binary_crossentropy": False, "ECE": False}
# FuxiCTR's own run_expid.py raises a KeyError if one of these is missing.
_REQUIRED = ("model", "model_id", "dataset_id", "model_root", "data_root", "metrics", "optimizer",
             "loss", "batch_size", "epochs", "seed", "verbose")  # fmt: skip
# Keys that say where a run happens, not what it computes: a resume may change them.
OF_THE_MACHINE = {"gpu", "verbose", "model_root", "data_root", "num_workers", "tracker",
                   "preprocess_command", "memory_budget_gb", "table_sharding"}  # fmt: skip
_NUMBER = r"\+?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def _text(value: Any) -> Any:
    """Convert an int back to text, as YAML reads a name like 2024 as a number."""
    return str(value) if type(value) is int else value


def _part_of_a_path(name: str) -> str:
    fits = 0 < len(name.encode()) <= 200 and not re.search(r"[/\\\0]", name)
    if not fits or name in (".", "..") or name != name.strip():
        raise ValueError
    return name


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _not_zero(weight: float) -> float:
    if weight == 0:
        raise ValueError
    return weight


Name = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_part_of_a_path),
    described("a name that a file can have: at most 200 bytes, no / or \\, no space at an end"),
]
Folder = Annotated[str, described("the path of a folder, not with ~", pattern="^[^~]")]
Regularizer = Annotated[
    NonNegative
    | Annotated[str, Field(pattern=rf"^(?:l[12]\({_NUMBER}\)|l1_l2\({_NUMBER},\s*{_NUMBER}\))$")]
    | None,
    described("a number of 0 or more, null, or a text like l1(1e-5), l2(1e-5) or l1_l2(1e-5,1e-4)"),
]
Metric = (
    Literal["AUC", "logloss", "binary_crossentropy", "ECE", "gAUC", "avgAUC", "MRR", "NDCG(1)",
            "NDCG(5)", "NDCG(10)"]
    | Annotated[str, Field(pattern=r"^NDCG\((k=)?[1-9][0-9]*\)$")]
)  # fmt: skip
Weight = Annotated[int | float, AfterValidator(_not_zero)]
# Classes of torch.optim that FuxiCTR can use: they need only a learning rate and take dense
# gradients. `adam` is ours (optimizers.py); FuxiCTR ignores its case.
Optimizer = (
    Literal["ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam",
            "RMSprop", "Rprop", "SGD", "adam"]
    | Annotated[str, Field(pattern="^(?i:adam)$")]
)  # fmt: skip
# Losses of torch.nn.functional that take a prediction, a label and a reduction.
Loss = Literal["bce", "binary_cross_entropy", "binary_cross_entropy_with_logits",
               "binary_crossentropy", "huber_loss", "l1_loss", "mse_loss", "poisson_nll_loss",
               "smooth_l1_loss", "soft_margin_loss"]  # fmt: skip
Task = Literal["binary_classification", "regression"]
_SEVERAL = described("a list of them", min_length=1)
Columns = list[dict[str, Any]]


class Config(Checked):
    """One experiment: every key of FuxiCTR's and ours, typed, and those of the model's class.

    Defaults are FuxiCTR's where it has one.

    Keys of the model's class and `ssl_` and method keys are in `params` only.
    """

    model_config = ConfigDict(extra="allow")

    # the experiment
    model: Name = ""
    model_id: Name = ""
    dataset_id: Name = ""
    model_root: Folder = ""
    data_root: Folder = ""
    model_zoo_path: str | None = None
    gpu: int = described("-1 for the CPU, or the index of a GPU", ge=-1, default=-1)
    seed: int = described("a whole number from 0 to 4294967295", ge=0, lt=2**32, default=0)
    # data
    data_format: Literal["csv", "h5", "npz", "parquet"] = "csv"
    train_data: str | None = None
    valid_data: str | None = None
    test_data: str | None = None
    vocab_data: str | None = None
    vocab_scope: Literal["all", "train"] | None = None
    preprocess_command: str | None = None
    feature_cols: Columns = described("a list of {name: ..., ...}", min_length=1, default=[])
    label_col: dict[str, Any] | Columns = described(
        "{name: ..., dtype: float}, or a list of them", default={}
    )
    group_id: Annotated[str | None, BeforeValidator(_text)] = described(
        "a column, or null", default=None
    )
    use_features: Annotated[list[str], described("a list of features")] | None = None
    feature_specs: Columns | None = described("a list of {name: ..., ...}, or null", default=None)
    feature_config: Any = None
    feature_processor: str | None = None
    min_categr_count: Natural = 1
    num_buckets: Natural = 10
    sep: str = described("one character", min_length=1, max_length=1, default=",")
    valid_size: Natural | Rate = described(
        "a share of the rows below 1, or their number", default=0
    )
    test_size: Natural | Rate = described("a share of the rows below 1, or their number", default=0)
    split_type: Literal["random", "sequential"] = "sequential"
    rebuild_dataset: Switch = True
    pickle_feature_encoder: Switch = True
    data_block_size: int = described("a whole number from 0, or -1 as 0", ge=-1, default=0)
    data_loader: Any = None
    # the run
    batch_size: Count = 1
    buffer_size: Natural = 0
    num_workers: Natural = 0
    shuffle: Switch = True
    num_threads: Count = 1
    train_sample_rate: float = described("a number above 0, at most 1", gt=0, le=1, default=1.0)
    label_noise_rate: Rate = 0.0
    memory_budget_gb: NonNegative | None = None
    epochs: Count = 1
    eval_steps: Count | None = None
    early_stop_patience: int = described(
        "a whole number from 1 (above epochs: no early stop)", ge=1, default=2
    )
    save_best_only: Switch = True
    reduce_lr_on_plateau: Switch = True
    verbose: bool | Annotated[int, Field(ge=0)] = described("0 or more", default=0)
    debug_mode: Switch = False
    tracker: Literal["tensorboard", "wandb", "mlflow"] | None = None
    # the model
    task: Task | Annotated[list[Task], _SEVERAL] = "binary_classification"
    num_tasks: Count = 1
    loss: Loss | Annotated[list[Loss], _SEVERAL] = "bce"
    loss_weight: Any = None
    metrics: Annotated[list[Metric], BeforeValidator(_listed)] = described(
        "a list of metrics like [AUC, logloss]", min_length=1, default=[]
    )
    monitor: Metric | Annotated[dict[Metric, Weight], Field(min_length=1)] = described(
        "a metric, or {metric: weight, ...} with weights other than 0", default="AUC"
    )
    monitor_mode: Literal["max", "min"] = "max"
    optimizer: Optimizer = "adam"
    learning_rate: Positive = 1e-3
    max_gradient_norm: Positive = 10.0
    embedding_dim: Count | Annotated[list[Count], _SEVERAL] = 10  # several: of HOFM, by order
    embedding_regularizer: Regularizer = None
    net_regularizer: Regularizer = None
    regularizer: Regularizer = None  # of LR and FM
    autocast: Literal["bf16"] | None = None
    table_sharding: Literal["rowwise"] | None = None

    @classmethod
    def of(cls, params: Config | Mapping[str, Any], places: Places | None = None) -> Config:
        """Check FuxiCTR's plain dict of parameters.

        Args:
            params: keys and values; a config is returned as it is.
            places: where the keys were read, for the error message.

        Raises:
            InputError: a value has the wrong type, is out of its range, or contradicts another.
        """
        if isinstance(params, Config):
            return params
        params = {key: _groups(key, value) for key, value in with_new_names(params).items()}
        params = with_recipe(params)
        config = cls.read(params, places)
        others = config.model_extra or {}
        _keys_of_models(tuple(others)).read(others, places)
        read_settings(SSLSettings, "ssl_", params, places)
        return config

    @classmethod
    def of_experiment(
        cls, params: Config | Mapping[str, Any], places: Places | None = None
    ) -> Config:
        """The same with every key that an experiment must have.

        Raises:
            InputError: as above, or a key is missing.
        """
        config = cls.of(params, places)
        for key in _REQUIRED:
            if key not in config.model_fields_set:
                place = f"{places['']}," if places else "The config"
                raise InputError(f"{place} has no {key}: add it there or to Base.")
        return config

    @property
    def params(self) -> dict[str, Any]:
        """FuxiCTR's plain dict: the given keys with their values, in their types, no defaults."""
        names = [name for name in Config.model_fields if name in self.model_fields_set]
        return {**{name: getattr(self, name) for name in names}, **(self.model_extra or {})}

    @property
    def feature_names(self) -> list[str]:
        """The features that a model gets, without `use_features`."""
        return _names_of([each for each in self.feature_cols if each.get("active", True)])

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result of a run, and must be equal when it is resumed."""
        return {k: v for k, v in self.params.items() if k not in OF_THE_MACHINE}

    def file(self, ending: str) -> Path:
        """The path of a file of this experiment: its log, checkpoint, state or curves."""
        return Path(self.model_root) / self.dataset_id / f"{self.model_id}{ending}"

    def replace(self, changes: Mapping[str, Any], place: str) -> Config:
        """A config with other values.

        Args:
            changes: keys and values; `ssl_recipe` resets every key of that recipe.
            place: where they come from, for the error message.

        Raises:
            InputError: as in `of`.
        """
        recipe = read_recipe(changes["ssl_recipe"]) if "ssl_recipe" in changes else {}
        params = {**self.params, **recipe, **changes}
        if "model" in changes:  # another one may have a method, and with it a recipe
            params.setdefault("ssl_recipe", default_recipe(str(changes["model"])))
        return Config.of(params, {"": place})

    def override(self, assignments: Sequence[str], seed: int | None) -> Config:
        """Apply `--set key=value` and `--seed`, and extend model_id: the run gets files of its own.

        Raises:
            InputError: an assignment is not key=value, has an unknown key, or an invalid value.
        """
        changes: dict[str, Any] = {}
        valid = {*self.params, *Config.model_fields, *keys_of(SSLSettings, "ssl_").model_fields}
        valid.update(RENAMED)
        model = dict(each.partition("=")[::2] for each in assignments).get("model", self.model)
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise InputError(f"--set takes key=value, got {assignment!r}.")
            if key not in valid and not key.startswith(_prefixes(model)):
                raise unknown("key in --set", key, valid)
            if key in changes:
                raise InputError(f"--set gives {key} twice: remove one of them.")
            changes[key] = read_value(key, text)
        if "gpu" in changes:
            raise InputError("--set cannot change gpu: use the option --gpu.")
        if changes.get("dataset_id", self.dataset_id) != self.dataset_id:
            raise InputError(
                "--set cannot change dataset_id, which selects all keys of a data set: "
                "give an --expid of that data set."
            )
        changes = with_new_names(changes)
        config, name = self.replace(changes, "--set"), ""
        if changes:
            items = sorted((key, config.params[key]) for key in changes)
            name += f"_{hashlib.md5(repr(items).encode()).hexdigest()[:8]}"
        if seed is not None:
            config = config.replace({"seed": seed}, "--seed")
            name += f"_seed{seed}"
        return config.replace({"model_id": config.model_id + name}, "--set")

    def unread_keys(self, arguments: set[str], prefixes: tuple[str, ...]) -> dict[str, str | None]:
        """The keys that neither FuxiCTR nor the model's class reads, sorted.

        Keys that end with `_field` are skipped: a data set's entry has those of every model.

        Args:
            arguments: of the class.
            prefixes: of keys that are not its own, such as those of a method.

        Returns:
            Of each key the one that it seems to be a misspelling of, or None.
        """
        valid = {*Config.model_fields, *arguments}
        others = set(self.model_extra or {}) - arguments
        unread = sorted(k for k in others if not k.startswith(prefixes) and k[-6:] != "_field")
        return {k: next(iter(difflib.get_close_matches(k, valid, 1, 0.9)), None) for k in unread}

    @model_validator(mode="after")
    def _check_combinations(self) -> Config:
        """Check keys against one another, as far as they are given."""
        weights = {self.monitor: 1} if isinstance(self.monitor, str) else self.monitor
        for name, weight in weights.items():
            if (_HIGHER_IS_BETTER.get(name, True) == (weight > 0)) != (self.monitor_mode == "max"):
                raise InputError(
                    f"monitor {self.monitor!r} with monitor_mode {self.monitor_mode!r} keeps the "
                    f"epoch with the worst {name}: change the mode or the sign of the weight."
                )
        grouped = [name for name in (*self.metrics, *weights) if name not in _HIGHER_IS_BETTER]
        if grouped and not self.group_id:
            raise InputError(
                f"{grouped[0]} is a mean over groups of rows: set group_id to the column of the "
                "group, for example user_id, or remove it from metrics and monitor."
            )
        for split in ("valid", "test"):
            if getattr(self, f"{split}_data") and getattr(self, f"{split}_size"):
                raise InputError(
                    f"{split}_data names a split that {split}_size would take from the training "
                    "rows: remove one of them."
                )
        if self.group_id and self.use_features and self.group_id not in self.use_features:
            raise InputError(
                f"use_features leaves out {self.group_id!r}, by which group_id groups the rows: "
                "add it there, or set group_id: null."
            )
        columns = _names_of(self.feature_cols)
        if columns:
            self.check_names(columns)
        return self

    def check_names(self, columns: Collection[str]) -> None:
        """Check the keys that name columns of the data.

        Raises:
            InputError: one names a column that is not there; suggests the closest.
        """
        named = {
            "group_id": [self.group_id] if self.group_id else [],
            "feature in use_features:": self.use_features or [],
            "feature in feature_specs:": _names_of(self.feature_specs or []),
        }
        for key, names in named.items():
            for name in names:
                if name not in columns:
                    raise unknown(key, name, columns)


def _prefixes(model: str) -> tuple[str, ...]:
    """What the keys of a model's method begin with; the method itself checks them."""
    method = model.rpartition("_")[2].lower()
    return (f"{method}_",) if "_" in model or method == "miss" else ()


def _groups(key: str, value: Any) -> Any:
    """A group of fields as YAML without tuples has it: (a, b) is one group, as [[a, b]] is."""
    if not str(key).endswith("_field") or not isinstance(value, list | tuple):
        return value
    fields = [value] if isinstance(value, tuple) else value
    return [list(each) if isinstance(each, tuple) else each for each in fields]


def _names_of(columns: Columns) -> list[str]:
    return [str(name) for column in columns for name in names_of(column)]


# Keys of model classes that mean the same in every class, by their ending. PyTorch would report a
# wrong value unclearly or not at all: `use_softmax: maybe` is true, [0] a layer of no units.
_OF_MODELS: dict[str, Any] = {
    "hidden_units": Annotated[
        list[Count | list[Count]] | None, described("a list of layer sizes, whole numbers from 1")
    ],
    **dict.fromkeys(("dropout", "dropout_rates"), Share | list[Share] | None),
    "activations": str | list[str | None] | None,
    **dict.fromkeys(
        ("batch_norm", "use_softmax", "use_residual", "use_scale", "use_wide"), Switch | None
    ),
}


@cache
def _keys_of_models(keys: tuple[str, ...]) -> type[Checked]:
    """Those of some keys that end like one of `_OF_MODELS`, typed."""
    return Checked.with_keys(
        {
            key: kind
            for key in keys
            for ending, kind in _OF_MODELS.items()
            if key == ending or key.endswith(f"_{ending}")
        }
    )
