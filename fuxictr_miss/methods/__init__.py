"""The self-supervised methods, one file or folder each; `base` defines what a method is.

Several of them share `draws` and `encoders`.
"""

# each registers its method
from fuxictr_miss.methods import (
    cl4ctr,
    cl4srec,
    duorec,
    icsrec,
    irssl,
    item2vec,
    map,
    miss,
    nextitem,
    ppmi,
    rule,
    s3rec,
)

__all__ = [
    "cl4ctr",
    "cl4srec",
    "duorec",
    "icsrec",
    "irssl",
    "item2vec",
    "map",
    "miss",
    "nextitem",
    "ppmi",
    "rule",
    "s3rec",
]
