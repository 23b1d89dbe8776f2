"""The backbones of the MISS paper, one package per model: `model_zoo.DIN.DIN`, ...

Class names, constructor arguments and parameter names are those of FuxiCTR's own zoo, so that
checkpoints can be exchanged. The README of each package has its paper, equations, keys and
differences.
"""
