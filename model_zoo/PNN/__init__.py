from model_zoo.PNN.model import PNN

__all__ = ["PNN"]
