"""Plot Fig. 5, 6 and 7 as PNG, SVG and PDF: means over the seeds with their standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from fuxictr_miss.files import atomic_write
from fuxictr_miss.paper.source import Source
from fuxictr_miss.paper.tables import DATASETS, Report

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
    names = ["cosine similarity"]
    if report.axis != "training step":
        names = [f"test {metric.name}" for metric in report.metrics]
    rows, columns = len(names), len(source.datasets)
    size = 4.2 * columns, 3.2 * rows
    with matplotlib.rc_context(_STYLE):
        drawing = Figure(figsize=size, layout="constrained")
        axes = drawing.subplots(rows, columns, squeeze=False)
        for column, dataset in enumerate(source.datasets):
            for axis, name in zip(axes[:, column], names, strict=True):
                axis.set(title=DATASETS.get(dataset, dataset), ylabel=name)
            if report.axis == "training step":
                _plot_steps(axes[0, column], report, source, dataset)
            else:
                _plot_values(axes[:, column], report, source, dataset)
        for ending in PICTURES:
            with atomic_write(page.with_suffix(ending)) as unfinished:
                drawing.savefig(unfinished, dpi=150, metadata=_METADATA[ending])


def _plot_steps(axis: Any, report: Report, source: Source, dataset: str) -> None:
    """Fig. 5: the similarity of the two views after each epoch, one line per extractor."""
    axis.set_xlabel(report.axis)
    for variant in report.blocks[0]:
        curves = [row["curve"] for row in source.find(variant, dataset).rows]
        curves = [curve for curve in curves if curve["similarity"]]
        if curves:
            by_epoch = pd.DataFrame([curve["similarity"] for curve in curves]).dropna(axis=1)
            _plot(axis, curves[0][report.axis][: by_epoch.shape[1]], by_epoch, variant.name)
    if axis.lines:
        axis.legend()


def _plot_values(axes: Any, report: Report, source: Source, dataset: str) -> None:
    """Fig. 6 and 7: each test metric over the values of a key."""
    cells = {v.settings[report.axis]: source.find(v, dataset) for v in report.blocks[0]}
    for axis, metric in zip(axes, report.metrics, strict=True):
        values = {x: found for x, cell in cells.items() if len(found := cell.values(metric))}
        _plot(axis, list(values), pd.DataFrame(values))
        axis.set(xscale="log", xlabel=report.first)
        axis.set_xticks(list(cells), [f"{x:g}" for x in cells])
        axis.minorticks_off()


def _plot(axis: Any, x: Sequence[float], values: pd.DataFrame, label: str | None = None) -> None:
    """Plot the mean of each column of `values` over `x`, with error bars over its rows."""
    std = values.std() if len(values) > 1 else None
    axis.errorbar(x, values.mean(), yerr=std, marker="o", markersize=3, capsize=3, label=label)
