"""Hyper-parameter search by validation.

space.py     a tuner's YAML: the experiment to start from, and the values to try
sampling.py  the next trial of a random or TPE search, by Optuna
search.py    run the trials that are missing, and rank all
"""
