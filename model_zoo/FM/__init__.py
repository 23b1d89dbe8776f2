from model_zoo.FM.model import FM

__all__ = ["FM"]
