"""One data set and one config for all models: each gets its sequences as it reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from fuxictr.pytorch.layers import FeatureEmbedding, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel, MultiTaskModel
from hypothesis import given
from hypothesis import strategies as st

import fuxictr_miss as fm
from fuxictr_miss import experiment, registry
from fuxictr_miss.adapt import POOLING, adapt, padded
from fuxictr_miss.errors import InputError
from fuxictr_miss.traits import Traits


class Pooled(BaseModel):
    """A class that nobody knows; it takes one vector a field, and normalizes over the batch."""

    def __init__(self, feature_map: Any, embedding_dim: int = 4, **kwargs: Any) -> None:
        super().__init__(feature_map, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.mlp = MLP_Block(feature_map.sum_emb_out_dim(), [8], output_dim=1, batch_norm=True)
        self.compile(kwargs["optimizer"], kwargs["loss"], 1e-2)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        embedded = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        return {"y_pred": self.output_activation(self.mlp(embedded))}


class Positions(BaseModel):
    """A class that nobody knows; it gives each position of the history a weight of its own."""

    def __init__(
        self,
        feature_map: Any,
        embedding_dim: int = 4,
        my_sequence_field: Any = ("click_history",),
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_map, **kwargs)
        self.sequence = my_sequence_field
        self.embedding_layer = FeatureEmbeddingDict(feature_map, embedding_dim)
        self.weights = torch.nn.Linear(feature_map.features[self.sequence]["max_len"], 1)
        self.linear = torch.nn.Linear(feature_map.sum_emb_out_dim(), 1)
        self.compile(kwargs["optimizer"], kwargs["loss"], 1e-2)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        embedded = self.embedding_layer(self.get_inputs(inputs))
        history = embedded[self.sequence]
        embedded[self.sequence] = self.weights(history.transpose(1, 2)).squeeze(-1)
        y = self.linear(self.embedding_layer.dict2tensor(embedded, flatten_emb=True))
        return {"y_pred": self.output_activation(y)}


class TwoTasks(MultiTaskModel):
    """Two towers on one embedding."""

    def __init__(self, feature_map: Any, embedding_dim: int = 4, **kwargs: Any) -> None:
        super().__init__(feature_map, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        towers = [torch.nn.Linear(feature_map.sum_emb_out_dim(), 1) for _ in range(self.num_tasks)]
        self.towers = torch.nn.ModuleList(towers)
        self.compile(kwargs["optimizer"], kwargs["loss"], 1e-2)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        embedded = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        outputs = zip(self.feature_map.labels, self.towers, self.output_activation, strict=True)
        return {f"{label}_pred": end(tower(embedded)) for label, tower, end in outputs}


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {each.__name__: each for each in (Pooled, Positions, TwoTasks)}
    monkeypatch.setattr(registry, "_models", own)


def build(params: dict[str, Any], model: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    built, loaders = experiment.build({**params, "model": model, "model_id": model, **changes})
    built._max_gradient_norm = 10.0  # set by fit() before it calls train_step()
    return built, loaders


def encoders(model: Any) -> list[str | None]:
    specs = model.feature_map.features
    return [specs[name].get("feature_encoder") for name in ("item_history", "cate_history")]


def in_zoo(folder: Path, name: str, text: str) -> type[BaseModel]:
    """A class of a zoo that is laid out as FuxiCTR's."""
    file = folder / name / "src" / f"{name}.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return fm.get_model(name, folder)


# --------------------------------------------------------------------------------- unknown classes


@pytest.mark.parametrize("ending", ["", "_MISS"])
def test_an_unknown_class_is_tried_out_and_never_cut(params, ending):
    model, loaders = build(params, f"Pooled{ending}")
    assert encoders(model) == [POOLING, POOLING]
    assert next(iter(loaders["train"]))["item_history"].shape[1] == 9
    params["my_sequence_field"] = "item_history"
    model, loaders = build(params, f"Positions{ending}")
    assert encoders(model) == [None, POOLING]  # its key names the first only
    for batch in loaders["train"]:
        assert model.train_step(batch).isfinite()


def test_trying_out_leaves_the_start_of_the_run_alone(params):
    model, _ = build(params, "Pooled")
    known = {**params, "model": "Pooled", "model_id": "Pooled"}
    registry._models["Pooled"] = type("Pooled", (Pooled,), {"traits": Traits()})
    other, _ = experiment.build(known)
    weights = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in weights)


def test_a_class_that_does_not_run_says_so_in_one_sentence(params):
    class Wrong(Pooled):
        def __init__(self, feature_map: Any, depth: int = 0, **kwargs: Any) -> None:
            raise KeyError("depth")

    registry._models["Wrong"] = Wrong
    with pytest.raises(InputError) as error:
        build(params, "Wrong_MISS")
    message = str(error.value)
    assert "on this data: KeyError: 'depth' in test_adapt.py, line" in message
    assert "Check its keys (depth)" in message


def test_a_known_class_that_does_not_run_says_what_it_needs(params, tmp_path):
    text = (
        "from fuxictr.pytorch.models import BaseModel\nclass GDCN(BaseModel):\n"
        "    def __init__(self, *args, **params): {}[0]"
    )
    in_zoo(tmp_path, "GDCN", text)
    with pytest.raises(InputError, match=r"KeyError: 0 in GDCN\.py.* It needs dnn_hidden_units"):
        build(params, "GDCN_MISS", model_zoo_path=str(tmp_path))


# ---------------------------------------------------------------------------- fields in the config


def test_a_default_that_the_data_lacks_is_answered_with_what_to_set(params):
    with pytest.raises(InputError) as error:
        build(params, "Positions")
    assert "asks by default for click_history" in str(error.value)
    assert "my_sequence_field: [[item_history, cate_history]]" in str(error.value)


def test_a_field_that_the_data_lacks_is_refused_with_the_closest(params):
    with pytest.raises(InputError, match=r"my_sequence_field: 'item_histry'.*'item_history'"):
        build(params, "Positions", my_sequence_field="item_histry")


def test_groups_of_fields_reach_a_model_as_tuples(params):
    feature_map = build(params, "DNN")[0].feature_map
    groups = {"a": [["item_id", "cate_id"], ["user_id"]], "b": ["item_id"], "c": [["x"]], "d": []}
    params = {**params, **groups, "units": [[8, 8]]}
    adapted = adapt(fm.get_model("DNN"), feature_map, params).params
    assert adapted["a"] == [("item_id", "cate_id"), ("user_id",)]
    assert {key: adapted[key] for key in ("b", "c", "d", "units")} == {
        key: params[key] for key in ("b", "c", "d", "units")
    }


def test_one_key_for_two_is_refused_where_the_two_are_set(params):
    with pytest.raises(InputError, match="FM takes regularizer, not embedding_regularizer and"):
        build(params, "FM_MISS")


def test_one_feature_map_serves_all(params):
    feature_map = build(params, "DNN")[0].feature_map
    before = repr(feature_map.features)
    for name in ("DIN", "DNN", "Pooled"):
        adapt(fm.get_model(name), feature_map, params)
    assert repr(feature_map.features) == before


# ------------------------------------------------------------------------------------------ padding


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1), st.booleans())
def test_padding_moves_to_one_side_and_behaviors_keep_their_order(rows, pre):
    ids = torch.tensor(rows)
    moved, marks = padded([ids, ids * 10], "pre" if pre else "post")
    assert torch.equal(marks, moved * 10)
    for before, after in zip(rows, moved.tolist(), strict=True):
        inner = "".join(map(str, before)).strip("0")  # padding between behaviors stays
        assert "".join(map(str, after)) == (inner.rjust(5, "0") if pre else inner.ljust(5, "0"))


def test_sequences_of_one_group_move_together():
    items, categories = torch.tensor([[1, 2, 0]]), torch.tensor([[5, 0, 0]])
    moved = padded([items, categories], "pre")
    assert [each.tolist() for each in moved] == [[[0, 1, 2]], [[0, 5, 0]]]


@pytest.mark.parametrize("ending", ["", "_MISS"])
def test_a_model_gets_the_padding_on_the_side_where_it_reads(params, ending):
    registry._models["Positions"] = type(
        "Positions", (Positions,), {"traits": Traits(pooled=False, padding="pre")}
    )
    _, loaders = build(params, f"Positions{ending}", my_sequence_field="item_history")
    _, untouched = build(params, "DNN")
    for split in ("train", "valid", "test"):
        histories = loaders[split].columns["item_history"]
        before = untouched[split].columns["item_history"]
        assert (histories[:, -1] != 0).all()
        assert torch.equal(histories.sort().values, before.sort().values)
        other = [each[split].columns["cate_history"] for each in (loaders, untouched)]
        assert torch.equal(*other)  # no key names it


# ------------------------------------------------------------------------- one row, several labels


@pytest.mark.parametrize("name", ["Pooled", "Pooled_MISS"])
def test_a_last_batch_of_one_row_trains_a_model_with_batch_norm(params, name):
    model, loaders = build(params, name)
    row = {key: column[:1] for key, column in loaders["train"].columns.items()}
    assert model.train().train_step(row).isfinite()


def test_a_model_of_several_tasks_trains_to_its_metrics(params):
    params["label_col"] = [{"name": "label", "dtype": "float"}, {"name": "again", "dtype": "float"}]
    for split in ("train", "valid", "test"):
        frame = pl.read_parquet(params[f"{split}_data"])
        path = Path(params["data_root"]).parent / f"{split}.parquet"
        frame.with_columns(again=1 - pl.col("label")).write_parquet(path)
        params[f"{split}_data"] = str(path)
    tasks = {"task": ["binary_classification"] * 2, "num_tasks": 2}
    result = experiment.run({**params, **tasks, "model": "TwoTasks_MISS", "epochs": 2})
    assert {"test_AUC", "test_label_AUC", "test_again_AUC"} <= set(result)
    with pytest.raises(InputError, match="TwoTasks does not run with this config on this data"):
        build(params, "TwoTasks_MISS")
