"""A file or a folder for each self-supervised method; `base` says what one is.

`draws` and `encoders` hold what several of them use.
"""

from fuxictr_miss.methods import cl4srec, irssl, miss, rule, s3rec  # each registers its method

__all__ = ["cl4srec", "irssl", "miss", "rule", "s3rec"]
