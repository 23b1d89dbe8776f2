from model_zoo.DNN.model import DNN

__all__ = ["DNN"]
