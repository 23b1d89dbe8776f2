"""Search hyper-parameters by validation: every combination, or trials that Optuna draws."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fuxictr_miss.config import Config
from fuxictr_miss.errors import InputError
from fuxictr_miss.outputs.result_table import check_result_table

if TYPE_CHECKING:
    from fuxictr_miss.tuning.search import Search

EXAMPLES = """examples:
  python run_param_tuner.py --config config/tuner_config/DIN_MISS_demo.yaml
  python run_param_tuner.py --config config/tuner_config/DIN_MISS_amazoncds.yaml --gpu 0 1 \\
      --search tpe --trials 50

A tuner YAML has base_config, base_expid, dataset_id and tuner_space: for each key a value, a list
of values, or for random and tpe also {low: 1.0e-4, high: 1.0e-2, log: True}. Trials never see the
test split, and run one at a time on each of --gpu (-1 -1: two on the CPU). They and their results
are in checkpoints/tuner/<name>/, or <name>_random, <name>_tpe: ranking.csv, the best first, and in
full experiments.csv. A second start runs only what is missing or failed. At the end stand the best
trial and the command that trains it; the exit code is 1 if a trial has no result. On a cluster
(--ray-address) trials of a lost machine run again; docs/tuning.md, "A cluster"."""
FOLDER = Path("checkpoints") / "tuner"


def main() -> None:
    arguments = _parse()
    from fuxictr_miss import experiment  # late: --help must not wait for torch
    from fuxictr_miss.tuning.search import Search, own_folder
    from fuxictr_miss.tuning.space import read_space

    for gpu in arguments.gpu:
        Config.of({"gpu": gpu}, {"": "--gpu"})
        if not arguments.ray_address:
            experiment.check_device(gpu)
    config, kind = Path(arguments.config), arguments.search
    folder = FOLDER / (config.stem if kind == "grid" else f"{config.stem}_{kind}")
    check_result_table(Path(f"{folder.name}.csv"))  # to which the command at the end adds a row
    space = read_space(config)
    with own_folder(folder, space.expid):
        search = Search(space, folder)
        if kind == "grid":
            search.plan_grid(arguments.tag)
        else:
            search.plan_samples(kind, arguments.trials)
        print(f"{search.left} trials to run in {folder}.", flush=True)
        search.run(arguments.gpu, arguments.ray_address)
        search.write_ranking()
        _report(search, arguments.gpu[0])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", required=True, metavar="FILE.yaml", help="the tuner's config")
    add("--search", choices=("grid", "random", "tpe"), default="grid",
        help="every combination (default), or trials drawn at random or by TPE")  # fmt: skip
    add("--trials", type=int, metavar="N", help="the number of trials of a random or TPE search")
    add("--tag", help="run only trials of the grid whose names contain this text, e.g. 001")
    add("--gpu", nargs="+", type=int, default=[-1],
        help="one trial at a time on each of these GPUs; -1 is the CPU (default)")  # fmt: skip
    add(
        "--ray-address",
        metavar="HOST:PORT",
        help="a Ray cluster that this machine belongs to, instead of this machine alone: --gpu 0 0 "
        "uses two of its GPUs, -1 -1 two of its CPUs",
    )
    arguments = parser.parse_args()
    if arguments.search == "grid" and arguments.trials is not None:
        raise InputError(
            "--trials goes with --search random or tpe: a grid tries all combinations."
        )
    if arguments.search != "grid" and arguments.tag is not None:
        raise InputError("--tag chooses trials of a grid: leave it out, or --search.")
    if arguments.search != "grid" and (arguments.trials or 0) < 1:
        raise InputError(f"--search {arguments.search} needs --trials N, the number of trials.")
    return arguments


def _report(search: Search, gpu: int) -> None:
    """Print the ranking, the trials without a result, and the command that trains the best.

    Raises:
        SystemExit: a trial has no result.
    """
    ranked = search.ranked()
    done = [(trial, row) for trial, row in ranked if row["status"] == "ok"]
    if done:
        print(search.ranking().head(min(len(done), 10)).to_string(index=False))
    for trial, row in ranked[len(done) :]:
        print(f"{trial.name} {row['status']}: {row['reason']}")
    print(f"Tables: {search.ranking_file}, in full {search.results.path}")
    if done:
        best, row = done[0]
        metrics = [f"{name}: {row[f'valid_{name}']:.6f}" for name in search.space.config.metrics]
        print(f"Best: {best.name} [valid] {' - '.join(metrics)}. To train it, and test it once:")
        script = Path(sys.argv[0])
        start = [str(script.with_name("run_expid.py"))]
        if script.name != "run_param_tuner.py":
            start = ["-m", "fuxictr_miss", "train"]
        place = ["--config", str(search.folder), "--expid", best.name, "--gpu", str(gpu)]
        print(f"  {shlex.join([sys.executable, *start, *place])}")
    if len(done) < len(ranked):
        sys.exit(f"{len(ranked) - len(done)} of {len(ranked)} trials have no result.")
