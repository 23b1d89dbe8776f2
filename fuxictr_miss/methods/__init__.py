"""The self-supervised methods, one file or folder each; `base` defines what a method is.

Several of them share `draws` and `encoders`.
"""

from fuxictr_miss.methods import cl4srec, irssl, miss, rule, s3rec  # each registers its method

__all__ = ["cl4srec", "irssl", "miss", "rule", "s3rec"]
