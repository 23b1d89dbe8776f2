from fuxictr_miss.model_zoo.DNN.model import DNN

__all__ = ["DNN"]
