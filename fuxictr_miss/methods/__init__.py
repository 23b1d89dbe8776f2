"""The self-supervised methods, one file or folder each; `base` defines what a method is.

Several of them share `draws` and `encoders`.
"""

# each registers its method
from fuxictr_miss.methods import cl4srec, irssl, item2vec, miss, nextitem, ppmi, rule, s3rec

__all__ = ["cl4srec", "irssl", "item2vec", "miss", "nextitem", "ppmi", "rule", "s3rec"]
