"""MISS as the paper trains it: DIN with multi-interest self-supervision (arXiv 2111.15068)."""

from fuxictr_miss.mixin import enhance
from fuxictr_miss.model_zoo.DIN import DIN

MISS = enhance(DIN, "MISS")  # `DIN_MISS`; any other backbone is enhanced in the same way
