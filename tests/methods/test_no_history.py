"""Methods that need no history, on data in the form of Criteo and Avazu."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import fuxictr_miss as fm
from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.base import get_method
from fuxictr_miss.training import fit, pretraining, run
from fuxictr_miss.training.histories import Rows

pytestmark = pytest.mark.trained_number

METHODS = ["CL4CTR", "MAP"]
BACKBONES = ["FM", "DNN", "DeepFM", "PNN", "DCN", "DCNv2", "xDeepFM", "AutoInt", "FiGNN"]
STRATEGIES = ["joint", "pretrain", "pretrain_joint"]
NUMBERS, IDS = ["I1", "I2"], ["C1", "C2", "C3"]
ROWS = {"train": 65, "valid": 20, "test": 20}  # with batches of 16 the last one has one row


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits of two numbers and three ids, without any history."""
    folder = tmp_path_factory.mktemp("criteo")
    draw = np.random.default_rng(1)
    for name, rows in ROWS.items():
        columns: dict[str, Any] = {"label": np.arange(rows) % 2.0}
        columns |= {number: draw.normal(size=rows) for number in NUMBERS}
        columns |= {ident: [f"v{i}" for i in draw.integers(0, 9, rows)] for ident in IDS}
        pl.DataFrame(columns).write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture
def criteo(params: dict[str, Any], table: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The keys of a small experiment on it, with short epochs of the pretraining."""
    monkeypatch.setattr(pretraining, "MIN_DRAWS", 256)
    params = {k: v for k, v in params.items() if not k.endswith(("_field", "_regularizer"))}
    active = {"active": True}
    return {
        **params,
        **{f"{name}_data": str(table / f"{name}.parquet") for name in ROWS},
        "feature_cols": [
            {"name": NUMBERS, "dtype": "float", "type": "numeric", **active},
            {"name": IDS, "dtype": "str", "type": "categorical", **active},
        ],
        "ssl_pretrain_epochs": 1,
    }


def build(params: dict[str, Any], model: str, **keys: Any) -> tuple[Any, dict[str, Any]]:
    return experiment.build({**params, "model": model, "model_id": model, **keys})


def trained(params: dict[str, Any], model: str, **keys: Any) -> tuple[Any, list[dict[str, Any]]]:
    built, loaders = build(params, model, **keys)
    rows = fit(built, loaders["train"], epochs=2, validation_data=loaders["valid"])
    return built, rows


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_is_enhanced_under_every_strategy(criteo, backbone, method):
    strategy = STRATEGIES[(BACKBONES.index(backbone) + METHODS.index(method)) % 3]
    model, rows = trained(criteo, f"{backbone}_{method}", ssl_training=strategy)
    source = model._self_supervision.sources[0]
    assert source.features == NUMBERS + IDS
    assert [row["ssl_loss"] > 0 for row in rows if "ssl_loss" in row]
    assert {"joint": "joint", "pretrain": "label", "pretrain_joint": "joint"}[strategy] == (
        rows[-1]["phase"]
    )
    plain = model.to_backbone()
    assert type(plain) is fm.get_model(backbone)


@pytest.mark.parametrize("method", METHODS)
def test_tables_of_their_own_in_joint_training_take_contrastive_steps_on_rows(criteo, method):
    _, rows = trained(criteo, f"PNN_{method}", ssl_training="joint", ssl_label_gradient=0.0)
    assert [row["phase"] for row in rows] == ["joint"] * len(rows)
    assert "held_out_ssl" not in rows[0]  # 65 rows are too few to hold some out
    assert rows[0]["ssl_loss"] > 0


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_moves_every_table_and_the_weights_of_numbers(criteo, method):
    model, loaders = build(criteo, f"DNN_{method}")
    ssl = model._self_supervision
    ssl.weighted(ssl.losses(model, next(iter(loaders["train"])))).backward()
    for name, each in zip(NUMBERS + IDS, ssl.sources[0].tables(model), strict=True):
        assert each.weight.grad.any(), name
    assert {id(p) for p in ssl.table_parameters(model)} == {
        id(t.weight) for t in ssl.sources[0].tables(model)
    }


@pytest.mark.parametrize("method", METHODS)
def test_weight_zero_is_the_plain_backbone(criteo, method):
    model, _ = trained(criteo, f"DNN_{method}", ssl_weight=0)
    plain, _ = trained(criteo, "DNN")
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_the_recommended_recipe_freezes_tables_of_ids_with_the_norms_of_their_counts(
    criteo, method, caplog
):
    keys = {"ssl_recipe": "recommended", "ssl_start": "svd", "ssl_pretrain_epochs": 1,
            "ssl_thaw": False}  # fmt: skip
    with caplog.at_level(logging.INFO):
        model, rows = trained(criteo, f"PNN_{method}", **keys)
    assert [row["phase"] for row in rows] == ["pretrain", "label", "label"]
    _, loaders = build(criteo, "PNN")
    for name in IDS:
        weight = model.embedding_layer.embedding_layer.embedding_layers[name].weight
        count = loaders["train"].column(name).long().bincount(minlength=len(weight)).float()
        count[0] = 0
        norm = count.log1p()
        torch.testing.assert_close(weight.norm(dim=1), norm / norm[count > 0].mean())
    assert not any("pretrained vectors" in r.getMessage() for r in caplog.records)
    assert any("from the features I1 + I2 + C1" in r.getMessage() for r in caplog.records)
    assert "ssl_start: svd is left out: the method reads no history." in caplog.text


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_as_if_nothing_had_happened(criteo, method, monkeypatch):
    def run_it(resume: bool) -> dict[str, torch.Tensor]:
        model, loaders = build(criteo, f"DNN_{method}", ssl_training="pretrain_joint")
        fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"], resume=resume)
        return model.state_dict()

    whole, save = run_it(resume=False), run.Run._save

    def save_and_die(each: Any) -> None:
        save(each)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "_save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_it(resume=False)
    again = run_it(resume=True)
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_a_pretraining_draws_every_row_with_all_of_its_features(criteo):
    _, loaders = build(criteo, "DNN")
    rows = Rows(loaders["train"], IDS)
    assert len(rows) == ROWS["train"]
    assert rows.pairs.tolist() == [1] * ROWS["train"]
    some = torch.tensor([3, 64, 3])
    batch = rows.batch(some, torch.Generator())
    assert {n: c.tolist() for n, c in batch.items()} == {
        name: loaders["train"].columns[name][some].tolist() for name in IDS
    }


@pytest.mark.parametrize("method", ["MISS", "CL4SRec", "DuoRec", "ICSRec", "PPMI"])
def test_a_method_that_needs_a_history_says_so_and_which_do_not(criteo, method):
    with pytest.raises(InputError, match="no behavior sequence to learn from") as error:
        build(criteo, f"DNN_{method}")
    assert "Without a history there are _CL4CTR and _MAP." in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_the_key_of_histories_is_refused(params, method):
    with pytest.raises(InputError, match="ssl_sequences") as error:
        build(params, f"DNN_{method}", ssl_sequences=["item_history"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_features_of_several_dimensions_are_refused_by_name(criteo, method):
    criteo["feature_cols"].append({"name": "C4", "dtype": "str", "type": "categorical",
                                   "active": True, "embedding_dim": 2})  # fmt: skip
    criteo["feature_cols"][1]["name"] = IDS[:2]
    criteo["feature_cols"][2]["name"] = "C3"
    with pytest.raises(InputError, match=r"I1: 4, .*C3: 2\)") as error:
        build(criteo, f"DNN_{method}")
    assert "embedding_dim" in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_vectors_is_refused(criteo, method):
    with pytest.raises(InputError, match=r"LR_.* in no table of more than one dimension"):
        build(criteo, f"LR_{method}")


def test_map_needs_a_categorical_feature(criteo):
    del criteo["feature_cols"][1]
    model, loaders = build(criteo, "DNN_MAP")
    with pytest.raises(InputError, match="I1, I2 are numbers or histories") as error:
        fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert "\n" not in str(error.value)


def test_those_that_need_no_history_are_the_ones_that_say_so():
    reading = [n for n in fm.list_methods() if getattr(get_method(n), "reads", "") == "fields"]
    assert reading == METHODS
