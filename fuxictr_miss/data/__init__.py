"""From canonical splits to batches."""

from fuxictr_miss.data.build import build_dataset
from fuxictr_miss.data.digest import data_digest
from fuxictr_miss.data.loader import TensorDataLoader

__all__ = ["TensorDataLoader", "build_dataset", "data_digest"]
