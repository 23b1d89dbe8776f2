"""A feature map, batches and models small enough to follow by hand."""

from __future__ import annotations

import importlib.util
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuxictr.features import FeatureMap
from torch import Tensor, nn

VOCABULARY = {"user_id": 7, "item_id": 11, "cate_id": 5}
SHARES = {"item_history": "item_id", "cate_history": "cate_id"}
MAX_LENGTH = 5
EMBEDDING_DIM = 4


@pytest.fixture
def make_feature_map(tmp_path: Path) -> Callable[..., FeatureMap]:
    """(pooled: bool) -> the canonical columns user, item, cate and their two histories."""

    def make(pooled: bool) -> FeatureMap:
        feature_map = FeatureMap("tiny", str(tmp_path))
        feature_map.features = OrderedDict(
            (name, {"source": "", "type": "categorical", "vocab_size": size, "padding_idx": 0})
            for name, size in VOCABULARY.items()
        )
        for name, target in SHARES.items():
            feature_map.features[name] = {
                "source": "",
                "type": "sequence",
                "share_embedding": target,
                "vocab_size": VOCABULARY[target],
                "padding_idx": 0,
                "max_len": MAX_LENGTH,
                "feature_encoder": "layers.MaskedAveragePooling()" if pooled else None,
            }
        feature_map.labels = ["label"]
        feature_map.num_fields = feature_map.get_num_fields()
        feature_map.default_emb_dim = EMBEDDING_DIM
        feature_map.set_column_index()
        return feature_map

    return make


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Tensor]]:
    """(lengths, padding) -> a batch whose row b has a history of lengths[b] items."""

    def make(lengths: list[int], padding: str = "post", seed: int = 0) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(seed)

        def ids(vocabulary: str, *shape: int) -> Tensor:
            return torch.randint(1, VOCABULARY[vocabulary], shape, generator=draw)

        rows = len(lengths)
        batch = {name: ids(name, rows) for name in VOCABULARY}
        for name, target in SHARES.items():
            batch[name] = torch.zeros(rows, MAX_LENGTH, dtype=torch.long)
            for row, length in enumerate(lengths):
                start = 0 if padding == "post" else MAX_LENGTH - length
                batch[name][row, start : start + length] = ids(target, length)
        batch["label"] = (torch.arange(rows) % 2).float()
        return batch

    return make


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., nn.Module]:
    """(class, feature map, **keys) -> a model with the keys that FuxiCTR always asks for."""

    def make(cls: type[nn.Module], feature_map: FeatureMap, **keys: Any) -> nn.Module:
        torch.manual_seed(20)
        common = {
            "embedding_dim": EMBEDDING_DIM,
            "learning_rate": 1e-2,
            "optimizer": "adam",
            "loss": "binary_crossentropy",
            "metrics": ["AUC"],
            "verbose": 0,
            "model_root": str(tmp_path),
        }
        model = cls(feature_map, **common | keys)
        model._max_gradient_norm = 10.0  # set by fit() before it calls train_step()
        return model

    return make


@pytest.fixture
def build_exact(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The same in float64 and eval mode, every weight drawn wide; padding rows stay zero."""

    def make(cls: type[nn.Module], feature_map: FeatureMap, **keys: Any) -> nn.Module:
        model = build(cls, feature_map, **keys).double().eval()
        draw = torch.Generator().manual_seed(21)
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = torch.randn(parameter.shape, generator=draw).double() / 2
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight.data[module.padding_idx] = 0
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean = torch.randn(module.num_features, generator=draw).double()
                module.running_var = torch.rand(module.num_features, generator=draw).double() + 0.5
        return model

    return make


@pytest.fixture
def pooled_fields() -> Callable[..., list[Tensor]]:
    """(embedding layer, batch, row) -> its F vectors, histories averaged, by plain loops."""

    def look_up(embedding_layer: nn.Module, batch: dict[str, Tensor], row: int) -> list[Tensor]:
        tables = embedding_layer.embedding_layer.embedding_layers
        fields = [tables[name].weight[batch[name][row]] for name in VOCABULARY]
        for name in SHARES:
            items = [tables[name].weight[item] for item in batch[name][row].tolist() if item != 0]
            fields.append(sum(items) / len(items) if items else torch.zeros_like(fields[0]))
        return fields

    return look_up


@pytest.fixture
def linear_part() -> Callable[..., Tensor]:
    """(LogisticRegression, batch, row) -> w_0 + sum_i w_i x_i, a history being a count."""

    def total(layer: nn.Module, batch: dict[str, Tensor], row: int) -> Tensor:
        tables = layer.embedding_layer.embedding_layer.embedding_layers
        result = torch.zeros(1, dtype=torch.float64) if layer.bias is None else layer.bias
        for name in VOCABULARY:
            result = result + tables[name].weight[batch[name][row]]
        for name in SHARES:
            for item in batch[name][row].tolist():
                result = result + tables[name].weight[item]
        return result

    return total


@pytest.fixture
def run_tower() -> Callable[[nn.Module, Tensor], Tensor]:
    """(MLP_Block with ReLU, input) -> its output, layer by layer; a last sigmoid is left out."""

    def run(block: nn.Module, x: Tensor) -> Tensor:
        layers = [layer for layer in block.mlp if isinstance(layer, nn.Linear)]
        relus = sum(isinstance(layer, nn.ReLU) for layer in block.mlp)
        for number, layer in enumerate(layers):
            x = layer.weight @ x + layer.bias
            if number < relus:
                x = x.clamp(min=0)
        return x

    return run


@pytest.fixture
def load_upstream() -> Callable[[str, str], type[nn.Module]]:
    """(file below the zoo, class name) -> FuxiCTR's own class; FUXICTR_ZOO says where they are."""
    zoo = os.environ.get("FUXICTR_ZOO")
    if not zoo:
        pytest.skip("set FUXICTR_ZOO to the model_zoo folder of a checkout of FuxiCTR")

    def load(file: str, name: str) -> type[nn.Module]:
        spec = importlib.util.spec_from_file_location(f"upstream_{name}", Path(zoo) / file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)

    return load
