"""Writes docs/configuration.md from the code: every config key, its values, its meaning.

    python docs/generate_configuration.py

Keys, values and their order come from `fuxictr_miss/config/keys.py` and the methods' `Settings`;
the last columns come from `config/recipes.yaml` and `config/model_config/base.yaml`. Only the
sentences in `MEANING` are written here; a key that nothing explains is an error.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from fuxictr_miss.config import Config
from fuxictr_miss.config.recipes import read_recipe
from fuxictr_miss.config.settings import SSLSettings, keys_of
from fuxictr_miss.config.values import describe
from fuxictr_miss.config.yaml_files import read_entries
from fuxictr_miss.methods.base import get_method, list_methods

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
HEAD = """# Configuration

<!-- Written by docs/generate_configuration.py: change the code, then run it. -->

A config is a folder with `model_config` and `dataset_config`, each a `.yaml` file or a folder of
them, in FuxiCTR's form. An experiment's keys are those of `Base`, then of its own entry, then of
its data set's entry; the later one holds. `--set key=value` overrides all three, except for
`dataset_id` and `gpu`. Every value is checked before anything is read or written. A wrong one is an
error that names the file and line.

Below all of them stands a recipe, a named set of `ssl_` and method keys (`config/recipes.yaml`):
`recommended` for the names that end in `_MISS` and `_PPMI`, in every config folder, unless
`ssl_recipe` names another. `--set ssl_recipe=paper` sets all keys of that recipe. The log says
which one a run uses, and what it adds. `--set` takes every `ssl_` key and every key of the model's
method, in every config folder, and `--set model=DIN_MISS` brings the recipe along.

Relative paths of the data begin in the working folder. If it does not have the training split, they
begin in the config's folder or one of the two above it, whichever has it, as FuxiCTR's configs are
written; the log names the file. What a run writes besides encoded data goes to the working folder.

"base.yaml" is what `config/model_config/base.yaml` sets, "–" that it leaves the key out. Keys of a
model's class, such as `dnn_hidden_units` and `din_sequence_field`, are in `model_zoo/*/README.md`.
"""
FUXICTR = """
All keys here except `vocab_scope`, `vocab_data`, `preprocess_command`, `feature_processor`,
`num_threads`, `train_sample_rate`, `label_noise_rate`, `memory_budget_gb`, `autocast`, `tracker`,
`table_sharding` and `model_zoo_path` are FuxiCTR's. Of FuxiCTR 1 and 2.0, as the BARS configs
have them, `patience`, `workers`, `debug`, `ordered_features`, and a column's `na_value` and
`encoder` are read under their new names, with a warning. The log names the keys that neither
FuxiCTR nor the model's class reads.
"""
METHOD = """
The default is the code's, the paper's where it names one: it holds without a recipe, as for the
methods that have none. A wrong key with the prefix of a method, or `ssl_`, is an error that names
the closest one.
"""
# What FuxiCTR does with a key, and we with ours; what a key may hold is in the code.
MEANING = {
    "model": "the class: `DIN`, `DIN_MISS`, `PNN_CL4SRec`; one of `model_zoo_path` comes first",
    "model_id": "the experiment's name, that of its files; set to the expid",
    "dataset_id": "the entry of `dataset_config`, and the folder in `data_root`",
    "model_root": "checkpoints, logs and curves go to `<model_root>/<dataset_id>/`",
    "data_root": "encoded data goes to `<data_root>/<dataset_id>/`",
    "model_zoo_path": "a FuxiCTR checkout, or a folder or package of your classes (`--zoo`)",
    "gpu": "the device; set by `--gpu`",
    "seed": "of weights, batches and pairs; `--seed` sets it and names the run after it",
    "data_format": "form of the splits; npz and h5, and parquet without `feature_cols`, are "
    "encoded already and read as they are ([Data](data.md))",
    "train_data": "the split: a file, a folder of files or a glob",
    "valid_data": "the same, always needed: it decides when training stops and which epoch is kept",
    "test_data": "the same; without it there are no test metrics",
    "vocab_data": "a table of all items; its ids get embeddings under `vocab_scope: all`",
    "vocab_scope": "which ids get an embedding: of all splits, or of train only; null = all",
    "preprocess_command": "how to make the splits; shown where they are missing",
    "feature_cols": "the input columns: `name`, `type` (categorical, sequence, numeric), `dtype`, "
    "`active`, and for a sequence `splitter`, `max_len`, `share_embedding`",
    "label_col": "the label's column",
    "group_id": "the column whose groups gAUC, MRR and NDCG are means over",
    "use_features": "only these features; null = all",
    "feature_specs": "changes of features, such as the `source` that DSSM and FLEN need",
    "feature_config": "not used; in FuxiCTR's own configs",
    "min_categr_count": "ids seen less often share one embedding; a feature may have its own",
    "feature_processor": "the class whose functions `preprocess:` names, derived from FuxiCTR's "
    "`FeatureProcessor`: `package.module.Class`, or `file.py:Class`",
    "num_buckets": "of bucketed numeric features",
    "sep": "between the columns of a CSV split",
    "valid_size": "how much of the training rows becomes the validation split; not with valid_data",
    "test_size": "the same for the test split, which is taken first",
    "split_type": "from the end of the training rows, or at random: the same rows under every seed",
    "rebuild_dataset": "for FuxiCTR's own scripts; here data is encoded again when it changed",
    "pickle_feature_encoder": "not used; in FuxiCTR's own configs",
    "data_block_size": "for FuxiCTR's own scripts",
    "data_loader": "for FuxiCTR's own scripts: `RankDataLoader` takes a class",
    "batch_size": "rows of a training step",
    "buffer_size": "for FuxiCTR's own loaders",
    "num_workers": "for FuxiCTR's own loaders; ours needs none",
    "shuffle": "training rows in a new order each epoch",
    "num_threads": "of PyTorch; each number has its own digits, 1 is the default",
    "train_sample_rate": "share of the training rows kept (Table IX)",
    "label_noise_rate": "share of the training rows whose labels are swapped (Table X)",
    "memory_budget_gb": "larger splits are mapped from disk; null = half of the free memory",
    "epochs": "of label training, at most",
    "eval_steps": "steps between two validations; null = an epoch",
    "early_stop_patience": "validations without a better `monitor` before training stops",
    "save_best_only": "keep the weights of the best validation, not of the last",
    "reduce_lr_on_plateau": "a tenth of the learning rate after a validation that is no better",
    "verbose": "0 hides the progress bar",
    "debug_mode": "for FuxiCTR's tuner",
    "tracker": "where the curves of a run are shown while it trains; `--tracker` sets it",
    "task": "what the output is; a list for a multi-task model",
    "num_tasks": "labels of a multi-task model",
    "loss": "the label loss; a list for a multi-task model",
    "loss_weight": "weights of a multi-task model's losses, as its class takes them",
    "metrics": "what is computed on valid and test: AUC, logloss (binary_crossentropy), gAUC, "
    "avgAUC, MRR, NDCG(k), and our ECE",
    "monitor": "what early stopping looks at; {metric: weight, ...} for a weighted sum",
    "monitor_mode": "whether more of it is better",
    "optimizer": "`adam` is a fused one of ours with PyTorch's results; else a torch.optim class",
    "learning_rate": "of label training",
    "max_gradient_norm": "gradients are clipped to it",
    "embedding_dim": "K, the width of an embedding",
    "embedding_regularizer": "weight of the L2 (L1) norm of embeddings in the loss",
    "net_regularizer": "the same for all other weights",
    "regularizer": "both, as LR and FM name them",
    "autocast": "forward passes in bfloat16",
    "table_sharding": "rows of large tables are spread over the processes of torchrun, see "
    "[distributed.md](distributed.md#tables-over-processes)",
    "ssl_training": "both losses together, or the tables first by the contrastive loss alone",
    "miss_extractor": "how windows become interests",
    "miss_variant": "what of MISS is left out",
    "miss_activation": "the nonlinearity",
    "cl4srec_heads": "attention heads of the Transformer",
    "cl4srec_dropout": "of the Transformer",
    "s3rec_heads": "attention heads of the Transformer",
    "nextitem_heads": "attention heads of the Transformer",
    "nextitem_dropout": "of the Transformer",
    "duorec_heads": "attention heads of the Transformer",
    "icsrec_heads": "attention heads of the Transformer",
    "miss_max_width": "the widths 1 to M of the horizontal convolutions",
    "miss_max_height": "the heights 1 to N of the vertical convolutions",
    "miss_max_distance": "the largest distance between the two views of a pair",
    "miss_num_pairs": "interest pairs",
    "miss_num_feature_pairs": "feature pairs",
    "miss_interest_encoder": "layer sizes",
    "miss_feature_encoder": "layer sizes",
    "rule_encoder": "layer sizes of the encoder",
}


def page() -> str:
    """The whole page."""
    base = read_entries(ROOT / "config" / "model_config" / "base.yaml")["Base"].value
    parts = [HEAD, "\n## FuxiCTR's keys, and ours of the same kind\n", FUXICTR]
    for section, keys in _sections():
        parts += [f"\n### {section}\n\n| key | | values | base.yaml |\n|---|---|---|---|\n"]
        for key in keys:
            parts.append(
                _row(f"`{key}`", MEANING[key], _values(Config.model_fields[key]), _set(base, key))
            )
    parts += ["\n## Self-supervision\n", METHOD]
    recipes = [read_recipe(name) for name in ("paper", "recommended")]
    kinds: list[tuple[str, str, Any]] = [("All methods: `ssl_`", "ssl_", SSLSettings)]
    for name in sorted(list_methods(), key=lambda name: (name != "MISS", name)):
        prefix = f"{name.lower()}_"
        kinds.append((f"{name}: `{prefix}`", prefix, get_method(name).Settings))
    for title, prefix, kind in kinds:
        sources = [*(r for r in recipes if any(k.startswith(prefix) for k in r)), base]
        names = ["paper", "recommended"][: len(sources) - 1]
        titles = ["key", "", "values", "default", *names, "base.yaml"]
        head = f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|\n".replace("|  |", "| |")
        parts.append(f"\n### {title}\n\n{head}")
        comments = _comments(kind)
        for field in dataclasses.fields(kind):
            key = prefix + field.name
            meaning = ": ".join(filter(None, (comments[field.name], MEANING.get(key))))
            if not meaning:
                raise KeyError(f"{key} has neither a comment nor a sentence in MEANING")
            values = _values(keys_of(kind, prefix).model_fields[key])
            default = _yaml(getattr(kind(), field.name))
            set_by = [_set(source, key) for source in sources]
            parts.append(_row(f"`{key}`", meaning, values, default, *set_by))
    return "".join(parts)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _sections() -> Iterator[tuple[str, list[str]]]:
    """The keys of `Config` in its order, below the comments that part them."""
    title, keys = "", list[str]()
    for line in inspect.getsource(Config).splitlines():
        if heading := re.fullmatch(r"    # (.*)", line):
            if keys:
                yield title, keys
            title, keys = heading[1].capitalize(), []
        elif (field := re.match(r"    (\w+): ", line)) and field[1] in Config.model_fields:
            keys.append(field[1])
    yield title, keys


def _values(field: FieldInfo) -> str:
    """What a field takes, without what no one will reach."""
    return describe(field).replace(" to 2147483647", "").replace("one of ", "")


def _comments(kind: type) -> dict[str, str]:
    """The comment behind each field of a dataclass, or above it."""
    comments: dict[str, str] = {}
    above: list[str] = []
    kinds = [each for each in reversed(kind.__mro__) if each is not object]
    for line in "\n".join(map(inspect.getsource, kinds)).splitlines():
        if comment := re.fullmatch(r"    # (.*)", line):
            above.append(comment[1])
        elif field := re.match(r"    (\w+): [^#]*(?:# (.*))?$", line):
            text = " ".join([*above, field[2] or ""]).strip()
            comments[field[1]] = text.replace("None", "null")
            above = []
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        comments.setdefault(field.name, "")
    return comments


def _set(base: dict[str, Any], key: str) -> str:
    return _yaml(base[key]) if key in base else "–"


def _yaml(value: Any) -> str:
    """A value as a YAML file has it."""
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    if isinstance(value, bool):
        return f"`{value}`"
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return f"`[{', '.join(value)}]`"
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
