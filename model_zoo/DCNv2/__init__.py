from fuxictr_miss.model_zoo.DCNv2.model import DCNv2

__all__ = ["DCNv2"]
