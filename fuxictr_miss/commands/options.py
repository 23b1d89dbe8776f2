"""The options that say which experiment is meant."""

from __future__ import annotations

import argparse
from typing import Any

from fuxictr_miss.config import check, default_config, load_params, override
from fuxictr_miss.errors import InputError


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """--config, --expid, --gpu, --seed, --set, --zoo."""
    add = parser.add_argument
    add("--config", default=default_config(), help="config folder (default: ./config/, or where "
        "there is none the one that comes with the package)")  # fmt: skip
    add("--expid", help="the experiment, e.g. DIN_MISS_demo")
    add("--gpu", type=int, default=-1, help="GPU index, -1 for the CPU (default)")
    add("--seed", type=int, help="instead of the config's; kept apart by its name")
    add("--set", action="append", default=[], metavar="KEY=VALUE",
        help="override a parameter; may be given several times")  # fmt: skip
    add("--zoo", metavar="PATH", help="a checkout of FuxiCTR, or a folder or package of models of "
        "your own; its classes come before ours (config key: model_zoo_path)")  # fmt: skip


def experiment_params(arguments: argparse.Namespace) -> dict[str, Any]:
    """The checked parameters of the experiment that the options name.

    Raises:
        InputError: no expid, or something in the config or the options is wrong.
    """
    if not arguments.expid:
        raise InputError("Which experiment? Give --expid; `train --list` shows what there is.")
    params = load_params(arguments.config, arguments.expid)
    params = override(params, arguments.set, arguments.seed)
    if arguments.zoo:
        params["model_zoo_path"] = arguments.zoo
    return check({**params, "gpu": arguments.gpu}, {"gpu": "--gpu"})
