"""A tiny exported artefact, written by hand: y_pred is a sum of what the inputs say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fuxictr_miss.serving.vocabulary import digests_of

ITEMS = {"i1": 1, "i2": 2, "i3": 3}
CATEGORIES = {"c1": 1, "c2": 2}
VOCABULARY: dict[str, Any] = {
    "format": 1,
    "model": "Sum",
    "dataset_id": "tiny",
    "data": "0123",
    "outputs": ["y_pred"],
    "inputs": [
        {"name": "item_id", "type": "categorical", "dtype": "str", "fill_na": "",
         "vocabulary": "item_id"},
        {"name": "item_history", "type": "sequence", "dtype": "str", "fill_na": "",
         "splitter": "^", "max_len": 3, "padding": "post", "vocabulary": "item_id"},
        {"name": "cate_history", "type": "sequence", "dtype": "str", "fill_na": "",
         "splitter": "^", "max_len": 3, "padding": "pre", "vocabulary": "cate_id"},
        {"name": "price", "type": "numeric", "dtype": "float", "fill_na": 0.0,
         "normalizer": {"name": "StandardScaler", "mean": 10.0, "scale": 4.0}},
    ],
    "vocabularies": {
        "item_id": {"oov": 4, "ids": ITEMS},
        "cate_id": {"oov": 3, "ids": CATEGORIES},
    },
}  # fmt: skip
ROWS = [
    {"item_id": "i1", "item_history": "i1^i2", "cate_history": "c1^c2", "price": 10.0},
    {"item_id": "new", "item_history": "i9^i1^i2^i3", "cate_history": "", "price": 14.0},
    {"item_id": None, "item_history": None, "cate_history": "c2", "price": None},
]


def write_model(path: Path, inputs: list[dict[str, Any]], outputs: list[str]) -> None:
    """sigmoid(sum over inputs of weight * input), a history by the sum of its places' weights."""
    graph_inputs, nodes, weights, terms = [], [], [], []
    for number, each in enumerate(inputs, 1):
        name, length = each["name"], each.get("max_len", 1)
        shape = ["batch", length] if each["type"] == "sequence" else ["batch"]
        kind = TensorProto.FLOAT if each["type"] == "numeric" else TensorProto.INT64
        graph_inputs.append(helper.make_tensor_value_info(name, kind, shape))
        weight = 0.01 * number * np.arange(1, length + 1, dtype=np.float32).reshape(-1, 1)
        weights.append(numpy_helper.from_array(weight, f"w_{name}"))
        nodes.append(helper.make_node("Cast", [name], [f"f_{name}"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Reshape", [f"f_{name}", f"s_{name}"], [f"r_{name}"]))
        weights.append(numpy_helper.from_array(np.array([-1, length], np.int64), f"s_{name}"))
        nodes.append(helper.make_node("MatMul", [f"r_{name}", f"w_{name}"], [f"t_{name}"]))
        terms.append(f"t_{name}")
    nodes.append(helper.make_node("Sum", terms, ["logit"]))
    nodes += [helper.make_node("Sigmoid", ["logit"], [name]) for name in outputs]
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 1]) for n in outputs]
    graph = helper.make_graph(nodes, "sum", graph_inputs, made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))


def write_artefact(folder: Path, **changes: Any) -> Path:
    content = {**VOCABULARY, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "model.onnx", content["inputs"], content["outputs"])
    content["files"] = digests_of(folder, ["model.onnx"])
    (folder / "vocab.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def expected(ids: dict[str, np.ndarray]) -> np.ndarray:
    """(B,) what the model makes of encoded rows."""
    logit = 0.0
    for number, each in enumerate(ids.values(), 1):
        array = each.reshape(len(each), -1).astype(np.float64)
        logit = logit + array @ (0.01 * number * np.arange(1, array.shape[1] + 1))
    return 1 / (1 + np.exp(-logit))


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artefact(tmp_path_factory.mktemp("artefact"))
