from fuxictr_miss.model_zoo.PNN.model import PNN

__all__ = ["PNN"]
