"""Plan, run and report the tables and figures of the paper on data sets of `config/`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from fuxictr_miss.config import default_config
from fuxictr_miss.errors import InputError, unknown

if TYPE_CHECKING:
    from fuxictr_miss.paper.plan import Experiment
    from fuxictr_miss.paper.report import Source
    from fuxictr_miss.paper.results import Results
    from fuxictr_miss.paper.tables import Variant

EXAMPLES = """examples:
  python run_benchmark.py --table 3 --dataset amazoncds_subset --seeds 5 --workers 2
  python run_benchmark.py --table 3 --dataset demo --seeds 1 --dry-run    what would run, how long
  python run_benchmark.py --table 3 4 5 --dataset amazonbeauty amazoncds_subset
  python run_benchmark.py --table all --figure all --dataset amazoncds --search 20
  python run_benchmark.py --figure 6 7 --dataset amazonbeauty --seeds 3
  python run_benchmark.py --report-only --dataset amazonbeauty            only rewrite the reports
  python run_benchmark.py --table 3 --dataset alipay --workers 64 --ray-address HOST:6379

tables:  2 statistics, 3 overall, 4 compatibility, 5 self-supervised methods, 6 ablations,
         7 extractors, 8 training strategies, 9 sampling rates, 10 label noise
figures: 5 similarity over steps, 6 loss weight, 7 temperature

Every finished experiment is a row of results/experiments.csv. The command runs only experiments
without a row, so it can be stopped and started again at any time. The exit code is 1 if an
experiment failed. On a cluster every machine must see this folder under the same path."""


def main() -> None:
    arguments = _parse()
    from fuxictr_miss.paper.tables import FIGURES, TABLES  # late: --help must be fast

    tables = _numbers("table", arguments.table, TABLES)
    figures = _numbers("figure", arguments.figure, FIGURES)
    if not tables and not figures:
        if not arguments.report_only:
            raise InputError("Nothing to run: give --table 3 (or 2 to 10, or all) or --figure 6.")
        tables, figures = list(TABLES), list(FIGURES)

    from fuxictr_miss.paper import plan, search
    from fuxictr_miss.paper.report import Source, check_folder, write_index
    from fuxictr_miss.paper.results import Results

    plan.check_datasets(arguments.config, arguments.dataset)
    results = Results(arguments.results)
    variants = _of_models(list(plan.variants_of(tables, figures)), arguments.model)
    planner = plan.Planner(arguments.config)
    tried = {}
    if arguments.search:
        spaces = search.read_spaces(arguments.config)
        tried = search.trials(planner, variants, arguments.dataset, arguments.search, spaces)
    trials = [trial for each in tried.values() for trial in each]

    def final() -> tuple[plan.Planner, dict[tuple[str, str], search.Winner], list[plan.Experiment]]:
        """The experiments of the tables, with the settings of the best trials so far."""
        best = search.winners(tried, results)
        tuned = plan.Planner(arguments.config, {k: dict(w.overrides) for k, w in best.items()})
        return tuned, best, tuned.experiments(variants, arguments.dataset, arguments.seeds)

    if arguments.dry_run:
        _show(trials, final()[2], results, arguments)
        return
    reports = [*(f"table_{n}" for n in tables), *(f"figure_{n}" for n in figures)]
    check_folder(results.path.parent, reports)
    if not arguments.report_only and variants:
        from fuxictr_miss.paper.run import missing, run_all

        data = _build(arguments.config, arguments.dataset)
        options = arguments.workers, arguments.ray_address, arguments.keep_checkpoints
        left = missing(trials, results, data, arguments.retry_failed)
        run_all(left, results, *options, "search")
        left = missing(final()[2], results, data, arguments.retry_failed)
        run_all(left, results, *options)
    tuned, best, experiments = final()
    source = Source(tuned, results, arguments.dataset, arguments.seeds, arguments.search, best)
    written = _report(tables, figures, source, arguments)
    write_index(results.path.parent)
    counts = Counter(row["status"] for e in experiments if (row := results.rows.get(e.key)))
    states = ", ".join(f"{n} {status}" for status, n in sorted(counts.items())) or "none run"
    print(f"{len(experiments)} experiments: {states}. Reports: {', '.join(written)}")
    rows = [results.rows.get(each.key, {}) for each in (*trials, *experiments)]
    if not arguments.report_only and any(row.get("status") == "failed" for row in rows):
        sys.exit(1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--table", nargs="+", default=[], metavar="N", help="tables of the paper: 2 to 10, or all")
    add("--figure", nargs="+", default=[], metavar="N", help="figures: 5, 6, 7, or all")
    add("--dataset", nargs="+", required=True, metavar="NAME", help="data sets, shown side by side")
    add("--model", nargs="+", default=[], metavar="NAME",
        help="run only these models, e.g. DIN DIN_MISS; the reports show all results")  # fmt: skip
    add("--seeds", type=_at_least(1), default=5, metavar="N", help="seeds 1 to N (default: 5)")
    add("--search", type=_at_least(0), default=0, metavar="N",
        help="first try N settings of every model, from <config>/search.yaml, and choose by "
        "validation; 0 (default): use the config unchanged")  # fmt: skip
    add("--workers", type=_at_least(1), default=1, metavar="N", help="parallel runs, one CPU each")
    add("--ray-address", metavar="HOST:PORT", help="a Ray cluster instead of this machine")
    add("--dry-run", action="store_true", help="print the plan and an estimate of its time")
    add("--report-only", action="store_true", help="rewrite the reports without running anything")
    add("--retry-failed", action="store_true", help="rerun experiments that failed or diverged")
    add("--keep-checkpoints", action="store_true", help="keep them in checkpoints/benchmark")
    add("--results", default="./results", metavar="FOLDER", help="default: %(default)s")
    add("--config", default=default_config(), metavar="FOLDER", help="default: ./config/, or if it "
        "does not exist the one that comes with the package")  # fmt: skip
    return parser.parse_args()


def _of_models(variants: list[Variant], models: Sequence[str]) -> list[Variant]:
    """The variants of the requested models; all if none are requested."""
    valid = list(dict.fromkeys(variant.model for variant in variants))
    for model in models:
        if model not in valid:
            raise unknown("model of these tables", model, valid)
    return [variant for variant in variants if not models or variant.model in models]


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return number


def _numbers(kind: str, given: Sequence[str], valid: Iterable[int]) -> list[int]:
    names = [str(number) for number in valid]
    if "all" in given:
        return [int(name) for name in names]
    for name in given:
        if name not in names:
            raise unknown(kind, name, [*names, "all"])
    return list(dict.fromkeys(int(name) for name in given))


def _build(config: str, datasets: Sequence[str]) -> dict[str, str]:
    """Encode every data set before any worker starts; return their digests."""
    from fuxictr_miss.data import build_dataset
    from fuxictr_miss.paper.plan import dataset_params
    from fuxictr_miss.paper.worker import data_digest

    digests = {}
    for dataset in datasets:
        params = dataset_params(config, dataset)
        build_dataset(params)
        digests[dataset] = data_digest(params)
    return digests


def _show(
    trials: Sequence[Experiment],
    experiments: Sequence[Experiment],
    results: Results,
    arguments: argparse.Namespace,
) -> None:
    """Print the plan, one line per setting, and the estimated remaining time."""
    from fuxictr_miss.paper.run import estimate, missing

    left = missing([*trials, *experiments], results, {}, arguments.retry_failed)
    keys = {experiment.key for experiment in left}
    rows = list(results.rows.values())
    shown: dict[tuple[str, str, str, str], list[Experiment]] = {}
    for each in [*trials, *experiments]:
        settings = " ".join(f"{k}={v}" for k, v in each.overrides.items())
        shown.setdefault((each.dataset, each.model, each.purpose, settings), []).append(each)
    for (dataset, model, purpose, settings), group in shown.items():
        waiting = sum(each.key in keys for each in group)
        seconds = estimate(group[0], rows)
        print(
            f"{dataset:18} {model:14} {purpose:6} {waiting} of {len(group)} to run, "
            f"{_duration(seconds)} each  {settings}".rstrip()
        )
    times = [seconds for each in left if (seconds := estimate(each, rows)) is not None]
    total = sum(times) / arguments.workers if len(times) == len(left) else None
    if arguments.search and any(trial.key in keys for trial in trials):
        print("The search is not finished: the final experiments may get other settings.")
    print(
        f"{len(left)} of {len(trials) + len(experiments)} experiments to run, "
        f"{_duration(total)} with {arguments.workers} worker(s)."
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"about {hours} h {minutes:02} min"
    return f"about {minutes} min {rest:02} s" if minutes else f"about {rest} s"


def _report(
    tables: Sequence[int], figures: Sequence[int], source: Source, arguments: argparse.Namespace
) -> list[str]:
    """Write the requested reports, or all that have results; return their paths."""
    from fuxictr_miss.paper.figures import write_figure
    from fuxictr_miss.paper.report import write_table

    written = []
    for kind, numbers, make in (
        ("table", tables, write_table),
        ("figure", figures, write_figure),
    ):
        for number in numbers:
            asked = bool(arguments.table or arguments.figure)
            if make(number, source, _command(kind, number, arguments), asked):
                written.append(f"{source.results.path.parent}/{kind}_{number}.md")
    return written


def _command(kind: str, number: int, arguments: argparse.Namespace) -> str:
    """The command that makes this one report."""
    parts = ["python run_benchmark.py", f"--{kind} {number}"]
    parts += [f"--dataset {' '.join(arguments.dataset)}", f"--seeds {arguments.seeds}"]
    parts += [f"--search {arguments.search}"] if arguments.search else []
    for option, default in (("config", default_config()), ("results", "./results")):
        value = getattr(arguments, option)
        parts += [f"--{option} {value}"] if value != default else []
    return " ".join(parts)
