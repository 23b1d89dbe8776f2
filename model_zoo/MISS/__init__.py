from model_zoo.MISS.model import MISS

__all__ = ["MISS"]
