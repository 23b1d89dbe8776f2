from fuxictr_miss.model_zoo.DCN.model import DCN

__all__ = ["DCN"]
