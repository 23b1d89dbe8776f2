from fuxictr_miss.model_zoo.FiGNN.model import FiGNN

__all__ = ["FiGNN"]
