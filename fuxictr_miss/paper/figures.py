"""Plot the figures as PNG, SVG and PDF: means over the seeds with their standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from fuxictr_miss.files import atomic_write
from fuxictr_miss.paper.source import Source
from fuxictr_miss.paper.tables import DATASETS, OURS, Report, Variant

PICTURES = (".png", ".svg", ".pdf")
MARK = "fuxictr_miss"  # in the metadata of our pictures
# the same bytes again, and text as text
_STYLE: Any = {"svg.hashsalt": MARK, "svg.fonttype": "none", "pdf.fonttype": 42}
_METADATA = {
    ".png": {"Software": MARK},
    ".svg": {"Creator": MARK, "Date": None},
    ".pdf": {"Creator": MARK, "CreationDate": None},
}


def write_pictures(report: Report, source: Source, page: Path) -> None:
    """Write the pictures of a figure beside its page; data sets are side by side."""
    plot, names = _plot_values, [f"test {metric.name}" for metric in report.metrics]
    if report.axis == "training step":
        plot, names = _plot_steps, [f"cosine similarity ({_recipe(b)})" for b in report.blocks]
    elif report.axis == "seconds":
        plot, names = _plot_costs, [f"test AUC, {block[0].name}" for block in report.blocks]
    rows, columns = len(names), len(source.datasets)
    large = 1.5 if report.axis == "seconds" else 1  # for its labels
    size = 4.2 * large * columns, 3.2 * large * rows
    with matplotlib.rc_context(_STYLE):
        drawing = Figure(figsize=size, layout="constrained")
        axes = drawing.subplots(rows, columns, squeeze=False)
        for column, dataset in enumerate(source.datasets):
            for axis, name in zip(axes[:, column], names, strict=True):
                axis.set(title=DATASETS.get(dataset, dataset), ylabel=name)
            plot(axes[:, column], report, source, dataset)
        for ending in PICTURES:
            with atomic_write(page.with_suffix(ending)) as unfinished:
                drawing.savefig(unfinished, dpi=150, metadata=_METADATA[ending])


def _plot_steps(axes: Any, report: Report, source: Source, dataset: str) -> None:
    """Fig. 5: the similarity of the two views after each epoch, one line per extractor."""
    for axis, block in zip(axes, report.blocks, strict=True):
        axis.set_xlabel(report.axis)
        for variant in block:
            curves = [row["curve"] for row in source.find(variant, dataset).rows]
            curves = [curve for curve in curves if curve["similarity"]]
            if curves:
                by_epoch = pd.DataFrame([curve["similarity"] for curve in curves]).dropna(axis=1)
                steps = curves[0][report.axis][: by_epoch.shape[1]]
                _plot(axis, steps, by_epoch, variant.name.partition(" ")[0])
        if axis.lines:
            axis.legend()


def _plot_values(axes: Any, report: Report, source: Source, dataset: str) -> None:
    """Fig. 6 and 7: each test metric over the values of a key, one line per recipe."""
    for axis, metric in zip(axes, report.metrics, strict=True):
        for block in report.blocks:
            cells = {v.settings[report.axis]: source.find(v, dataset) for v in block}
            values = {x: found for x, cell in cells.items() if len(found := cell.values(metric))}
            _plot(axis, list(values), pd.DataFrame(values), _recipe(block))
        axis.set(xscale="log", xlabel=report.first)
        axis.set_xticks(list(cells), [f"{x:g}" for x in cells])
        axis.minorticks_off()
        if len(report.blocks) > 1:
            axis.legend()


def _recipe(block: Sequence[Variant]) -> str:
    """The recipe of a block of MISS."""
    return str(block[0].settings["ssl_recipe"])


def _plot_costs(axes: Any, report: Report, source: Source, dataset: str) -> None:
    """The first metric over the second, a point with error bars for each row that has both."""
    quality, cost = report.metrics
    for axis, block in zip(axes, report.blocks, strict=True):
        axis.set(xscale="log", xlabel="processor seconds of a whole run")
        points = []
        for variant in block:
            cell = source.find(variant, dataset)
            y, x = cell.values(quality), cell.values(cost)
            if len(y) and len(x):
                points.append((x.mean(), y.mean()))
                name = variant.name.removeprefix(f"{block[0].name}-")
                ours = {"color": "C3"} if variant.role == OURS else {"color": "C0"}
                std = y.std() if len(y) > 1 else None
                axis.errorbar(*points[-1], yerr=std, marker="o", markersize=3, capsize=2, **ours)
                axis.annotate(
                    name, points[-1], (3, 3), textcoords="offset points", fontsize=6, **ours
                )
        front = [p for p in points if not any(x <= p[0] and y > p[1] for x, y in points)]
        if front:
            axis.plot(*zip(*sorted(front), strict=True), color="0.7", zorder=0)
            axis.set_xlim(right=4 * max(x for x, _ in points))  # room for the last name


def _plot(axis: Any, x: Sequence[float], values: pd.DataFrame, label: str | None = None) -> None:
    """Plot the mean of each column of `values` over `x`, with error bars over its rows."""
    std = values.std() if len(values) > 1 else None
    axis.errorbar(x, values.mean(), yerr=std, marker="o", markersize=3, capsize=3, label=label)
