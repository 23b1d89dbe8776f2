from fuxictr_miss.model_zoo.xDeepFM.model import xDeepFM

__all__ = ["xDeepFM"]
