from model_zoo.DeepFM.model import DeepFM

__all__ = ["DeepFM"]
