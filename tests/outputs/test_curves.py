"""The picture of a run replaces no picture of somebody else, and never costs the run."""

from __future__ import annotations

import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.outputs.curves import check_picture, plot_history

ROWS = [{"phase": "label", "epoch": 1, "label_loss": 0.7, "AUC": 0.5},
        {"phase": "label", "epoch": 2, "label_loss": 0.6, "AUC": 0.6}]  # fmt: skip


def test_a_run_draws_over_its_own_picture(tmp_path):
    path = tmp_path / "run.png"
    for title in ("first", "second"):
        plot_history(ROWS, path, title)
        check_picture(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in tmp_path.iterdir()] == ["run.png"]


def test_a_run_in_a_notebook_leaves_its_plots_alone(tmp_path):
    import matplotlib

    before = matplotlib.get_backend()
    try:
        matplotlib.use("svg")
        plot_history(ROWS, tmp_path / "run.png", "run")
        assert matplotlib.get_backend() == "svg"
    finally:
        matplotlib.use(before)


def test_a_strangers_picture_is_refused_and_stays(tmp_path, caplog):
    from matplotlib import pyplot

    path = tmp_path / "run.png"
    pyplot.subplots()[0].savefig(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="was not written by fuxictr_miss: move it"):
        check_picture(path)
    plot_history(ROWS, path, "run")
    assert path.read_bytes() == before
    assert "not plotted" in caplog.text


def test_a_picture_that_cannot_be_written_is_a_line_in_the_log(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    plot_history(ROWS, tmp_path / "file" / "run.png", "run")
    assert "not plotted: Cannot write" in caplog.text
