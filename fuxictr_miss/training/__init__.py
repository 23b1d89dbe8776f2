"""Training strategies: joint (Eq. 17), pretrain, and pretrain_joint (Section IV.C, Table VIII).

A run (`run.py`) is a list of phases (`phases.py`). Only `fuxictr_loop.py` touches the private
attributes that FuxiCTR's own `fit` keeps on a model.
"""

from fuxictr_miss.training.run import fit

__all__ = ["fit"]
