"""MISS, multi-interest self-supervised learning (arXiv 2111.15068).

Eq. 18 (behavior tensor) stands in `fuxictr_miss.behavior`; here are Eq. 9, 10, 19, 20, 22, 23
(`extractors`), Eq. 11, 12, 21, 24 (`augmentation`) and Eq. 13, 14 (`encoders` of `method`); Eq. 15
and 16 stand in `fuxictr_miss.losses`, Eq. 17 in `fuxictr_miss.enhancer`.
"""

from fuxictr_miss.methods.miss.method import MISS, MISSSettings

__all__ = ["MISS", "MISSSettings"]
