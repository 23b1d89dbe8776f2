"""Write Tables II to X from the results file as Markdown and LaTeX, and an index of reports."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fuxictr_miss.errors import InputError
from fuxictr_miss.files import atomic_write, writable
from fuxictr_miss.paper import published
from fuxictr_miss.paper.compare import MIN_SEEDS, Measured, improvement, marks
from fuxictr_miss.paper.plan import Planner, dataset_params
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.search import Winner
from fuxictr_miss.paper.sheet import STAR, Cell, Sheet
from fuxictr_miss.paper.tables import (
    HIGHER_IS_BETTER,
    METRICS,
    ROMAN,
    TABLES,
    Table,
    Variant,
    at_rate,
)

_ABSENT, _NOT_YET, _FAILED = "–", "…", "failed"
_COUNTS = ("users", "items", "instances", "features", "fields")
_INDEX = "# Results\n\nEvery row of `experiments.csv` is one run. The reports:\n"
MARK = "fuxictr_miss"  # metadata of our pictures
_LAST_LINE = "\nMade by `"  # of every report
_REPORT = re.compile(r"(table|figure)_\d+")


@dataclasses.dataclass(frozen=True)
class Found:
    """The results of one cell."""

    measured: Mapping[str, Measured]  # by metric; empty without results
    text: str  # shown if there is no result
    notes: tuple[str, ...]


@dataclasses.dataclass
class Source:
    """The data from which reports are made."""

    planner: Planner
    results: Results
    datasets: Sequence[str]
    seeds: int
    budget: int  # trials of the search per model; 0 for no search
    winners: Mapping[tuple[str, str], Winner]

    def find(self, variant: Variant, dataset: str) -> Found:
        """The test metrics of a model over the seeds, with footnotes."""
        rows = []
        for seed in range(1, self.seeds + 1):
            experiment = self.planner.experiment(variant, dataset, seed)
            if experiment is None:
                return Found({}, _ABSENT, (self.planner.absence(variant, dataset),))
            rows.append(self.results.rows.get(experiment.key))
        notes = [self.planner.note(variant, dataset)]
        done = [row for row in rows if row and row["status"] == "ok"]
        bad = [row for row in rows if row and row["status"] != "ok"]
        if bad:
            notes.append(
                f"{variant.name} on {dataset}: {len(bad)} of {self.seeds} seeds without a result "
                f"({bad[0]['status']}, {bad[0].get('reason', '')})."
            )
        if done and len(done) + len(bad) < self.seeds:
            notes.append(f"n = {len(done)}: not all seeds are finished.")
        measured = {
            metric: Measured({row["seed"]: row[f"test_{metric}"] for row in done})
            for metric in METRICS
            if done and all(f"test_{metric}" in row for row in done)
        }
        text = "" if done else _FAILED if bad else _NOT_YET
        return Found(measured, text, tuple(filter(None, notes)))


def check_folder(folder: Path, reports: Iterable[str]) -> None:
    """Refuse an unwritable folder, or one where a report would overwrite a foreign file.

    Args:
        folder: the folder of the results file and the reports.
        reports: the names of the reports: "table_3", "figure_5", ...

    Raises:
        InputError: names the folder or the file.
    """
    if not writable(folder):
        raise InputError(f"Reports cannot be written to {folder}: name another by --results.")
    for name in reports:
        refuse_foreign_report(folder, name)
    index = folder / "README.md"
    if index.exists() and not _text(index).startswith(_INDEX):
        raise _foreign_file(index)


def refuse_foreign_report(folder: Path, report: str) -> None:
    """Refuse to overwrite a report, or its other formats, if this command did not write it.

    Raises:
        InputError: names the file.
    """
    page = folder / f"{report}.md"
    if page.exists() and _LAST_LINE not in _text(page):
        raise _foreign_file(page)
    for ending, mark in ((".tex", "% python run_benchmark.py"), (".png", MARK), (".svg", MARK)):
        path = page.with_suffix(ending)
        if path.exists() and not page.exists() and mark not in _text(path)[:4000]:
            raise _foreign_file(path)


def _foreign_file(path: Path) -> InputError:
    return InputError(
        f"{path} was not written by run_benchmark.py: move it, or name another folder by --results."
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def write_table(number: int, source: Source, command: str, even_empty: bool = True) -> bool:
    """Write `table_<number>.md` and `.tex` into the folder of the results file.

    Args:
        number: the number of the table in the paper.
        source: the data of the report.
        command: the command that makes the report, printed in it.
        even_empty: write the table even if it has no result yet.

    Returns:
        Whether the table was written.

    Raises:
        InputError: a file of that name is not ours, or cannot be written.
    """
    table = TABLES[number]
    if number == 2:
        sheet = _statistics(source)
    else:
        sheet = _rates(table, source) if table.rate else _models(table, source)
        sheet.captions += _explanations(source, table)
    sheet.title = f"Table {ROMAN[number]}. {sheet.title}"
    if not even_empty and not _has_numbers(sheet):
        return False
    folder = source.results.path.parent
    refuse_foreign_report(folder, f"table_{number}")
    text = sheet.markdown() + winners_text(source, {v.model for b in table.blocks for v in b})
    write(folder / f"table_{number}.md", f"{text}{_LAST_LINE}{command}`.\n")
    write(folder / f"table_{number}.tex", f"% {command}\n{sheet.latex()}")
    return True


def write_index(folder: Path) -> None:
    """Write README.md of the results folder: a list of its reports with their commands."""
    lines = ["| report | as | made by |", "|---|---|---|"]
    for path in sorted(
        folder.glob("*_*.md"), key=lambda p: (p.stem[0] != "t", len(p.stem), p.stem)
    ):
        title, *content = _text(path).splitlines() or [""]
        command = next((x[8:].rstrip(".") for x in content if x.startswith(_LAST_LINE[1:])), None)
        if command is None or not _REPORT.fullmatch(path.stem):
            continue  # not ours
        others = [path.with_suffix(s).name for s in (".tex", ".png", ".svg")]
        links = ", ".join(f"[{n}]({n})" for n in others if (folder / n).exists())
        lines.append(f"| [{title.removeprefix('# ')}]({path.name}) | {links} | {command} |")
    lines += ["", "The same command with --report-only makes a report again from the rows."]
    check_folder(folder, [])
    write(folder / "README.md", "\n".join([_INDEX, *lines]) + "\n")


def write(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def winners_text(source: Source, models: set[str]) -> str:
    """The paragraph on hyper-parameters: the budget and the choices of the search, if any."""
    if not models:
        return ""
    if not source.budget:
        return "\nNo search: every model uses the settings of the config.\n"
    lines = [
        f"\nSearch: {source.budget} trials for every model, including baselines, with one seed, "
        "chosen by the validation metric alone; all cells of a model use its choice.",
        "",
        "| data set | model | chosen settings | validation | finished trials |",
        "|---|---|---|---:|---:|",
    ]
    for (dataset, model), winner in source.winners.items():
        if model in models and dataset in source.datasets:
            chosen = ", ".join(f"{k}: {json.dumps(v)}" for k, v in winner.overrides.items())
            lines.append(
                f"| {dataset} | {model} | {chosen or 'nothing'} | {winner.value:.4f} | "
                f"{winner.trials} |"
            )
    searched = {model for _, model in source.winners}
    if models - searched:
        lines += ["", f"With the settings of the config: {', '.join(sorted(models - searched))}."]
    return "\n".join(lines) + "\n"


def value_text(measured: Measured) -> str:
    """The mean ± standard deviation, or the value of a single seed, as text."""
    std = measured.std
    return f"{measured.mean:.4f}" + ("" if std is None else f" ± {std:.4f}")


def _has_numbers(sheet: Sheet) -> bool:
    """Whether the sheet has a result of ours; only ours are highlighted."""
    if any(cell.bold for block in sheet.blocks for row in block for cell in row):
        return True
    return any(width and not name for name, width in sheet.groups)  # Table II needs no runs


def _statistics(source: Source) -> Sheet:
    """Table II: the statistics of the preprocessing, and the paper's."""
    sheet = Sheet("Dataset statistics", ["Dataset", *(f"#{n.capitalize()}" for n in _COUNTS)], [])
    sheet.groups = [("", len(_COUNTS))]
    rows = []
    for dataset in source.datasets:
        params = dataset_params(source.planner.config, dataset)
        path = Path(params.get("train_data") or "").parent / "statistics.json"
        if path.exists():
            counts = _counts(path)
            cells = [Cell(f"{counts[n]:,}" if n in counts else _ABSENT) for n in _COUNTS]
        else:
            note = sheet.note(f"{path} does not exist yet: {params.get('preprocess_command', '')}")
            cells = [Cell(_NOT_YET, notes=(note,)) for _ in _COUNTS]
        rows.append([Cell(dataset), *cells])
        if dataset in published.STATISTICS:
            name = f"{published.DATASETS[dataset]} (paper)"
            rows.append([Cell(name), *(Cell(f"{n:,}") for n in published.STATISTICS[dataset])])
    sheet.blocks = [rows]
    return sheet


def _counts(path: Path) -> dict[str, int]:
    try:
        return {name: int(count) for name, count in json.loads(path.read_bytes()).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no statistics file of a preprocessing ({error}).") from error


def _models(table: Table, source: Source) -> Sheet:
    """Tables III to VIII: one row per model, AUC and logloss per data set."""
    sheet = Sheet(table.title, ["Model"], [])
    for dataset in source.datasets:
        names = list(METRICS.values())
        if dataset in published.DATASETS:
            names += [f"{name} (paper)" for name in names]
        sheet.columns += names
        sheet.groups.append((dataset, len(names)))
    for block in table.blocks:
        rows = [[Cell(variant.name)] for variant in block]
        compared = any(v.ours for v in block) and not all(v.ours for v in block)
        last = [Cell("improvement")]
        for dataset in source.datasets:
            found = [source.find(variant, dataset) for variant in block]
            # a row that equals MISS on these data is not a baseline
            ours = [v.ours or bool(source.planner.note(v, dataset)) for v in block]
            for metric in METRICS:
                column, gain = _column(sheet, found, ours, metric)
                for row, cell in zip(rows, column, strict=True):
                    row.append(cell)
                last.append(Cell(gain))
            if dataset in published.DATASETS:
                for metric in METRICS:
                    theirs = [published.metrics(dataset, v.name).get(metric) for v in block]
                    for row, value in zip(rows, theirs, strict=True):
                        row.append(Cell(_ABSENT if value is None else f"{value:.4f}"))
                    as_measured = [None if x is None else Measured({0: x}) for x in theirs]
                    last.append(Cell(_gain(as_measured, [v.ours for v in block], metric)))
        sheet.blocks.append([*rows, last] if compared else rows)
    return sheet


def _rates(table: Table, source: Source) -> Sheet:
    """Tables IX and X: one row per rate, both AUCs and the improvement per data set."""
    (block,) = table.blocks
    sheet = Sheet(table.title, ["NR" if "noise" in table.rate else "SR"], [])
    ours = [variant.ours for variant in block]
    for dataset in source.datasets:
        names = [*(variant.name for variant in block), "RI"]
        in_paper = published.rate_auc(dataset, table.rate, table.rates[0], "DIN") is not None
        names += [f"{name} (paper)" for name in names] if in_paper else []
        sheet.columns += names
        sheet.groups.append((dataset, len(names)))
    rows = []
    for rate in table.rates:
        row = [Cell(f"{rate:.0%}")]
        for dataset, (_, width) in zip(source.datasets, sheet.groups, strict=True):
            found = [source.find(at_rate(v, table.rate, rate), dataset) for v in block]
            cells, gain = _column(sheet, found, ours, "AUC")
            row += [*cells, Cell(gain)]
            if width > len(block) + 1:
                theirs = [published.rate_auc(dataset, table.rate, rate, v.name) for v in block]
                row += [Cell(_ABSENT if x is None else f"{x:.4f}") for x in theirs]
                as_measured = [None if x is None else Measured({0: x}) for x in theirs]
                row.append(Cell(_gain(as_measured, ours, "AUC")))
        rows.append(row)
    sheet.blocks = [rows]
    sheet.captions.append("AUC; RI: relative improvement.")
    return sheet


def _column(
    sheet: Sheet, found: Sequence[Found], ours: Sequence[bool], metric: str
) -> tuple[list[Cell], str]:
    """The highlighted cells of one metric of a block, and the relative improvement."""
    measured = [each.measured.get(metric) for each in found]
    judged = marks(measured, ours, HIGHER_IS_BETTER[metric])
    cells = []
    for each, value, mark in zip(found, measured, judged, strict=True):
        cells.append(
            Cell(
                value_text(value) if value else each.text or _ABSENT,
                mark.best,
                mark.strongest_baseline,
                mark.significant,
                tuple(sheet.note(note) for note in each.notes),
            )
        )
    return cells, _gain(measured, ours, metric)


def _gain(measured: Sequence[Measured | None], ours: Sequence[bool], metric: str) -> str:
    """The relative improvement of our best row over the strongest baseline, as text."""
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    means = [(own, each.mean) for own, each in zip(ours, measured, strict=True) if each]
    best = max((mean for own, mean in means if own), key=lambda m: sign * m, default=None)
    base = max((mean for own, mean in means if not own), key=lambda m: sign * m, default=None)
    if best is None or base is None:
        return _NOT_YET
    return f"{improvement(best, base, HIGHER_IS_BETTER[metric]):+.2f}%"


def _explanations(source: Source, table: Table) -> list[str]:
    seeds = f"{source.seeds} seeds" if source.seeds > 1 else "one seed"
    spread = "mean ± sample standard deviation" if source.seeds > 1 else "the value"
    text = [
        f"Test split, {spread} of {seeds} (n = {source.seeds} unless a cell says otherwise). "
        "Bold: best of the block; underlined: strongest baseline in it."
    ]
    if source.seeds >= MIN_SEEDS:
        text.append(f"{STAR}: better than the underlined with p < 0.05 (paired t-test over seeds).")
    else:
        text.append(f"No significance test with fewer than {MIN_SEEDS} seeds.")
    if any(dataset in published.DATASETS for dataset in source.datasets):
        text.append("(paper): arXiv 2111.15068.")
    return text + ([table.caption] if table.caption else [])
