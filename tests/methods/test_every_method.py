"""The invariants of the mixin, for every method on every backbone, J = 1, 2, 3."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import fuxictr_miss as fm
from fuxictr_miss import experiment
from fuxictr_miss.config import load_config
from fuxictr_miss.config.settings import read_settings
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.base import get_method
from fuxictr_miss.self_supervision import method_defaults
from fuxictr_miss.training import fit, run
from fuxictr_miss.training.histories import Histories

pytestmark = pytest.mark.trained_number

DATASETS = {1: "amazoncds_subset", 2: "demo", 3: "alipay"}  # of config/, for their columns
METHODS = fm.list_methods()
TRAINED = [name for name in METHODS if not hasattr(get_method(name), "closed_form")]  # by a loss
WITH_NEGATIVES = ["CL4SRec", "DuoRec", "ICSRec", "IRSSL", "MISS", "Rule", "S3Rec"]  # other rows'
BACKBONES = [n for n in fm.list_models() if "_" not in n and n not in ("LR", "MISS")]
TABLE_V = ("DIN", "PNN", "FiGNN")
STRATEGIES = ["joint", "pretrain", "pretrain_joint"]
SLOW = pytest.mark.slow
# MISS on every backbone, every method on the backbones of Table V; `-m slow` adds all other pairs
PAIRS = [
    pytest.param(backbone, method, marks=[] if method == "MISS" or backbone in TABLE_V else SLOW)
    for backbone in BACKBONES
    for method in METHODS
]
ROWS = {"train": 17, "valid": 6, "test": 6}  # with batches of 16 the last one has one row


def sequences_of(backbone: str, method: str, number: int = 0) -> int:
    """J for the number-th test of a pair; every method meets each J. Rule needs a category."""
    number += BACKBONES.index(backbone) + METHODS.index(method)
    return 2 + number % 2 if method == "Rule" else 1 + number % 3


@pytest.fixture(scope="module")
def folder(splits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits of a few rows with item, category and seller; one history is empty."""
    folder = tmp_path_factory.mktemp("every_method")
    for name, rows in ROWS.items():
        frame = pl.read_parquet(splits / f"{name}.parquet").head(rows)
        histories = [
            pl.when(pl.int_range(pl.len()) == 2).then(pl.lit("")).otherwise(pl.col(column))
            for column in ("item_history", "cate_history")
        ]
        frame.with_columns(
            pl.col("cate_id").str.replace("c", "s").alias("seller_id"),
            pl.col("cate_history").str.replace_all("c", "s").alias("seller_history"),
        ).with_columns(
            *(h.alias(n) for h, n in zip(histories, ("item_history", "cate_history"), strict=True))
        ).write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def build(folder: Path) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """(backbone, method or None, J, **keys) -> a model and its loaders."""

    def make(
        backbone: str, method: str | None, sequences: int, **keys: Any
    ) -> tuple[Any, dict[str, Any]]:
        params = load_config("config", f"{backbone}_{DATASETS[sequences]}").params
        params.update({f"{name}_data": str(folder / f"{name}.parquet") for name in ROWS})
        params.update(data_root=str(folder / "encoded"), model_root=str(folder / "checkpoints"))
        params.update(vocab_data=None, batch_size=16, embedding_dim=4, verbose=0, gpu=-1, seed=5)
        params.update(learning_rate=1e-2, ssl_pretrain_epochs=1)
        params["model"] = f"{backbone}_{method}" if method else backbone
        params.update(keys)
        model, loaders = experiment.build(params)
        model._max_gradient_norm = 10.0
        return model.train(), loaders

    return make


@pytest.fixture(scope="module")
def plain(build: Callable) -> Callable[[str, int], tuple[Any, ...]]:
    """(backbone, J) -> initial weights, weights after an epoch, random numbers after both."""
    known: dict[tuple[str, int], tuple[Any, ...]] = {}

    def make(backbone: str, sequences: int) -> tuple[Any, ...]:
        if (backbone, sequences) not in known:
            model, loaders = build(backbone, None, sequences)
            start, built = copy.deepcopy(model.state_dict()), torch.get_rng_state()
            for batch in loaders["train"]:
                model.train_step(batch)
            known[backbone, sequences] = (
                start, model.state_dict(), built, torch.get_rng_state()
            )  # fmt: skip
        return known[backbone, sequences]

    return make


def assert_holds(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in weights.items())


@pytest.mark.parametrize(("backbone", "method"), PAIRS)
def test_weight_zero_gives_the_bits_of_the_plain_backbone(backbone, method, build, plain):
    sequences = sequences_of(backbone, method)
    start, end, built, trained = plain(backbone, sequences)
    model, loaders = build(backbone, method, sequences, ssl_weight=0)
    assert_holds(model, start)
    assert torch.equal(torch.get_rng_state(), built)
    for batch in loaders["train"]:
        model.train_step(batch)
    assert_holds(model, end)
    assert torch.equal(torch.get_rng_state(), trained)


def assert_teaches_the_tables(model: Any, batch: dict[str, torch.Tensor]) -> None:
    """Every table but its padding row gets a gradient of the method's loss."""
    part = model._self_supervision
    part.weighted(part.losses(model, batch)).backward()
    for table in part.sources[0].tables(model):
        assert table.weight.grad.any()
        assert not table.weight.grad[0].any()
    model.zero_grad()


@pytest.mark.parametrize(("backbone", "method"), PAIRS)
def test_training_draws_as_the_backbone_does_and_teaches_the_tables(
    backbone, method, build, plain, monkeypatch
):
    sequences = sequences_of(backbone, method, 1)
    model, loaders = build(backbone, method, sequences)
    if method in TRAINED:
        assert_teaches_the_tables(model, next(iter(loaders["train"])))

    _, _, built, trained = plain(backbone, sequences)
    torch.set_rng_state(built)
    for batch in loaders["train"]:
        assert model.train_step(batch).isfinite()
    assert torch.equal(torch.get_rng_state(), trained)
    assert all(parameter.isfinite().all() for parameter in model.parameters())

    monkeypatch.setattr(
        type(model._self_supervision.methods[0]), "forward", None
    )  # eval() must not call it
    predictions = model.predict(loaders["test"])
    other = model.to_backbone()
    assert type(other) is fm.get_model(backbone)
    assert (other.predict(loaders["test"]) == predictions).all()
    fresh, _ = build(backbone, None, sequences)
    fresh.load_state_dict(other.state_dict(), strict=True)


@pytest.mark.parametrize(("backbone", "method"), PAIRS)
def test_every_strategy_trains_every_method_on_every_backbone(backbone, method, build):
    sequences = sequences_of(backbone, method, 2)
    model, loaders = build(backbone, method, sequences)
    for strategy in STRATEGIES:
        part = model._self_supervision
        part.settings = dataclasses.replace(part.settings, training=strategy)
        rows = fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
        numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
        assert torch.tensor(numbers).isfinite().all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_metrics_to_the_last_digit(method, strategy, build):
    sequences, results = sequences_of("DIN", method, STRATEGIES.index(strategy)), []
    for _ in range(2):
        model, loaders = build("DIN", method, sequences, ssl_training=strategy)
        rows = fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
        losses = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        results.append((losses, model.evaluate(loaders["test"])))
    assert results[0] == results[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_between_its_phases_ends_as_if_nothing_had_happened(
    method, build, monkeypatch
):
    def train(resume: bool) -> Any:
        model, loaders = build("DIN", method, 3, ssl_training="pretrain_joint")
        fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"], resume=resume)
        return model.evaluate(loaders["test"]), model.state_dict()

    whole, weights = train(resume=False)
    save = run.Run._save

    def save_and_die(run: Any) -> None:
        save(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "_save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train(resume=False)
    again, other = train(resume=True)
    assert again == whole
    assert all(torch.equal(other[name], value) for name, value in weights.items())


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_of_the_method_learns(method, build):
    model, loaders = build("DNN", method, 3)
    before = copy.deepcopy(model._self_supervision.methods[0].state_dict())
    for _ in range(3):
        for batch in loaders["train"]:
            model.train_step(batch)
    optimized = {id(p) for group in model.optimizer.param_groups for p in group["params"]}
    for name, parameter in model._self_supervision.methods[0].named_parameters():
        assert id(parameter) in optimized
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sequences", [1, 2, 3])
def test_losses_are_finite_on_one_row_and_nothing_on_empty_histories(method, sequences, build):
    if method == "Rule" and sequences == 1:
        pytest.skip("Rule needs a category sequence")
    model, loaders = build("DIN", method, sequences)
    batch = next(iter(loaders["train"]))
    ssl, number = model._self_supervision, 4 if method in WITH_NEGATIVES else 3
    ssl.watched = True
    for rows in (1, 2, 16):
        some = {name: column[:rows] for name, column in batch.items()}
        assert all(loss.isfinite() for loss in ssl.losses(model, some)[:number])
        empty = {name: torch.zeros_like(column) for name, column in some.items()}
        assert [loss.item() for loss in ssl.losses(model, empty)[:number]] == [0] * number


@pytest.mark.parametrize("method", WITH_NEGATIVES)
def test_who_looks_at_the_negatives_changes_no_loss(method, build):
    model, loaders = build("DIN", method, 2)
    ssl, batch = model._self_supervision, next(iter(loaders["train"]))
    start, seen = ssl.generator.get_state(), []
    for ssl.watched in (False, True):
        ssl.generator.set_state(start)
        seen.append(ssl.losses(model, batch))
    assert seen[0].negative_similarity is None
    assert -1 <= seen[1].negative_similarity.item() <= 1
    assert seen[0][:3] == seen[1][:3]


@pytest.mark.parametrize("method", ["MISS", "Rule", "IRSSL"])
def test_rows_of_other_blocks_are_no_negatives(method, build):
    """A block of one row has nothing to push apart."""
    batch, alone = None, []
    for size in (1, None):
        model, loaders = build("DIN", method, 3, ssl_block_size=size)
        batch = batch or next(iter(loaders["train"]))
        losses = model._self_supervision.losses(model, batch)
        alone.append([losses.ssl.item() == 0, losses.feature.item() == 0])
    assert alone == [[True, True], [False, method != "MISS"]]


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_left_as_it_was(method, build):
    """Augmentations make views; they do not write into the histories or the tables."""
    model, loaders = build("DIN", method, 2)
    batch = next(iter(loaders["train"]))
    columns, weights = copy.deepcopy(batch), copy.deepcopy(model.state_dict())
    model._self_supervision.losses(model, batch)
    assert all(torch.equal(batch[name], column) for name, column in columns.items())
    assert_holds(model, weights)


@pytest.mark.parametrize("method", METHODS)
def test_no_term_starves_the_label_loss_under_the_global_clip_at_the_first_step(method, build):
    """FuxiCTR's tables start at a standard deviation of 1e-4: normalizing such vectors is steep.

    The clip at 10 may not shrink the label gradient to less than half of itself.
    """
    model, loaders = build("DNN", method, 2)
    batch = next(iter(loaders["train"]))
    model.compute_loss(model.forward(batch), model.get_labels(batch)).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients) < 20


@pytest.mark.parametrize("method", METHODS)
def test_every_key_of_a_method_has_a_default_and_its_name_in_front(method):
    settings = get_method(method).Settings()
    prefix = f"{method.lower()}_"
    for name, value in vars(settings).items():
        assert method_defaults()[prefix + name] == value


# (method, key, a value that the method refuses)
BAD_VALUES = [
    ("CL4CTR", "mask", "row"),
    ("CL4CTR", "mask_ratio", 1.0),
    ("CL4CTR", "mask_ratio", math.nan),
    ("CL4CTR", "encoder", "mlp"),
    ("CL4CTR", "layers", 0),
    ("CL4CTR", "dropout", 1.0),
    ("CL4CTR", "field_weight", -1.0),
    ("CL4SRec", "crop_ratio", 1.1),
    ("CL4SRec", "mask_ratio", -0.1),
    ("CL4SRec", "reorder_ratio", math.nan),
    ("DuoRec", "supervised", "both"),
    ("ICSRec", "intents", 0),
    ("ICSRec", "clustered", 0),
    ("ICSRec", "iterations", 0),
    ("IRSSL", "dropout", 0.0),
    ("IRSSL", "num_pairs", 0),
    ("IRSSL", "encoder", [0]),
    ("Item2Vec", "window", 0),
    ("Item2Vec", "num_pairs", 0),
    ("Item2Vec", "negatives", 0),
    ("Item2Vec", "power", -1.0),
    ("Item2Vec", "subsample", 0),
    ("MAP", "task", "mfp"),
    ("MAP", "ratio", 0.0),
    ("MAP", "ratio", 1.0),
    ("MAP", "negatives", 0),
    ("MAP", "hidden_units", []),
    ("MISS", "distance", "normal"),
    ("MISS", "view_encoder", "gru"),
    ("MISS", "variant", "/M"),
    ("NextItem", "negatives", 0),
    ("NextItem", "power", -1.0),
    ("Rule", "dropout", 0.0),
    ("Rule", "dropout", 1.0),
    ("Rule", "num_pairs", 0),
    ("Rule", "encoder", []),
    ("Rule", "category", -1),
    ("S3Rec", "dropout", -0.1),
    *(
        (method, key, value)
        for method in ("CL4SRec", "DuoRec", "ICSRec", "NextItem", "S3Rec")  # with a Transformer
        for key, value in (("layers", 0), ("heads", 0), ("max_len", 0), ("dropout", 1.0))
    ),
]


@pytest.mark.parametrize(("method", "key", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_by_its_key(method, key, value):
    prefix = f"{method.lower()}_"
    with pytest.raises(InputError, match=prefix + key):
        read_settings(get_method(method).Settings, prefix, {prefix + key: value})


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_closed_form_is_in_the_tables_of_every_backbone_whatever_the_strategy(backbone, build):
    """What PPMI promises in place of a gradient: a row for each id in the histories, none for
    padding, and under the recipe's frozen tables they are as the formula gave them."""
    for strategy in STRATEGIES:
        sequences = sequences_of(backbone, "PPMI")
        keys = {"ssl_training": strategy, "ssl_label_gradient": 0.0}
        model, loaders = build(backbone, "PPMI", sequences, **keys)
        rows = fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
        assert [row["phase"] for row in rows] == ["closed_form", "label"]
        ssl = model._self_supervision
        names = ssl.sources[0].features
        for name, table in zip(names, ssl.sources[0].tables(model), strict=True):
            ids = ssl_histories(model, loaders["train"]).column(name).long()
            expected = ssl.methods[0].closed_form(ids, *table.weight.shape)
            assert expected.any()
            assert not expected[0].any()
            assert torch.equal(table.weight, expected)


def ssl_histories(model: Any, train: Any) -> Histories:
    """The histories that a model's closed form sees."""
    ssl = model._self_supervision
    return Histories(train, [s.features for s in ssl.sources], ssl.user, ssl.unknown_user)


def test_the_methods_of_table_v_are_here():
    assert {"MISS", "PPMI", "Rule", "IRSSL", "S3Rec", "CL4SRec"} <= set(METHODS)
    assert {"CL4CTR", "MAP", "DuoRec", "ICSRec", "Item2Vec", "NextItem"} <= set(METHODS)
