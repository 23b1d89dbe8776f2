"""Command-line options that select an experiment."""

from __future__ import annotations

import argparse

from fuxictr_miss.config import Config, default_config, load_config
from fuxictr_miss.errors import InputError


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """Add --config, --expid, --gpu, --seed, --set and --zoo."""
    add = parser.add_argument
    add("--config", default=default_config(), help="config folder (default: ./config/, or if it "
        "does not exist the one that comes with the package)")  # fmt: skip
    add("--expid", help="the experiment, e.g. DIN_MISS_demo")
    add("--gpu", type=int, default=-1, help="GPU index, -1 for the CPU (default)")
    add("--seed", type=int, help="use this seed; the run's files get its number in their names")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="override parameters; can be repeated")  # fmt: skip
    add("--zoo", metavar="PATH", help="a checkout of FuxiCTR, or a folder or package with your own "
        "models; they take precedence over ours (config key: model_zoo_path)")  # fmt: skip


def experiment_config(arguments: argparse.Namespace) -> Config:
    """Load the config of the experiment that the options select.

    Raises:
        InputError: --expid is missing, or the config or an option is invalid.
    """
    if not arguments.expid:
        raise InputError("Give --expid to select an experiment; `train --list` prints them all.")
    config = load_config(arguments.config, arguments.expid)
    config = config.override(arguments.set, arguments.seed)
    if arguments.zoo:
        config = config.replace({"model_zoo_path": arguments.zoo}, "--zoo")
    return config.replace({"gpu": arguments.gpu}, "--gpu")
