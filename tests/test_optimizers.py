"""The forms of Adam: fused, and by rows, both PyTorch's to rounding."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding, FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

import fuxictr_miss as fm
from fuxictr_miss import experiment, training
from fuxictr_miss.errors import InputError
from fuxictr_miss.optimizers import FusedAdam, RowAdam, RowTable, set_optimizer

BACKBONES = [name for name in fm.list_models() if "_" not in name and name != "MISS"]
RATE = 0.01
TARGETS, HISTORIES = ["item_id", "cate_id"], ["item_history", "cate_history"]
FIELDS = {
    **{f"{model}target_field": [TARGETS] for model in ("", "dien_")},
    **{f"{model}sequence_field": [HISTORIES] for model in ("", "dien_")},
    "parallel_dnn_hidden_units": [8, 8],
    "cin_hidden_units": [3, 2],
}


def build(params: dict[str, Any], model: str, optimizer: str, **changes: Any) -> tuple[Any, Any]:
    params = {**params, **FIELDS, "model": model, "model_id": f"{model}_{optimizer}", **changes}
    if model in ("FM", "LR"):  # one key for both
        params = {key: v for key, v in params.items() if not key.endswith("_regularizer")}
    model, loaders = experiment.build({**params, "optimizer": optimizer})
    model._max_gradient_norm = 10.0
    return model.train(), loaders


def tables_of(model: nn.Module) -> list[nn.Embedding]:
    layers = [each for each in model.modules() if isinstance(each, FeatureEmbeddingDict)]
    return list(
        dict.fromkeys(table for layer in layers for table in layer.embedding_layers.values())
    )


class Pair:
    """Two equal tables, one with sparse gradients and `RowAdam`, one with PyTorch's Adam."""

    def __init__(self, rows: int) -> None:
        torch.manual_seed(5)
        self.dense = nn.Embedding(rows, 3, padding_idx=0, dtype=torch.float64)
        self.sparse = nn.Embedding(rows, 3, padding_idx=0, sparse=True, dtype=torch.float64)
        self.sparse.load_state_dict(self.dense.state_dict())
        self.sparse.__class__ = RowTable
        self.adam = torch.optim.Adam(self.dense.parameters(), lr=RATE)
        self.row_adam = RowAdam(self.sparse.parameters(), lr=RATE)

    def step(self, ids: list[int], scale: float = 1.0) -> None:
        """One step of both, of the same loss on the same rows."""
        weights = torch.arange(1.0, 3 * len(ids) + 1, dtype=torch.float64).view(len(ids), 3)
        for table, optimizer in ((self.dense, self.adam), (self.sparse, self.row_adam)):
            optimizer.zero_grad()
            (weights * table(torch.tensor(ids)).sin() * scale).sum().backward()
            optimizer.step()

    def steps(self, number: int, per_step: int = 3, **options: float) -> None:
        draw = torch.Generator().manual_seed(6)
        rows = len(self.dense.weight)
        for _ in range(number):
            self.step(torch.randint(0, rows, (per_step,), generator=draw).tolist(), **options)

    def assert_equal(self, **tolerance: float) -> None:
        self.sparse.eval()
        torch.testing.assert_close(self.sparse.weight, self.dense.weight, **tolerance)


def test_a_row_that_is_looked_up_takes_adams_first_step():
    pair = Pair(6)
    pair.step([1, 4, 4, 0])
    torch.testing.assert_close(pair.sparse.weight, pair.dense.weight)


def test_where_every_batch_holds_every_row_it_is_adam_at_every_step():
    pair = Pair(5)
    for step in range(30):
        pair.step([0, 1, 2, 3, 4, step % 5])
        torch.testing.assert_close(pair.sparse.weight[1:], pair.dense.weight[1:])


def test_a_step_touches_the_rows_of_the_batch_only():
    pair = Pair(6)
    pair.step([1, 2])
    state = pair.row_adam.state[pair.sparse.weight]
    tensors = [pair.sparse.weight.detach(), state["exp_avg"], state["exp_avg_sq"]]
    before = [each.clone() for each in tensors]
    pair.step([2, 3])
    for old, new in zip(before, tensors, strict=True):
        assert (old != new).any(dim=1).nonzero().flatten().tolist() == [2, 3]


def test_a_row_is_where_adam_would_have_it_whenever_it_is_looked_up():
    pair = Pair(40)
    draw = torch.Generator().manual_seed(7)
    for _ in range(300):
        ids = torch.randint(0, 40, (3,), generator=draw)
        torch.testing.assert_close(pair.sparse(ids), pair.dense(ids))
        pair.step(ids.tolist())


@pytest.mark.parametrize("steps", [1, 3, 1100])  # beyond what fades, and the first 1024
def test_in_eval_all_rows_are_where_adam_would_have_them(steps):
    pair = Pair(300)
    pair.steps(steps)
    pair.assert_equal()
    pair.sparse.train()
    pair.steps(20)  # and it goes on from there
    pair.assert_equal()


def test_rates_that_fall_apply_to_the_steps_taken_with_them():
    pair = Pair(30)
    pair.steps(20)
    for optimizer in (pair.adam, pair.row_adam):
        optimizer.param_groups[0]["lr"] = RATE / 10
    pair.steps(20)
    pair.assert_equal()


@pytest.mark.parametrize(("scale", "error"), [(1e-4, 1e-5), (1e-6, 1e-3)])
def test_small_gradients_leave_the_error_that_the_docstring_states(scale, error):
    pair = Pair(40)
    start = pair.dense.weight.detach().clone()
    pair.steps(200, scale=scale)
    pair.sparse.eval()
    moved = (pair.dense.weight - start).abs().mean()
    assert (pair.sparse.weight - pair.dense.weight).abs().max() < error * moved


def test_a_dense_gradient_of_the_table_finds_all_rows_in_place():
    pair = Pair(20)
    pair.steps(10)
    for table, optimizer in ((pair.dense, pair.adam), (pair.sparse, pair.row_adam)):
        table.weight.grad = torch.ones(20, 3, dtype=torch.float64)
        optimizer.step()
    pair.steps(10)
    pair.assert_equal()


def test_weights_that_are_loaded_are_what_stays():
    pair = Pair(20)
    pair.steps(10)
    loaded = {"weight": torch.randn(20, 3, dtype=torch.float64)}
    pair.sparse.load_state_dict(loaded)
    assert torch.equal(pair.sparse.eval().weight, loaded["weight"])


def test_a_second_optimizer_takes_over_from_where_the_first_would_be():
    pair = Pair(20)
    pair.steps(10)
    pair.adam = torch.optim.Adam(pair.dense.parameters(), lr=RATE)
    pair.row_adam = RowAdam(pair.sparse.parameters(), lr=RATE)
    pair.steps(10)
    pair.assert_equal()


def test_the_saved_state_is_that_of_adam():
    pair = Pair(4)
    pair.steps(10)
    ours, theirs = pair.row_adam.state_dict()["state"][0], pair.adam.state_dict()["state"][0]
    assert ours.keys() == theirs.keys()
    for name, each in theirs.items():
        torch.testing.assert_close(ours[name], each)


@pytest.mark.parametrize("largest", [0.5, 1e6])
def test_the_global_clip_treats_sparse_gradients_like_dense_ones(largest):
    clipped = []
    for sparse in (False, True):
        torch.manual_seed(6)
        table, head = nn.Embedding(9, 3, padding_idx=0, sparse=sparse), nn.Linear(3, 1)
        for ids in ([1, 1, 2, 0], [2, 7]):  # a table looked up twice
            (head(table(torch.tensor(ids))) * 9).square().sum().backward()
        parameters = [*table.parameters(), *head.parameters()]
        norm = nn.utils.clip_grad_norm_(parameters, largest)
        clipped.append([norm, *(p.grad.to_dense() for p in parameters)])
    torch.testing.assert_close(clipped[1], clipped[0])


def test_fused_adam_is_adam_to_rounding():
    weights = []
    for make in (torch.optim.Adam, FusedAdam):
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = make(model.parameters(), lr=RATE)
        for _ in range(50):
            optimizer.zero_grad()
            (model(torch.randn(16, 6)) - 1).square().mean().backward()
            optimizer.step()
        weights.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*BACKBONES, "DIN_MISS", "DNN_MISS"])
@pytest.mark.parametrize("largest", [10.0, 1e-3])
def test_every_models_first_step_is_that_of_adam(params, name, largest):
    changes = {"net_regularizer": 1e-4, "ssl_training": "joint"}
    weights = []
    for optimizer in ("adam", "sparse_adam"):
        model, loaders = build(params, name, optimizer, **changes)
        model._max_gradient_norm = largest
        model.train_step(next(iter(loaders["train"])))
        weights.append(model.state_dict())
    assert all(table.sparse for table in tables_of(model))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-3 * RATE)


@pytest.mark.parametrize("name", [*BACKBONES, "DIN_MISS"])
def test_every_model_learns_and_its_padding_stays(params, name):
    model, loaders = build(params, name, "sparse_adam", ssl_training="joint")
    batch = next(iter(loaders["train"]))
    losses = [model.train_step(batch).item() for _ in range(15)]
    assert losses[-1] < losses[0]
    assert all((table.weight[0] == 0).all() for table in tables_of(model))


def test_gradients_of_tables_stay_sparse_whatever_the_regularizer_of_the_net(params):
    """FuxiCTR adds 0. times the norm of every table where only net_regularizer is set."""
    model, loaders = build(params, "DIN", "sparse_adam", net_regularizer=1e-4)
    batch = next(iter(loaders["train"]))
    model.compute_loss(model.forward(batch), model.get_labels(batch)).backward()
    for table in tables_of(model):
        assert table.weight.grad.is_sparse
        assert table.weight.grad.is_coalesced()


class WithNumbers(BaseModel):
    """A number, an id, and an id whose table starts from a file."""

    def __init__(self, folder: Path, **kwargs: Any) -> None:
        (folder / "feature_vocab.json").write_text(json.dumps({"a": {}, "b": {"x": 1, "y": 2}}))
        np.savez(folder / "vectors.npz", key=np.array(["x", "y"]), value=np.eye(2, 4))
        ids = {"source": "", "type": "categorical", "vocab_size": 4, "padding_idx": 0}
        start = {"pretrained_emb": "vectors.npz", "pretrain_dim": 4, "pretrain_usage": "sum"}
        feature_map = FeatureMap("numbers", str(folder))
        feature_map.features = OrderedDict(
            x={"source": "", "type": "numeric"},
            a=ids,
            b={**ids, **start, "oov_idx": 3, "freeze_emb": False},
        )
        feature_map.labels = ["label"]
        super().__init__(feature_map, model_root=str(folder), metrics=["AUC"], verbose=0, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, 4)
        self.tower = nn.Linear(12, 1)
        self.compile("adam", "binary_crossentropy", RATE)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        return {"y_pred": self.output_activation(self.tower(x))}


def test_numbers_and_pretrained_tables_train_beside_the_other_tables(tmp_path):
    model = WithNumbers(tmp_path)
    set_optimizer(model, "sparse_adam")
    model._max_gradient_norm = 10.0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = {"x": torch.tensor([0.5, 2.0]), "a": torch.tensor([1, 2]), "b": torch.tensor([1, 2])}
    model.train().train_step({**batch, "label": torch.tensor([0.0, 1.0])})
    after = model.state_dict()
    assert not [name for name, value in before.items() if torch.equal(after[name], value)]
    still = {n: (after[n] == v).all(1).nonzero().flatten().tolist() for n, v in before.items()
             if n.startswith("embedding_layer") and len(v) == 4 and v.shape[1] == 4}  # fmt: skip
    assert len(still) == 3
    assert all(rows == [0, 3] for rows in still.values())


@pytest.mark.parametrize("strategy", ["joint", "pretrain_joint"])
def test_a_resumed_run_ends_with_the_same_bits(params, strategy, monkeypatch):
    changes = {"ssl_training": strategy, "ssl_pretrain_epochs": 2, "ssl_embedding_lr_scale": 0.5}

    def run(**options: Any) -> dict[str, Tensor]:
        model, loaders = build(params, "DIN_MISS", "sparse_adam", **changes)
        training.fit(model, loaders["train"], 3, loaders["valid"], **options)
        return model.state_dict()

    whole = run()
    save = training._Run._save

    def save_and_die(self: Any) -> None:
        save(self)
        if len(self.rows) in (1, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Run, "_save", save_and_die)
    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            run(resume=resume)
    monkeypatch.setattr(training._Run, "_save", save)
    resumed = run(resume=True)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_weight_zero_gives_the_bits_of_the_plain_backbone(params):
    weights = []
    for name in ("DIN", "DIN_MISS"):
        model, loaders = build(params, name, "sparse_adam", ssl_weight=0)
        training.fit(model, loaders["train"], 2, loaders["valid"])
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("optimizer", ["adam", "sparse_adam"])
def test_pretraining_takes_the_form_of_the_models_optimizer(params, optimizer):
    model, loaders = build(params, "DIN_MISS", optimizer, ssl_training="pretrain")
    pretraining = training._Pretraining(model, loaders["train"])
    assert type(pretraining.optimizer) is type(model.optimizer)
    assert all(group["fused"] for group in pretraining.optimizer.param_groups)


def test_the_backbone_of_a_sparsely_trained_model_is_a_plain_one(params):
    model, loaders = build(params, "DIN_MISS", "sparse_adam")
    plain = model.to_backbone()
    fresh, _ = build(params, "DIN", "adam")
    assert plain.state_dict().keys() == fresh.state_dict().keys()
    assert not any(table.sparse for table in tables_of(plain))
    assert (plain.predict(loaders["test"]) == model.predict(loaders["test"])).all()


def test_groups_and_their_rates_are_kept(params):
    model, _ = build(params, "DIN_MISS", "sparse_adam", learning_rate=0.02)
    optimized = [p for group in model.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in optimized} == {id(p) for p in model.parameters()}
    assert model.lr_decay(0.5) == 0.01
    assert {group["lr"] for group in model.optimizer.param_groups} == {0.01}


def test_other_optimizers_stay_fuxictrs(params):
    model, _ = build(params, "DIN", "Adagrad")
    assert type(model.optimizer) is torch.optim.Adagrad


@pytest.mark.parametrize("name", ["DIN", "DIN_MISS"])
def test_a_regularizer_of_whole_tables_is_refused(params, name):
    with pytest.raises(InputError, match="embedding_regularizer"):
        build(params, name, "sparse_adam", embedding_regularizer=1e-5)
