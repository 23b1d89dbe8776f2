from fuxictr_miss.model_zoo.FM.model import FM

__all__ = ["FM"]
