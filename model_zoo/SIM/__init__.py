from fuxictr_miss.model_zoo.SIM.model import SIM

__all__ = ["SIM"]
