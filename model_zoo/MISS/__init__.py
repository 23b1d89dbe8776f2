from fuxictr_miss.model_zoo.MISS.model import MISS

__all__ = ["MISS"]
