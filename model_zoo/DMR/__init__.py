from fuxictr_miss.model_zoo.DMR.model import DMR

__all__ = ["DMR"]
