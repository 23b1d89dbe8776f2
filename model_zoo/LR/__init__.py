from model_zoo.LR.model import LR

__all__ = ["LR"]
