"""A file or a folder for each self-supervised method; `fuxictr_miss.registry` says what one is.

What several of them need stands in `draws` and `encoders`.
"""
