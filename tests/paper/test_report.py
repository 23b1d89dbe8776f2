"""Reports of hand-made results."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from unittest import mock

import pytest
from matplotlib.axes import Axes

from fuxictr_miss.errors import InputError
from fuxictr_miss.paper.plan import Planner, variants_of
from fuxictr_miss.paper.report import Source, check_folder, write_index, write_report
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.search import Winner
from fuxictr_miss.paper.tables import CONTROL, REPORTS, Metric, Variant
from fuxictr_miss.paper.yardsticks import YARDSTICKS
from paper.conftest import row

# AUC by seed: MISS beats DMR, the strongest baseline, by 0.105, 0.11, 0.115
AUC = {"DMR": (0.70, 0.71, 0.72), "DIN": (0.69, 0.69, 0.69), "DIN_MISS": (0.805, 0.82, 0.835),
       "PNN_MISS": (0.69, 0.70, 0.72), "PNN_PPMI": (0.72, 0.72, 0.72),
       "PPMISVD": (0.715, 0.715, 0.715)}  # fmt: skip


def source_of(folder, dataset="amazoncds", seeds=3, budget=0, chosen=None) -> Source:
    return Source(Planner("config"), Results(folder), [dataset], seeds, budget, chosen or {})


def fill(source: Source, *reports: str) -> None:
    variants = variants_of(reports)
    for each in source.planner.experiments(variants, source.datasets, source.seeds):
        as_drawn = (
            "ssl_pretrain_learning_rate" in each.overrides and each.params["ssl_thaw"] is False
        )
        model = "" if as_drawn and each.params["ssl_recipe"] == "recommended" else each.model
        auc = AUC.get(model, (0.5, 0.5, 0.5))[each.seed - 1]
        curve = {"training step": [10, 20], "similarity": [0.9, 0.8]}
        others = {"test_logloss": 1 - auc, "test_ECE": (1 - auc) / 2}
        others = {} if each.model in YARDSTICKS else others
        source.results.add(row(each, test_AUC=auc, curve=curve, **others))


def line(text: str, name: str) -> str:
    return next(x for x in text.splitlines() if x.startswith(f"| {name} |"))


def test_table_3_marks_best_strongest_star_and_improvement_beside_the_papers_figures(tmp_path):
    source = source_of(tmp_path)
    fill(source, "table_3")
    write_report("table_3", source, "python run_benchmark.py --table 3")
    text = (tmp_path / "table_3.md").read_text()
    assert line(text, "DMR") == (
        "| DMR | <u>0.7100 ± 0.0100</u> | <u>0.2900 ± 0.0100</u> | <u>0.1450 ± 0.0050</u> "
        "| <u>0.8115</u> | <u>0.5289</u> |"
    )
    assert line(text, "DIN-MISS (paper)") == (
        "| DIN-MISS (paper) | **0.8200 ± 0.0150**★ | **0.1800 ± 0.0150**★ | **0.0900 ± 0.0075**★ "
        "| **0.8867** | **0.4357** |"
    )
    assert line(text, "DIN-MISS (recommended)") == (
        "| DIN-MISS (recommended) | 0.8200 ± 0.0150★ | 0.1800 ± 0.0150★ | 0.0900 ± 0.0075★ "
        "| – | – |"
    )
    # (0.82 - 0.71) / 0.71 and (0.29 - 0.18) / 0.29; the paper's own in Section VI.B
    assert line(text, "improvement") == (
        "| improvement | +15.49% | +37.93% | +37.93% | +9.27% | +17.62% |"
    )
    # over IPNN-PPMI: (0.82 - 0.72) / 0.72 and (0.28 - 0.18) / 0.28; the paper has no control
    assert line(text, "IPNN-PPMI").startswith("| IPNN-PPMI | <u>0.7200 ± 0.0000</u>")
    assert line(text, "improvement over the control") == (
        "| improvement over the control | +13.89% | +35.71% | +35.71% | – | – |"
    )
    assert line(text, "PPMI-SVD") == "| PPMI-SVD | 0.7150 ± 0.0000 | – | – | – | – |"
    assert "n = 3" in text
    assert "the settings of the config" in text
    latex = (tmp_path / "table_3.tex").read_text()
    assert r"DIN-MISS (paper) & \textbf{0.8200 $\pm$ 0.0150}$^\bigstar$ &" in latex
    assert r"DMR & \underline{0.7100 $\pm$ 0.0100} &" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1


def test_no_star_with_two_seeds(tmp_path):
    source = source_of(tmp_path, seeds=2)
    fill(source, "table_3")
    write_report("table_3", source, "")
    text = (tmp_path / "table_3.md").read_text()
    assert "★" not in text
    assert "No significance test" in text


def test_what_has_not_run_failed_or_cannot_exist_is_told_apart(tmp_path):
    source = source_of(tmp_path, dataset="amazoncds_subset")
    planner = source.planner
    din, irssl, miss = (
        planner.experiments([v], source.datasets, 3)
        for v in variants_of(["table_5"])
        if v.name in ("DIN", "DIN-IRSSL", "DIN-MISS (paper)")
    )
    for each in irssl:
        source.results.add(row(each, status="diverged", reason="valid_AUC is not a finite number"))
    for each in miss[:1]:
        source.results.add(row(each, test_AUC=0.8, test_logloss=0.5))
    for each in din:
        source.results.add(row(each, test_AUC=0.6, test_logloss=0.6))
    write_report("table_5", source, "")
    text = (tmp_path / "table_5.md").read_text()
    assert "AUC (paper)" not in text  # a part of Amazon-Cds is not the paper's data
    assert line(text, "DIN-Rule").count("–<sup>") == 4
    assert "Rule needs a category" in text
    assert line(text, "DIN-IRSSL").count("failed<sup>") == 4
    assert "valid_AUC is not a finite number" in text
    assert line(text, "DIN-S3Rec").count("…") == 4
    assert not re.search(r"improvement \|.*%", text)  # rows to come may be stronger
    assert "0.8000" in line(text, "DIN-MISS (paper)")
    assert line(text, "DIN") == "| DIN | <u>0.6000 ± 0.0000</u> | <u>0.6000 ± 0.0000</u> | – | – |"
    assert "n = 1: not all seeds are finished." in text


def test_table_6_says_where_two_of_its_rows_are_one_experiment(tmp_path):
    source = source_of(tmp_path, dataset="amazoncds_subset")
    fill(source, "table_6")
    write_report("table_6", source, "")
    text = (tmp_path / "table_6.md").read_text()
    assert "J = 1" in text
    without = line(text, "DIN-MISS/F (paper)")
    assert "| 0.8200 ± 0.0150<sup>1</sup> |" in without  # no baseline of itself


@pytest.mark.parametrize(("name", "last"), [("table_9", "SR 100%"), ("table_10", "NR 0%")])
def test_every_rate_has_its_relative_improvement(tmp_path, name, last):
    source = source_of(tmp_path)
    fill(source, name)
    write_report(name, source, "")
    text = (tmp_path / f"{name}.md").read_text()
    # (0.82 - 0.69) / 0.69; the paper's 10.08 % stands in its Tables IX and X, without logloss
    block = text[text.index(f"| DIN, {last} |") :].splitlines()
    assert block[0].split(" | ")[3:] == ["<u>0.8055</u> |"]
    assert block[1].startswith(f"| DIN-MISS (paper), {last} | **0.8200 ± 0.0150**★")
    assert block[2].startswith(f"| DIN-MISS (recommended), {last} | 0.8200 ± 0.0150★")
    assert block[3].split(" | ")[1] == "+18.84%"
    assert block[3].split(" | ")[3:] == ["+10.08% |"]
    assert text.count("| improvement |") == 3


def test_a_control_and_a_metric_are_one_line_of_data(tmp_path, monkeypatch):
    block, _ = REPORTS["table_7"].blocks
    control = Variant("FM, a control", "FM", role=CONTROL)
    epochs = Metric("Epochs", lambda row: row.get("epochs"), sign=-1)
    report = dataclasses.replace(
        REPORTS["table_7"],
        blocks=((*block, control),),
        metrics=(*REPORTS["table_7"].metrics, epochs),
    )
    monkeypatch.setitem(REPORTS, "table_7", report)
    source = source_of(tmp_path)
    fill(source, "table_7")
    for each in list(source.results.rows.values()):
        source.results.add({**each, "epochs": 4 if each["model"] == "DIN_MISS" else 5})
    write_report("table_7", source, "")
    text = (tmp_path / "table_7.md").read_text()
    assert line(text, "FM, a control").startswith("| FM, a control | <u>0.5000 ± 0.0000</u>")
    # (0.82 - 0.5) / 0.5 and (0.5 - 0.18) / 0.5
    assert "| improvement over the control | +64.00% | +64.00% | +20.00% |" in text
    assert "strongest baseline and strongest control" in text


def test_a_report_says_which_recipe_its_rows_have(tmp_path):
    source = source_of(tmp_path)
    fill(source, "table_4", "figure_6")
    for name, words in (
        ("table_4", "(paper) and (recommended) behind a name: its recipe in config/recipes.yaml."),
        ("figure_6", "MISS has the paper recipe of config/recipes.yaml."),
    ):
        write_report(name, source, "")
        assert words in (tmp_path / f"{name}.md").read_text()
    for name in ("table_3", "table_6", "table_7", "table_8", "figure_5", "figure_7"):
        ours = [v for v in variants_of([name]) if v.model.endswith("_MISS")]
        assert {variant.settings["ssl_recipe"] for variant in ours} == {"paper", "recommended"}


def test_table_2_counts_the_data_set_and_shows_the_papers_counts(tmp_path):
    source = source_of(tmp_path)
    write_report("table_2", source, "")
    text = (tmp_path / "table_2.md").read_text()
    assert "| Amazon-Cds (paper) | 75,258 | 64,443 | 150,516 | 140,167 | 5 |" in text
    assert line(text, "amazoncds")


def test_the_report_says_budget_and_winners_of_the_search(tmp_path):
    chosen = {("amazoncds", "DIN"): Winner({"learning_rate": 0.01}, 0.71, 8)}
    source = source_of(tmp_path, budget=8, chosen=chosen)
    write_report("table_4", source, "")
    text = (tmp_path / "table_4.md").read_text()
    assert "8 trials for every model" in text
    assert "| amazoncds | DIN | learning_rate: 0.01 | 0.7100 | 8 |" in text
    as_it_stands = next(line for line in text.splitlines() if "settings of the config: " in line)
    assert "DIN_MISS, " in as_it_stands
    assert not {"DIN", "DIN."} & set(as_it_stands.split(": ")[1].split(", "))


def test_figures_are_png_svg_and_pdf_with_their_numbers_and_the_same_bytes_again(tmp_path):
    source = source_of(tmp_path)
    fill(source, "figure_5", "figure_6", "figure_7")
    for name in ("figure_5", "figure_6", "figure_7"):
        write_report(name, source, "")
        pictures = {path.suffix: path.read_bytes() for path in tmp_path.glob(f"{name}.[!m]*")}
        assert b"<svg" in pictures[".svg"]
        assert b"Amazon CDs" in pictures[".svg"]  # not amazoncds
        assert pictures[".png"].startswith(b"\x89PNG")
        assert pictures[".pdf"].startswith(b"%PDF")
        write_report(name, source, "")
        for suffix, content in pictures.items():
            assert (tmp_path / (name + suffix)).read_bytes() == content
    five, six = ((tmp_path / f"figure_{n}.md").read_text() for n in (5, 6))
    for recipe in ("paper", "recommended"):
        assert f"| MISS-SA ({recipe}) | 0.9000 ± 0.0000 | 0.8000 ± 0.0000 |" in five
    assert six.count("0.8200 ± 0.0150") == 5


def test_the_error_bars_of_a_figure_are_the_standard_deviation_over_the_seeds(tmp_path):
    source = source_of(tmp_path)
    fill(source, "figure_6")
    with mock.patch("matplotlib.axes.Axes.errorbar") as plot:
        write_report("figure_6", source, "")
    (x, mean), options = plot.call_args_list[0]
    assert list(x) == [0.05, 0.1, 0.5, 1.0, 5.0]
    assert mean.to_numpy() == pytest.approx([0.82] * 5)
    assert options["yerr"].to_numpy() == pytest.approx([0.015] * 5)


def test_a_figure_of_both_recipes_has_a_line_or_a_panel_for_each(tmp_path):
    source = source_of(tmp_path)
    fill(source, "figure_5", "figure_7")
    for name, labels in (
        ("figure_5", ["MISS-SA", "MISS-LSTM", "MISS-CNN"] * 2),  # a panel for each
        ("figure_7", ["paper", "recommended"] * 2),  # in the panels of AUC and logloss
    ):
        with mock.patch.object(Axes, "errorbar", autospec=True, side_effect=Axes.errorbar) as plot:
            write_report(name, source, "")
        assert [call.kwargs["label"] for call in plot.call_args_list] == labels


def test_the_figure_of_cost_joins_what_nothing_cheaper_is_better_than(tmp_path):
    source = source_of(tmp_path)
    fill(source, "figure_cost")
    seconds = {"PNN": 5, "PNN_PPMI": 9, "PNN_MISS": 40, "PNN_MAP": 60, "DIN_MISS": 40}
    for each in list(source.results.rows.values()):
        if each["model"] in seconds:
            source.results.add({**each, "processor_seconds": seconds[each["model"]] + each["seed"]})
    with (
        mock.patch("matplotlib.axes.Axes.errorbar") as points,
        mock.patch("matplotlib.axes.Axes.plot") as joined,
    ):
        write_report("figure_cost", source, "")
    plotted = {(round(x), round(y, 4)) for (x, y), _ in points.call_args_list}
    # every row of a model has its seconds; the mean over seeds 1 to 3 is 2 more
    assert plotted == {(7, 0.5), (11, 0.72), (42, 0.5), (62, 0.5), (42, 0.7033), (42, 0.82)}
    front = [tuple(zip(*call.args, strict=True)) for call in joined.call_args_list]
    assert front[0][0] == (7, 0.5)
    assert front[0][-1] == (11, pytest.approx(0.72))  # what costs more is no better
    text = (tmp_path / "figure_cost.md").read_text()
    assert "| 11.0 ± 1.0 |" in line(text, "IPNN-PPMI")


def test_reports_can_be_made_before_anything_has_run(tmp_path):
    source = source_of(tmp_path)
    for name in REPORTS:
        write_report(name, source, "")
    write_index(tmp_path)


def test_a_report_without_a_number_of_ours_is_told(tmp_path):
    source = source_of(tmp_path)
    names = ("table_4", "figure_7")
    assert not any(source.has_results(REPORTS[name]) for name in names)
    fill(source, *names)
    assert all(source.has_results(REPORTS[name]) for name in names)


def test_the_index_names_every_report_and_its_command(tmp_path):
    source = source_of(tmp_path)
    write_report("table_10", source, "python run_benchmark.py --table 10")
    write_report("table_3", source, "python run_benchmark.py --table 3")
    write_report("figure_6", source, "python run_benchmark.py --figure 6")
    write_index(tmp_path)
    text = (tmp_path / "README.md").read_text()
    places = [text.index(f"`python run_benchmark.py {x}`")
              for x in ("--table 3", "--table 10", "--figure 6")]  # fmt: skip
    assert places == sorted(places)
    assert "[figure_6.svg](figure_6.svg)" in text


@pytest.mark.parametrize(
    "name",
    ["table_3.md", "table_3.tex", "figure_6.md", "figure_6.png", "figure_6.svg", "figure_6.pdf"],
)
def test_a_strangers_report_is_refused_and_stays(tmp_path, name):
    (tmp_path / name).write_text("# Mine\n")
    with pytest.raises(InputError, match=f"{name} was not written by run_benchmark"):
        write_report(name.partition(".")[0], source_of(tmp_path), "c")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "# Mine\n"


def test_strangers_files_beside_the_reports_stay_and_are_no_reports(tmp_path):
    strangers = {"my_notes.md": b"", "table_x.md": b"# Mine", "a_b.md": b"\xff\xfe",
                 "table_4.md": b"# Mine", "figure.png": b"mine"}  # fmt: skip
    for name, content in strangers.items():
        (tmp_path / name).write_bytes(content)
    for _ in range(2):
        write_report("table_3", source_of(tmp_path), "python run_benchmark.py --table 3")
        write_report("figure_6", source_of(tmp_path), "python run_benchmark.py --figure 6")
        write_index(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in strangers} == strangers
    index = (tmp_path / "README.md").read_text()
    assert index.count("\n| [") == 2
    assert "table_3.md" in index
    assert "figure_6.md" in index


def test_our_pictures_are_replaced_where_their_page_is_gone(tmp_path):
    for _ in range(2):
        write_report("figure_6", source_of(tmp_path), "python run_benchmark.py --figure 6")
        write_report("table_3", source_of(tmp_path), "python run_benchmark.py --table 3")
        for page in tmp_path.glob("*.md"):
            page.unlink()


def test_a_strangers_index_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("# Results of my thesis\n")
    with pytest.raises(InputError, match=r"README\.md was not written by run_benchmark"):
        write_index(tmp_path)


def test_the_shipped_results_are_ours(tmp_path):
    reports = [path.stem for path in Path("results").glob("*_*.md")]
    assert len(reports) > 10
    check_folder(Path("results"), reports)
    assert Results("results").rows
