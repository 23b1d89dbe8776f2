from fuxictr_miss.model_zoo.DIEN.model import DIEN

__all__ = ["DIEN"]
