"""Contrastive losses with in-batch negatives, one per file."""

from fuxictr_miss.losses.info_nce import info_nce
from fuxictr_miss.losses.nt_xent import nt_xent

__all__ = ["info_nce", "nt_xent"]
