from fuxictr_miss.model_zoo.LR.model import LR

__all__ = ["LR"]
