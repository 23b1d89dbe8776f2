"""Data and models of any size for the other scripts: synthetic, uniform, in memory."""

from __future__ import annotations

import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from torch import Tensor

import fuxictr_miss as fm
from fuxictr_miss.adapt import adapt
from fuxictr_miss.training.mixed_precision import autocast

DIM = 10  # K
# Table II; Alipay's categories as in its raw log, the rest of its features are sellers
CDS = {"user_id": 75_258, "item_id": 64_443, "cate_id": 466}
ALIPAY = {"user_id": 326_577, "item_id": 451_631, "cate_id": 72, "seller_id": 9_886}


class MadeUp(NamedTuple):
    """A data set: users, items and their attributes, a history of each item feature.

    Args:
        vocabulary: number of values of each feature; the histories are those of all but `user_id`.
        length: of the longest history, L.
    """

    vocabulary: dict[str, int]
    length: int

    @property
    def histories(self) -> dict[str, str]:
        """History -> the feature whose table it shares."""
        return {f"{name[:-3]}_history": name for name in self.vocabulary if name != "user_id"}

    def batch(self, rows: int, draw: torch.Generator) -> dict[str, Tensor]:
        """`rows` instances whose histories have 1 to L behaviors, padded behind."""

        def ids(feature: str, *shape: int) -> Tensor:
            values = torch.randint(1, self.vocabulary[feature] + 1, shape, generator=draw)
            return values.int()  # as the loader keeps them

        lengths = torch.randint(1, self.length + 1, (rows, 1), generator=draw)
        real = torch.arange(self.length) < lengths
        batch = {feature: ids(feature, rows) for feature in self.vocabulary}
        for history, target in self.histories.items():
            batch[history] = ids(target, rows, self.length) * real
        return {**batch, "label": (torch.arange(rows) % 2).float()}

    def feature_map(self) -> FeatureMap:
        """What FuxiCTR's models are built on."""
        feature_map = FeatureMap("made_up", tempfile.gettempdir())
        feature_map.features = OrderedDict(
            (feature, _spec("categorical", size + 1)) for feature, size in self.vocabulary.items()
        )
        for history, target in self.histories.items():
            spec = _spec("sequence", self.vocabulary[target] + 1)
            feature_map.features[history] = {
                **spec,
                "share_embedding": target,
                "max_len": self.length,
            }
        feature_map.labels = ["label"]
        feature_map.default_emb_dim = DIM
        feature_map.num_fields = len(feature_map.features)
        return feature_map

    def model(self, name: str, precision: str | None = None, **keys: Any) -> BaseModel:
        """A model of the paper's size (Section VI.A.5), in train(); `precision` as for autocast."""
        seed_everything(1)
        model_class = autocast(fm.get_model(name), precision)
        params = {
            "embedding_dim": DIM,
            "dnn_hidden_units": [40, 40, 40],
            "hidden_units": [40, 40, 40],
            "attention_hidden_units": [40],
            "din_target_field": [list(self.histories.values())],
            "din_sequence_field": [list(self.histories)],
            "optimizer": "adam",
            "loss": "binary_crossentropy",
            "metrics": ["AUC"],
            "model_root": tempfile.gettempdir(),
            "verbose": 0,
            "gpu": -1,
            **keys,
        }
        adapted = adapt(model_class, self.feature_map(), params)
        model = model_class(adapted.feature_map, **adapted.params)
        model._max_gradient_norm = 10.0  # set by fit() before it calls train_step()
        return model.train()


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of `work`: what else the machine does counts little."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _spec(kind: str, vocabulary: int) -> dict[str, Any]:
    return {"source": "", "type": kind, "vocab_size": vocabulary, "padding_idx": 0}
