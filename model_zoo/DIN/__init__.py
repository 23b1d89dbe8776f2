from fuxictr_miss.model_zoo.DIN.model import DIN

__all__ = ["DIN"]
