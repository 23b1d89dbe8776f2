from model_zoo.DIN.model import DIN

__all__ = ["DIN"]
