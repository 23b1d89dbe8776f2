"""MISS, multi-interest self-supervised learning (arXiv 2111.15068).

Eq. 18               fuxictr_miss/behavior.py   the behavior tensor C
Eq. 9, 10, 19 to 23  extractors.py              interests, and their features
Eq. 8, 11, 12, 21, 24  augmentation.py          which of them are pairs of views
Eq. 13, 14           method.py                  the encoders of views
Eq. 15, 16           fuxictr_miss/losses        InfoNCE
Eq. 17               fuxictr_miss/enhancer.py   the sum with the loss of the labels
"""

from fuxictr_miss.methods.miss.method import MISS, MISSSettings

__all__ = ["MISS", "MISSSettings"]
