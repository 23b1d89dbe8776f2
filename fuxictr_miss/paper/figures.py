"""Plot Fig. 5, 6 and 7 from the results file as PNG and SVG, with the values in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from fuxictr_miss.files import atomic_write
from fuxictr_miss.paper.report import (
    MARK,
    Source,
    refuse_foreign_report,
    value_text,
    winners_text,
    write,
)
from fuxictr_miss.paper.tables import FIGURES, METRICS, Figure

_REPRODUCIBLE: Any = {"svg.hashsalt": "fuxictr_miss", "svg.fonttype": "none"}
_SYMBOLS = {"ssl_weight": "loss weight α1 = α2", "ssl_temperature": "temperature τ"}


def write_figure(number: int, source: Source, command: str, even_empty: bool = True) -> bool:
    """Write `figure_<number>.png`, `.svg` and `.md`; arguments as in `write_table`."""
    figure = FIGURES[number]
    path = source.results.path.parent / f"figure_{number}.md"
    with pyplot.rc_context(_REPRODUCIBLE):
        drawing, lines = (_curves if figure.key else _similarity)(figure, source)
        if not even_empty and not _drawn(drawing):
            pyplot.close(drawing)
            return False
        refuse_foreign_report(path.parent, path.stem)
        seeds = "one seed" if source.seeds == 1 else f"{source.seeds} seeds"
        head = [f"# Fig. {number}. {figure.title}", "", f"![]({path.stem}.png)", ""]
        head += [f"{seeds.capitalize()}. {figure.caption}", ""]
        text = "\n".join([*head, *lines]) + "\n"
        text += winners_text(source, {variant.model for variant in figure.variants})
        write(path, f"{text}\nMade by `{command}`.\n")  # first: it marks the pictures as ours
        _save(drawing, path)
    return True


def _curves(figure: Figure, source: Source) -> tuple[Any, list[str]]:
    """Fig. 6 and 7: test metrics over the values of a key, with the standard deviation."""
    drawing, axes = _panels(len(METRICS), len(source.datasets))
    lines = [
        "| data set | " + " | ".join([figure.key, *METRICS.values()]) + " |",
        "|---|---|---|---|",
    ]
    for column, dataset in enumerate(source.datasets):
        found = [(value, source.find(figure.at(value), dataset)) for value in figure.values]
        for value, each in found:
            numbers = [
                value_text(each.measured[m]) if m in each.measured else each.text for m in METRICS
            ]
            notes = " ".join(each.notes)
            lines.append(f"| {dataset} | {value:g} | {' | '.join(numbers)} |"
                         + (f" {notes}" if notes else ""))  # fmt: skip
        for row, (metric, name) in enumerate(METRICS.items()):
            axis = axes[row][column]
            there = [(v, each.measured[metric]) for v, each in found if metric in each.measured]
            axis.errorbar(
                [value for value, _ in there],
                [measured.mean for _, measured in there],
                yerr=[measured.std or 0.0 for _, measured in there],
                marker="o",
                capsize=3,
            )
            axis.set_xscale("log")
            axis.set_xticks(figure.values, [f"{value:g}" for value in figure.values])
            axis.minorticks_off()
            axis.set_ylabel(f"test {name}")
            axis.set_xlabel(_SYMBOLS[figure.key])
            axis.set_title(dataset)
    return drawing, lines


def _similarity(figure: Figure, source: Source) -> tuple[Any, list[str]]:
    """Fig. 5: mean similarity of the two views over the training steps, one line per extractor."""
    drawing, axes = _panels(1, len(source.datasets))
    lines = [
        "| data set | extractor | similarity, first epoch | last epoch |",
        "|---|---|---:|---:|",
    ]
    for column, dataset in enumerate(source.datasets):
        axis = axes[0][column]
        unit = "training step"
        for variant in figure.variants:
            experiments = source.planner.experiments([variant], [dataset], source.seeds)
            rows = [source.results.finished(e.key) for e in experiments]
            curves = [row["curve"] for row in rows if row and row["curve"]["similarity"]]
            if not curves:
                lines.append(f"| {dataset} | {variant.name} | … | … |")
                continue
            unit = next(name for name in curves[0] if name != "similarity")
            shortest = min(len(curve["similarity"]) for curve in curves)
            points = [
                sum(curve["similarity"][i] for curve in curves) / len(curves)
                for i in range(shortest)
            ]
            axis.plot(curves[0][unit][:shortest], points, label=variant.name)
            lines.append(f"| {dataset} | {variant.name} | {points[0]:.4f} | {points[-1]:.4f} |")
        axis.set_xlabel(f"{unit}s")
        axis.set_ylabel("cosine similarity of the views")
        axis.set_title(dataset)
        if axis.lines:
            axis.legend()
    return drawing, lines


def _panels(rows: int, columns: int) -> tuple[Any, Any]:
    return pyplot.subplots(
        rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False, layout="constrained"
    )


def _save(drawing: Any, path: Path) -> None:
    for ending, metadata in (
        (".png", {"Software": MARK}),
        (".svg", {"Creator": MARK, "Date": None}),
    ):
        with atomic_write(path.with_suffix(ending)) as unfinished:
            drawing.savefig(unfinished, dpi=150, metadata=metadata)
    pyplot.close(drawing)


def _drawn(drawing: Any) -> bool:
    return any(len(line.get_xdata()) for axis in drawing.axes for line in axis.lines)
