"""Try `_MISS` on every class of a model zoo, and print what trained as a Markdown table.

    python benchmarks/upstream_zoo.py ../FuxiCTR

A few synthetic users, one batch, five steps on it (alpha = 0.5, Adam at 0.001): the loss of Eq. 17
must fall. The same model must then take a batch of one row, and its `to_backbone()` must predict
the same bits.

    python benchmarks/upstream_zoo.py ../FuxiCTR --export

exports each plain class instead, and prints which can be: ONNX Runtime must predict what PyTorch
does.
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import torch

import fuxictr_miss as fm
from fuxictr_miss.errors import InputError, run_command
from fuxictr_miss.experiment import build
from fuxictr_miss.fuxictr_fixes.zoo import Zoo

USERS, ITEMS, CATEGORIES, STEPS = 100, 60, 7, 5

TARGETS, HISTORIES = ["item_id", "cate_id"], ["item_history", "cate_history"]
HYPERNET = {"hypernet_config": {"hidden_units": [16]}, "rank_k": 4, "overparam_p": 16}
TASKS = {
    "dataset_id": "made_up_tasks",
    "task": ["binary_classification"] * 2,
    "num_tasks": 2,
    "label_col": [{"name": name, "dtype": "float"} for name in ("label", "second_label")],
}
# What a class needs beyond its defaults, as fuxictr_miss/fuxictr_fixes/zoo_classes.py says.
KEYS: dict[str, dict[str, Any]] = {
    "APG_DCNv2": HYPERNET,
    "APG_DeepFM": HYPERNET,
    "BST": {"bst_target_field": [TARGETS], "bst_sequence_field": [HISTORIES]},
    "DIEN": {
        "dien_target_field": [TARGETS],
        "dien_sequence_field": [HISTORIES],
        "dien_neg_seq_field": [],
    },
    "DIN": {"din_target_field": [TARGETS], "din_sequence_field": [HISTORIES]},
    "DMIN": {"target_field": [TARGETS], "sequence_field": [HISTORIES], "neg_seq_field": []},
    "DMR": {
        "target_field": [TARGETS],
        "sequence_field": [HISTORIES],
        "neg_seq_field": [],
        "context_field": [],
    },
    "MMoE": TASKS,
    "PLE": TASKS,
    "PPNet": {"gate_priors": ["user_id"]},
    "ShareBottom": TASKS,
    "TransAct": {"target_item_field": [TARGETS], "sequence_item_field": [HISTORIES]},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo", help="a checkout of FuxiCTR, or any folder of models")
    parser.add_argument("--model", help="only this one")
    parser.add_argument("--export", action="store_true", help="export the plain classes instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    zoo = Zoo(arguments.zoo)
    columns = ["trains with `_MISS`", "first loss", "fifth loss", "one row", "`to_backbone()`"]
    columns = ["exports"] if arguments.export else columns
    print(f"| {' | '.join(('model', *columns))} |\n|{'---|' * (1 + len(columns))}")
    attempt = exported if arguments.export else tried
    with tempfile.TemporaryDirectory() as folder:
        write_splits(Path(folder))
        for name in [arguments.model] if arguments.model else sorted(zoo.models):
            try:
                zoo.load(name)  # or a model of our own may stand in for one that does not load
                row = attempt(settings(Path(folder)) | KEYS.get(name, {}), name, arguments.zoo)
            except InputError as error:
                row = (f"no: {str(error).replace(f'{zoo.root}/', '')}", *[""] * (len(columns) - 1))
            print(f"| {' | '.join((name, *row))} |", flush=True)


def tried(params: dict[str, Any], name: str, zoo: str) -> tuple[str, str, str, str, str]:
    params |= {"model": f"{name}_MISS", "model_id": name, "model_zoo_path": zoo}
    model, loaders = build(params)
    model._max_gradient_norm = 10.0  # set by fit() before it calls train_step()
    batch = next(iter(loaders["train"]))
    losses = [model.train().train_step(batch).item() for _ in range(STEPS)]
    falls = "yes" if losses[-1] < losses[0] else "no: the loss does not fall"
    first, last = (f"{loss:.3f}" for loss in (losses[0], losses[-1]))
    return (falls, first, last, one_row(model, batch), same_predictions(model, batch))


def exported(params: dict[str, Any], name: str, zoo: str) -> tuple[str]:
    params |= {"model": name, "model_id": name, "model_zoo_path": zoo}
    model, _ = build(params)
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # far from the start, at which all predict the same
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=draw) / 5
    with tempfile.TemporaryDirectory() as folder:
        fm.serving.export(model, Path(folder) / "out")
    return ("yes",)


def one_row(model: Any, batch: dict[str, torch.Tensor]) -> str:
    try:
        loss = model.train().train_step({name: column[:1] for name, column in batch.items()})
    except Exception as error:  # it is what the table is to say
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    return "yes" if loss.isfinite() else "not finite"


@torch.no_grad()
def same_predictions(model: Any, batch: dict[str, torch.Tensor]) -> str:
    outputs = [each.eval().forward(batch) for each in (model, model.to_backbone())]
    keys = [key for key in outputs[0] if key.endswith("_pred") or key == "y_pred"]
    same = all(torch.equal(outputs[0][key], outputs[1][key]) for key in keys)
    return "same bits" if same else "differs"


def write_splits(folder: Path) -> None:
    """Users who each return to two categories; the label is whether the item is in one of them."""
    rng = random.Random(1)
    rows = []
    for user in range(USERS):
        liked = rng.sample(range(CATEGORIES), 2)
        past = rng.choices(
            [i for i in range(ITEMS) if i % CATEGORIES in liked], k=rng.randint(1, 8)
        )
        item = rng.randrange(ITEMS)
        histories = ("^".join(map(str, past)), "^".join(str(i % CATEGORIES) for i in past))
        label = float(item % CATEGORIES in liked)
        hour = rng.randrange(24)
        rows.append((label, float(hour < 12), user, item, item % CATEGORIES, hour, *histories))
    columns = ["label", "second_label", "user_id", *TARGETS, "hour", *HISTORIES]
    frame = pl.DataFrame(rows, columns, orient="row").with_columns(
        pl.col("user_id", "hour", *TARGETS).cast(pl.String)
    )
    for split in ("train", "valid"):
        frame.write_parquet(folder / f"{split}.parquet")


def settings(folder: Path) -> dict[str, Any]:
    categorical = {"active": True, "dtype": "str", "type": "categorical"}
    sequence = {"active": True, "dtype": "str", "type": "sequence", "splitter": "^", "max_len": 8}
    return {
        "dataset_id": "made_up",
        "data_root": str(folder / "encoded"),
        "model_root": str(folder / "checkpoints"),
        "data_format": "parquet",
        "train_data": str(folder / "train.parquet"),
        "valid_data": str(folder / "valid.parquet"),
        "feature_cols": [
            {"name": "user_id", "source": "user", **categorical},
            {"name": TARGETS, "source": "item", **categorical},
            {"name": "hour", "source": "context", **categorical},
            *(
                {"name": history, "source": "user", "share_embedding": target, **sequence}
                for history, target in zip(HISTORIES, TARGETS, strict=True)
            ),
        ],
        "label_col": {"name": "label", "dtype": "float"},
        "task": "binary_classification",
        "loss": "binary_crossentropy",
        "metrics": ["AUC"],
        "optimizer": "adam",
        "learning_rate": 1.0e-3,
        "batch_size": USERS,
        "epochs": 1,
        "embedding_dim": 8,
        "hidden_units": [40, 40, 40],
        "hidden_activations": "relu",
        "dnn_hidden_units": [40, 40, 40],
        "parallel_dnn_hidden_units": [40, 40, 40],
        "seed": 1,
        "verbose": 0,
        "gpu": -1,
    }


if __name__ == "__main__":
    run_command(main)
