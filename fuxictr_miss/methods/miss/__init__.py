"""MISS, multi-interest self-supervised learning (arXiv 2111.15068).

Where each equation is; behavior.py explains the axis order and its letters.

    8                 augmentation.py              halves of a history, for the variant without M
    9, 19, 20         extractors.py                MIE: horizontal convolutions, LSTM, attention
    10, 22, 23        extractors.py, method.py     MIMFE: vertical convolutions, rows of them
    11, 21            augmentation.py              Aug_i: pairs of windows
    12, 24            augmentation.py              Aug_if: pairs of rows
    13, 14            method.py                    Enc_i, Enc_if
    15, 16            fuxictr_miss/losses          InfoNCE
    17                fuxictr_miss/mixin.py        the sum with the label loss
    18                fuxictr_miss/behavior.py     the behavior tensor C
"""

from fuxictr_miss.methods.miss.method import MISS, MISSSettings

__all__ = ["MISS", "MISSSettings"]
