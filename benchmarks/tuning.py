"""How far do twelve random or TPE trials get, of what the whole grid finds?

    python run_param_tuner.py --config config/tuner_config/DIN_MISS_demo_grid.yaml
    python benchmarks/tuning.py

Reads the grid's results and searches in them, so that no trial is trained again: the metric of a
search is the best validation AUC that it has seen, a mean over many searches with other seeds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from fuxictr_miss.errors import run_command
from fuxictr_miss.paper.results import Results
from fuxictr_miss.tuning.sampling import SEARCHES, Known, next_trial
from fuxictr_miss.tuning.space import Space, read_space

NAME = "DIN_MISS_demo_grid"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=f"config/tuner_config/{NAME}.yaml")
    parser.add_argument("--results", default=f"checkpoints/tuner/{NAME}")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--searches", type=int, default=100)
    arguments = parser.parse_args()
    space = read_space(Path(arguments.config))
    rows = Results(arguments.results).rows
    values = {key: row["valid_AUC"] for key, row in rows.items() if row["status"] == "ok"}
    best = sorted(values.values(), reverse=True)
    print(f"grid of {len(best)}: best {best[0]:.4f}, median {statistics.median(best):.4f}")
    print("| search | best of its trials, mean | worst search | finds one of the grid's best 3 |")
    print("|---|---:|---:|---:|")
    for search in SEARCHES:
        found = [
            max(_values(space, search, arguments.trials, 1000 * number, values))
            for number in range(arguments.searches)
        ]
        share = sum(value >= best[2] for value in found) / len(found)
        print(f"| {search} | {statistics.mean(found):.4f} | {min(found):.4f} | {share:.0%} |")


def _values(
    space: Space, search: str, trials: int, first: int, values: dict[str, float]
) -> list[float]:
    """The metrics of the trials of one search; their numbers, from `first` on, are its seeds."""
    known: dict[str, Known] = {}
    for number in range(first + 1, first + trials + 1):
        trial = next_trial(space, search, number, known)
        assert trial is not None
        known[trial.key] = Known(trial.overrides, values.get(trial.key), trial.key not in values)
    return [each.value for each in known.values() if each.value is not None]


if __name__ == "__main__":
    run_command(main)
