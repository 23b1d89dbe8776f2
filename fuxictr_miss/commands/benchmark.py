"""Plan, run and report the tables and figures of the paper, or FuxiCTR's benchmark."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fuxictr_miss.config import default_config
from fuxictr_miss.errors import InputError, unknown

if TYPE_CHECKING:
    from fuxictr_miss.paper.plan import Experiment
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
  python run_benchmark.py --suite bars --zoo ../FuxiCTR --gpu 0 --seeds 1
  python run_benchmark.py --suite bars --sample --seeds 1           on made-up rows

tables:  2 statistics, 3 overall, 4 compatibility, 5 self-supervised methods, 6 ablations,
         7 extractors, 8 training strategies, 9 sampling rates, 10 label noise
figures: 5 similarity over steps, 6 loss weight, 7 temperature, cost the seconds of Table V's runs
suites:  bars, FuxiCTR's benchmark on its four sequence data sets, beside the published results

Every finished experiment is a row of results/experiments.csv. The command runs only experiments
without a row, so it can be stopped and started again at any time. The exit code is 1 if an
experiment failed. On a cluster (--ray-address) experiments of a lost machine run again, and one
that does not see this folder is sent the encoded data: docs/tuning.md, "A cluster"."""


def main() -> None:
    arguments = _parse()
    if arguments.suite:
        _run_suite(arguments)
        return
    from fuxictr_miss.paper.tables import REPORTS  # late: --help must be fast

    if arguments.zoo or arguments.sample:
        raise InputError("--zoo and --sample are options of --suite bars: add it.")
    if not arguments.dataset:
        raise InputError("Name the data sets by --dataset, for example --dataset amazonbeauty.")
    names = _names("table", arguments.table, REPORTS) + _names("figure", arguments.figure, REPORTS)
    if not names and not arguments.report_only:
        raise InputError("Nothing to run: give --table 3 (or 2 to 10, or all) or --figure 6.")

    from fuxictr_miss.paper import plan, report, run, search
    from fuxictr_miss.paper.results import Results

    config, datasets, budget = arguments.config, arguments.dataset, arguments.search
    params = {dataset: plan.dataset_params(config, dataset) for dataset in datasets}
    results = Results(arguments.results)
    variants = _of_models(list(plan.variants_of(names or REPORTS)), arguments.model)
    spaces = search.read_spaces(config) if budget else {}
    tried = search.trials(plan.Planner(config), variants, datasets, budget, spaces)
    trials = list(itertools.chain.from_iterable(tried.values()))
    if not arguments.dry_run:
        report.check_folder(results.path.parent, names or REPORTS)
    runs = bool(variants) and not (arguments.dry_run or arguments.report_only)
    data = {name: _build(each) for name, each in params.items()} if runs else {}

    def execute(experiments: Sequence[Experiment]) -> list[Experiment]:
        """Run those without a row if this command runs any, and return them."""
        left = run.missing(experiments, results, data, arguments.retry_failed)
        if runs:
            gpus = [arguments.gpu] * arguments.workers
            run.run_all(left, results, gpus, arguments.ray_address, arguments.keep_checkpoints)
        return left

    left = execute(trials)
    winners = search.winners(tried, results)
    planner = plan.Planner(config, {place: each.overrides for place, each in winners.items()})
    experiments = planner.experiments(variants, datasets, arguments.seeds)
    if variants and not arguments.report_only:
        absent = planner.left_out(variants, datasets)
        if not experiments:
            raise InputError(absent or planner.absence(variants[0], datasets[0]))
        print(absent, end="\n" if absent else "")
    left += execute(experiments)
    if arguments.dry_run:
        _show([*trials, *experiments], left, results, arguments.workers)
        return

    source = report.Source(planner, results, datasets, arguments.seeds, budget, winners)
    names = names or [name for name in REPORTS if source.has_results(REPORTS[name])]
    for name in names:
        report.write_report(name, source, _command(name, arguments))
    _end(names, results, experiments, [*trials, *experiments] if runs else [])


def _run_suite(arguments: argparse.Namespace) -> None:
    """FuxiCTR's benchmark: plan, run, and write one table."""
    from fuxictr_miss.paper import bars, report, run
    from fuxictr_miss.paper.results import Results

    if arguments.table or arguments.figure or arguments.search:
        raise InputError("--suite has a table of its own: leave out --table, --figure, --search.")
    config = arguments.config
    suite = bars.Suite(
        config if config != default_config() else f"{config}/bars",
        arguments.dataset or bars.DATASETS,
        arguments.model or bars.MODELS,
        arguments.seeds,
        arguments.zoo,
        arguments.sample,
    )
    experiments, results = suite.experiments(), Results(arguments.results)
    if suite.left_out:
        print(suite.why_left_out())
    report.check_folder(results.path.parent, [suite.name])
    runs = not (arguments.dry_run or arguments.report_only)
    params = {each.dataset: dict(each.params) for each in experiments} if runs else {}
    data = {name: _build(each) for name, each in params.items()}
    left = run.missing(experiments, results, data, arguments.retry_failed)
    if arguments.dry_run:
        _show(experiments, left, results, arguments.workers)
        return
    if runs:
        gpus = [arguments.gpu] * arguments.workers
        run.run_all(left, results, gpus, arguments.ray_address, arguments.keep_checkpoints)
    page = results.path.with_name(f"{suite.name}.md")
    report.write_sheet(page, suite.sheet(results), _suite_command(arguments))
    _end([suite.name], results, experiments, experiments if runs else [])


def _end(
    names: Sequence[str],
    results: Results,
    experiments: Sequence[Experiment],
    ran: Sequence[Experiment],
) -> None:
    """Write the index, print a summary, and exit with 1 if one of those that ran has failed."""
    from fuxictr_miss.paper import report

    report.write_index(results.path.parent)
    counts = Counter(row["status"] for e in experiments if (row := results.rows.get(e.key)))
    states = ", ".join(f"{n} {status}" for status, n in sorted(counts.items())) or "none run"
    written = ", ".join(str(results.path.with_name(f"{name}.md")) for name in names)
    print(f"{len(experiments)} experiments: {states}. Reports: {written}")
    if any(results.rows.get(each.key, {}).get("status") == "failed" for each in ran):
        sys.exit(1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add("--table", **several, metavar="N", help="tables of the paper: 2 to 10, or all")
    add("--figure", **several, metavar="N", help="figures: 5, 6, 7, cost, or all")
    add("--suite", choices=["bars"], help="FuxiCTR's benchmark instead, on all of its data sets")
    add("--dataset", **several, metavar="NAME", help="data sets, shown side by side")
    add("--model", **several, metavar="NAME",
        help="run only these models, e.g. DIN DIN_MISS; the reports show all results")  # fmt: skip
    add("--seeds", type=int, default=5, metavar="N", help="seeds 1 to N (default: 5)")
    add("--search", type=int, default=0, metavar="N",
        help="first try N settings of every model, from <config>/search.yaml, and choose by "
        "validation; 0 (default): use the config unchanged")  # fmt: skip
    add("--workers", type=int, default=1, metavar="N", help="parallel runs, one CPU each")
    add("--ray-address", metavar="HOST:PORT",
        help="run on a Ray cluster that this machine belongs to, not on it alone")  # fmt: skip
    add("--dry-run", action="store_true", help="print the plan and an estimate of its time")
    add("--report-only", action="store_true", help="rewrite the reports without running anything")
    add("--retry-failed", action="store_true", help="rerun experiments that failed or diverged")
    add("--keep-checkpoints", action="store_true", help="keep them in checkpoints/benchmark")
    add("--zoo", metavar="PATH", help="for --suite: a checkout of FuxiCTR, for its classes")
    add("--sample", action="store_true", help="for --suite: made-up rows (bars_sample.py)")
    add("--gpu", type=int, default=-1, metavar="N", help="GPU index of each worker, -1 for the CPU")
    add("--results", default="./results", metavar="FOLDER", help="default: %(default)s")
    add("--config", default=default_config(), metavar="FOLDER", help="default: ./config/, or if it "
        "does not exist the one that comes with the package")  # fmt: skip
    arguments = parser.parse_args()
    for option, least in (("seeds", 1), ("search", 0), ("workers", 1)):
        if getattr(arguments, option) < least:
            parser.error(f"--{option} must be at least {least}")
    return arguments


def _of_models(variants: list[Variant], models: Sequence[str]) -> list[Variant]:
    """The variants of the requested models; all if none are requested."""
    valid = list(dict.fromkeys(variant.model for variant in variants))
    for model in models:
        if model not in valid:
            raise unknown("model of these tables", model, valid)
    return [variant for variant in variants if not models or variant.model in models]


def _names(kind: str, given: Sequence[str], reports: Iterable[str]) -> list[str]:
    """The reports of one kind that are asked for by number."""
    valid = [name.removeprefix(f"{kind}_") for name in reports if name.startswith(kind)]
    for number in given:
        if number not in (*valid, "all"):
            raise unknown(kind, number, [*valid, "all"])
    numbers = valid if "all" in given else dict.fromkeys(given)
    return [f"{kind}_{number}" for number in numbers]


def _build(params: dict[str, Any]) -> str:
    """Encode a data set before any worker starts; return its digest."""
    from fuxictr_miss.data import build_dataset
    from fuxictr_miss.data.digest import stamped_digest

    build_dataset(params)
    return stamped_digest(params)


def _show(
    planned: Sequence[Experiment], left: Sequence[Experiment], results: Results, workers: int
) -> None:
    """Print the plan, one line per setting, and the estimated remaining time."""
    from fuxictr_miss.paper.run import estimate

    rows = list(results.rows.values())
    times = [estimate(each, rows) for each in left]
    waiting = Counter(map(_setting, left))
    for setting, group in itertools.groupby(planned, key=_setting):
        first, *rest = group
        settings = " ".join(f"{k}={v}" for k, v in first.overrides.items())
        print(
            f"{first.dataset:18} {first.model:14} {first.purpose:6} {waiting[setting]} of "
            f"{len(rest) + 1} to run, {_duration(estimate(first, rows))} each  {settings}".rstrip()
        )
    if any(each.purpose == "search" for each in left):
        print("The search is not finished: the final experiments may get other settings.")
    known = [seconds for seconds in times if seconds is not None]
    total = sum(known) / workers if len(known) == len(times) else None
    print(
        f"{len(left)} of {len(planned)} experiments to run, "
        f"{_duration(total)} with {workers} worker(s)."
    )


def _setting(experiment: Experiment) -> tuple[str, str]:
    """What the seeds of an experiment have in common."""
    return experiment.purpose, experiment.digest


def _duration(seconds: float | None) -> str:
    return "time unknown" if seconds is None else f"about {timedelta(seconds=round(seconds))}"


def _suite_command(arguments: argparse.Namespace) -> str:
    parts = ["python run_benchmark.py --suite bars", *(["--sample"] if arguments.sample else [])]
    for option in ("dataset", "model"):
        names = getattr(arguments, option)
        parts += [f"--{option} {' '.join(names)}"] if names else []
    parts += [f"--zoo {arguments.zoo}"] if arguments.zoo else []
    return " ".join([*parts, f"--seeds {arguments.seeds}", *_folders(arguments)])


def _command(name: str, arguments: argparse.Namespace) -> str:
    """The command that makes this one report."""
    kind, _, number = name.partition("_")
    parts = ["python run_benchmark.py", f"--{kind} {number}"]
    parts += [f"--dataset {' '.join(arguments.dataset)}", f"--seeds {arguments.seeds}"]
    parts += [f"--search {arguments.search}"] if arguments.search else []
    return " ".join([*parts, *_folders(arguments)])


def _folders(arguments: argparse.Namespace) -> list[str]:
    defaults = {"config": default_config(), "results": "./results"}
    values = {option: getattr(arguments, option) for option in defaults}
    return [f"--{name} {value}" for name, value in values.items() if value != defaults[name]]
