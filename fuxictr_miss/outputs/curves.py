"""Plot a run's losses, similarity of the pairs (Fig. 5) and validation metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fuxictr_miss.errors import InputError
from fuxictr_miss.files import atomic_write
from fuxictr_miss.outputs.run_files import not_ours

log = logging.getLogger(__name__)

_PANELS = {
    "label loss": ("label_loss",),
    "contrastive losses": ("ssl_loss", "ssl_feature_loss", "held_out_ssl"),
    "similarity of the pairs": ("similarity", "negative_similarity"),
}
_NOT_METRICS = {"phase", "epoch", "steps", "seconds"}.union(*_PANELS.values())
_MARK = {"Software": "fuxictr_miss"}  # metadata of our PNGs


def check_picture(path: Path) -> None:
    """Refuse to overwrite a file that `plot_history` did not write.

    Raises:
        InputError: `path` is such a file.
    """
    if path.exists():
        with open(path, "rb") as file:
            start = file.read(1000)
        if _MARK["Software"].encode() not in start:
            raise not_ours(path)


def plot_history(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Plot the history of a run, one panel per quantity, with a line where a phase begins.

    If the file cannot be written, only a warning is logged: the metrics of the run matter more.

    Args:
        rows: the history that `fuxictr_miss.training.fit` returned.
        path: the PNG to write.
        title: the title of the figure.
    """
    from matplotlib.figure import Figure  # not pyplot: the caller's backend stays as it is

    names = list(dict.fromkeys(name for row in rows for name in row))
    panels: dict[str, Sequence[str]] = {**_PANELS}
    panels.update({f"validation {name}": (name,) for name in names if name not in _NOT_METRICS})
    panels = {label: [k for k in keys if k in names] for label, keys in panels.items()}
    panels = {label: keys for label, keys in panels.items() if keys}
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)
    starts = [i for i, row in enumerate(rows) if i == 0 or row["phase"] != rows[i - 1]["phase"]]
    for axis, (label, keys) in zip(axes[0], panels.items(), strict=True):
        for key in keys:
            points = [(i + 1, row[key]) for i, row in enumerate(rows) if key in row]
            axis.plot(*zip(*points, strict=True), label=key, marker="." if len(points) < 3 else "")
        for start in starts:
            axis.axvline(start + 1, color="0.8", linewidth=1, zorder=0)
            axis.annotate(
                rows[start]["phase"], (start + 1, 1), xycoords=("data", "axes fraction"), fontsize=7
            )
        axis.set_xlabel("epoch")
        axis.set_title(label, pad=14)
        if len(keys) > 1:
            axis.legend(fontsize=7)
    figure.suptitle(title)
    try:
        check_picture(path)
        with atomic_write(path) as unfinished:
            figure.savefig(unfinished, dpi=110, metadata=_MARK)
    except InputError as error:
        log.warning("The training curves were not plotted: %s", error)
