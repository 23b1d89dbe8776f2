"""One room a self-supervised method. What a method is, is written in `fuxictr_miss.registry`."""
