from fuxictr_miss.model_zoo.AutoInt.model import AutoInt

__all__ = ["AutoInt"]
