"""Hyper-parameter search with FuxiCTR's own tuner: a run of run_expid.py for every combination."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import yaml

from fuxictr_miss.config import load_params
from fuxictr_miss.errors import InputError, run_command, unknown

EXAMPLES = """examples:
  python run_param_tuner.py --config config/tuner_config/DIN_MISS_demo.yaml
  python run_param_tuner.py --config config/tuner_config/DIN_MISS_amazoncds.yaml --gpu 0 1

A tuner YAML names base_config, base_expid, dataset_id and tuner_space, lists of values by key. Its
combinations are written to checkpoints/tuner/<name>/ and run one at a time on each of --gpu (-1 -1:
two on the CPU); a row each with its metrics goes to <name>.csv. Choose by the valid_ columns."""
FOLDER = Path("checkpoints") / "tuner"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE.yaml", help="the tuner's config")
    parser.add_argument("--tag", help="only expids with this text in them, as 001")
    parser.add_argument(
        "--gpu", nargs="+", type=int, default=[-1], help="GPU indices, -1 for the CPU (default)"
    )
    arguments = parser.parse_args()
    _check(Path(arguments.config))

    from fuxictr import autotuner

    # beside a copy, for the tuner writes its combinations into a folder next to its config
    FOLDER.mkdir(parents=True, exist_ok=True)
    config = FOLDER / Path(arguments.config).name
    shutil.copyfile(arguments.config, config)
    folder = autotuner.enumerate_params(str(config))
    expids = autotuner.load_experiment_ids(folder)
    if arguments.tag is not None and not any(arguments.tag in expid for expid in expids):
        raise unknown("tag", arguments.tag, expids)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    autotuner.grid_search(
        folder, arguments.gpu, arguments.tag, str(Path(__file__).with_name("run_expid.py"))
    )


def _check(path: Path) -> None:
    """Say in one sentence what FuxiCTR's tuner would answer with a traceback.

    Raises:
        InputError: no such file, or a key in it that does not exist.
    """
    if not path.is_file():
        raise InputError(f"{path} is not there: --config is the tuner's YAML file.")
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for key in ("base_config", "base_expid", "tuner_space"):
        if key not in content:
            raise InputError(f"{path} has no {key}.")
    params = load_params(content["base_config"], content["base_expid"])
    for key in content["tuner_space"]:
        if key not in params:
            raise unknown(f"key in the tuner_space of {path}:", key, params)


if __name__ == "__main__":
    run_command(main)
