from .MISS import MISS as MISS
from .MISS import with_miss


def __getattr__(name):
    """`src.DIN_MISS`, `src.PNN_MISS` and so on, for the `model` of a config."""
    if name.startswith("_"):
        raise AttributeError(name)
    return with_miss(name)
