"""The backbones of the MISS paper, one package a model: `model_zoo.DIN.DIN`, `model_zoo.PNN.PNN`.

Class names, constructor arguments and parameter names are those of FuxiCTR's own zoo, so that a
checkpoint moves between the two. Each package has a README: paper, equation, keys, differences.
"""
