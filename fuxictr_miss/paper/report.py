"""Write the tables and figures from the results file, and an index of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from fuxictr_miss.errors import InputError
from fuxictr_miss.files import atomic_write, writable
from fuxictr_miss.paper import published
from fuxictr_miss.paper.compare import MIN_SEEDS, SIGNIFICANCE, compare, holm
from fuxictr_miss.paper.figures import MARK, PICTURES, write_pictures
from fuxictr_miss.paper.paired import COLUMNS, paired_tests
from fuxictr_miss.paper.plan import dataset_params
from fuxictr_miss.paper.sheet import STAR, Sheet, markdown_table
from fuxictr_miss.paper.source import ABSENT, NOT_YET, Cell, Source
from fuxictr_miss.paper.tables import (
    BASELINE,
    CONTROL,
    OURS,
    REPORTS,
    SUITES,
    Metric,
    Report,
    Variant,
)

_COUNTS = ("users", "items", "instances", "features", "fields")
_GAINS = {"improvement": BASELINE, "improvement over the control": CONTROL}
_INDEX = "# Results\n\nEvery row of `experiments.csv` is one run. The reports:\n"
_MADE_BY = "\nMade by `"  # the last line of every report
_TESTS = "_tests.csv"
_OURS = {  # the endings of our files, and what says that they are ours
    ".md": _MADE_BY,
    ".tex": "% python run_benchmark.py",
    _TESTS: ",".join(COLUMNS),
    **dict.fromkeys(PICTURES, MARK),
}


def check_folder(folder: Path, reports: Iterable[str]) -> None:
    """Refuse an unwritable folder, or one where a report would overwrite a foreign file.

    Args:
        folder: the folder of the results file and the reports.
        reports: keys of `REPORTS`.

    Raises:
        InputError: names the folder or the file.
    """
    if not writable(folder):
        raise InputError(f"Reports cannot be written to {folder}: name another by --results.")
    marks = {folder / (name + ending): mark for name in reports for ending, mark in _OURS.items()}
    for path, mark in {**marks, folder / "README.md": _INDEX}.items():
        if path.suffix in (".png", ".svg") and path.with_suffix(".md").exists():
            continue  # of earlier versions, without a mark
        if path.exists() and mark not in _text(path):
            raise InputError(
                f"{path} was not written by run_benchmark.py: move it, or name another folder by "
                "--results."
            )


def write_report(name: str, source: Source, command: str) -> None:
    """Write a table as Markdown, LaTeX and its tests, or a figure as pictures and its numbers.

    Args:
        name: a key of `REPORTS`.
        source: the data of the report.
        command: the command that makes the report, printed in it.

    Raises:
        InputError: a file of that name is not ours, or cannot be written.
    """
    report = REPORTS[name]
    page = source.results.path.with_name(f"{name}.md")
    check_folder(page.parent, [name])
    sheet = _results(report, source) if report.blocks else _statistics(report, source)
    parts = [f"![]({name}.png)\n"] if report.axis else []
    parts.append(sheet.markdown())
    if report.blocks:
        parts.append(_search_text(report, source))
    _write_page(page, report.title, parts, command)
    if report.axis:
        write_pictures(report, source, page)
        return
    _write(page.with_suffix(".tex"), f"% {command}\n{sheet.latex()}")
    if report.blocks:
        _write(_beside(page, _TESTS), paired_tests(report, source).to_csv(index=False))


def write_sheet(page: Path, sheet: Sheet, command: str) -> None:
    """Write a table of a suite as Markdown and LaTeX. Raises like `write_report`."""
    check_folder(page.parent, [page.stem])
    _write_page(page, sheet.title, [sheet.markdown()], command)
    _write(page.with_suffix(".tex"), f"% {command}\n{sheet.latex()}")


def _write_page(page: Path, title: str, parts: Sequence[str], command: str) -> None:
    _write(page, "\n".join([f"# {title}\n", *parts]) + f"{_MADE_BY}{command}`.\n")


def write_index(folder: Path) -> None:
    """Write README.md of the results folder: a list of its reports with their commands."""
    check_folder(folder, [])
    lines = []
    for name in (*REPORTS, *SUITES):
        page = folder / f"{name}.md"
        text = _text(page) if page.exists() else ""
        if _MADE_BY not in text:
            continue  # not ours
        title = text.partition("\n")[0].removeprefix("# ")
        command = text.rpartition(_MADE_BY)[2].partition("`")[0]
        others = [_beside(page, ending).name for ending in _OURS if ending != ".md"]
        links = ", ".join(f"[{other}]({other})" for other in others if (folder / other).exists())
        lines.append(f"| [{title}]({page.name}) | {links} | `{command}` |\n")
    head = "| report | as | made by |\n|---|---|---|\n"
    end = "\nThe same command with --report-only makes a report again from the rows.\n"
    _write(folder / "README.md", f"{_INDEX}\n{head}{''.join(lines)}{end}")


def _results(report: Report, source: Source) -> Sheet:
    """Every report but Table II: a row per variant; a column per metric, ours and the paper's."""
    sheet = Sheet(report.title, [("", report.first)], [])
    for block in report.blocks:
        roles = {variant.role for variant in block}
        gains = [label for label, role in _GAINS.items() if {role, OURS} <= roles]
        sheet.blocks.append([[name] for name in (*(variant.name for variant in block), *gains)])
    for dataset in source.datasets:
        for suffix, find in (("", source.find), (" (paper)", _published)):
            cells = [[find(variant, dataset) for variant in block] for block in report.blocks]
            for metric in report.metrics:
                if not suffix or any(len(c.values(metric)) for block in cells for c in block):
                    sheet.columns.append((dataset, metric.name + suffix))
                    no_gain = ABSENT if suffix or not metric.sign else NOT_YET
                    _add_column(sheet, cells, metric, no_gain)
    sheet.captions = _captions(report, source)
    return sheet


def _add_column(
    sheet: Sheet, cells: Sequence[Sequence[Cell]], metric: Metric, no_gain: str
) -> None:
    """Add a metric to every line: highlighted means, then the relative improvements."""
    values = [[cell.values(metric) for cell in block] for block in cells]
    compared = [
        compare(numbers, [cell.role for cell in block], metric.sign)
        for numbers, block in zip(values, cells, strict=True)
    ]
    p_values = holm(
        {(b, i): p for b, each in enumerate(compared) for i, p in each.p_values.items()}
    )
    for b, block in enumerate(cells):
        lines, found = sheet.blocks[b], compared[b]
        for i, cell in enumerate(block):
            text = mean_and_deviation(values[b][i], metric.digits) or cell.text or ABSENT
            text = f"<u>{text}</u>" if i in found.rivals.values() else text
            text = f"**{text}**" if i == found.best else text
            text += STAR if p_values.get((b, i), 1) < SIGNIFICANCE else ""
            notes = ",".join(str(sheet.note(note)) for note in cell.notes)
            lines[i].append(f"{text}<sup>{notes}</sup>" if notes else text)
        unfinished = any(cell.text == NOT_YET for cell in block)  # a row to come may be stronger
        for line in lines[len(block) :]:
            gain = None if unfinished else found.gains.get(_GAINS[line[0]])
            line.append(no_gain if gain is None else f"{gain:+.2f}%")


def _published(variant: Variant, dataset: str) -> Cell:
    """The paper's own numbers, as if they were a run with one seed."""
    metrics = published.metrics(dataset, variant.in_paper)
    return Cell([{"seed": 0, **metrics}] if metrics else (), variant.role, ABSENT)


def mean_and_deviation(values: pd.Series, digits: int = 4) -> str:
    """The mean ± standard deviation, or the value of a single seed; "" without values."""
    if values.empty:
        return ""
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def _captions(report: Report, source: Source) -> list[str]:
    spread, seeds = "mean ± sample standard deviation", f"{source.seeds} seeds"
    if source.seeds == 1:
        spread, seeds = "the value", "one seed"
    what = f"{report.split}, {spread} of {seeds} (n = {source.seeds} unless a cell says otherwise)."
    roles = {variant.role for block in report.blocks for variant in block}
    lines = []
    if roles == {OURS}:
        what += " Bold: best of the block." if any(each.sign for each in report.metrics) else ""
    else:
        rivals = "baseline and strongest control" if CONTROL in roles else "baseline"
        what += f" Bold: best of the block; underlined: strongest {rivals} in it."
        lines.append(
            f"{STAR}: better than the underlined with p < {SIGNIFICANCE} (paired t-test over "
            "seeds, Holm's correction over the tests of a column)."
            if source.seeds >= MIN_SEEDS
            else f"No significance test with fewer than {MIN_SEEDS} seeds."
        )
        if any(dataset in published.DATASETS for dataset in source.datasets):
            lines.append("(paper) in the head of a column: arXiv 2111.15068.")
    return [what, *lines, *filter(None, [_recipe_text(report), report.caption])]


def _recipe_text(report: Report) -> str:
    """Which recipe of config/recipes.yaml the rows of MISS have."""
    ours = [each for block in report.blocks for each in block if each.role == OURS]
    recipes = {each.settings["ssl_recipe"] for each in ours if "ssl_recipe" in each.settings}
    if len(recipes) > 1:
        return "(paper) and (recommended) behind a name: its recipe in config/recipes.yaml."
    return "".join(f"MISS has the {each} recipe of config/recipes.yaml." for each in recipes)


def _search_text(report: Report, source: Source) -> str:
    """The paragraph on hyper-parameters: the budget and the choices of the search, if any."""
    if not source.budget:
        return "No search: every model uses the settings of the config.\n"
    models = {variant.model for block in report.blocks for variant in block}
    rows = []
    for (dataset, model), winner in source.winners.items():
        if model in models:
            chosen = ", ".join(f"{k}: {json.dumps(v)}" for k, v in winner.overrides.items())
            value = f"{winner.value:.4f}"
            rows.append([dataset, model, chosen or "nothing", value, str(winner.trials)])
    head = ["data set", "model", "chosen settings", "validation", "finished trials"]
    text = (
        f"Search: {source.budget} trials for every model, including baselines, with one seed, "
        "chosen by the validation metric alone; all cells of a model use its choice, but rows of "
        "the paper's recipe keep the keys that it names.\n\n" + markdown_table(head, rows)
    )
    others = models - {model for _, model in source.winners}
    if others:
        text += f"\nWith the settings of the config: {', '.join(sorted(others))}.\n"
    return text


def _statistics(report: Report, source: Source) -> Sheet:
    """Table II: the statistics of the preprocessing, and the paper's."""
    columns = [("", name) for name in (report.first, *(f"#{n.capitalize()}" for n in _COUNTS))]
    sheet = Sheet(report.title, columns, [[]])
    for dataset in source.datasets:
        params = dataset_params(source.planner.config, dataset)
        path = Path(params.get("train_data") or "").parent / "statistics.json"
        if path.exists():
            cells = _counts(path)
        else:
            note = sheet.note(f"{path} does not exist yet: {params.get('preprocess_command', '')}")
            cells = [f"{NOT_YET}<sup>{note}</sup>"] * len(_COUNTS)
        sheet.blocks[0].append([dataset, *cells])
        if dataset in published.DATASETS:
            name = f"{published.DATASETS[dataset]} (paper)"
            sheet.blocks[0].append([name, *(f"{n:,}" for n in published.STATISTICS[dataset])])
    return sheet


def _counts(path: Path) -> list[str]:
    try:
        counts = dict(json.loads(path.read_bytes()))
        return [f"{int(counts[n]):,}" if n in counts else ABSENT for n in _COUNTS]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is no statistics file of a preprocessing ({error}).") from error


def _beside(page: Path, ending: str) -> Path:
    return page.with_name(page.stem + ending)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
