from fuxictr_miss.model_zoo.DeepFM.model import DeepFM

__all__ = ["DeepFM"]
