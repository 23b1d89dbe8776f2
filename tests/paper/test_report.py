"""Reports of hand-made results."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.paper.figures import write_figure
from fuxictr_miss.paper.plan import Planner, variants_of
from fuxictr_miss.paper.report import Source, check_folder, write_index, write_table
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.search import Winner
from paper.conftest import row

# AUC by seed: MISS beats DMR, the strongest baseline, by 0.10, 0.11, 0.12
AUC = {"DMR": (0.70, 0.71, 0.72), "DIN": (0.69, 0.69, 0.69), "DIN_MISS": (0.80, 0.82, 0.84)}


def source_of(folder, dataset="amazoncds", seeds=3, budget=0, chosen=None) -> Source:
    return Source(Planner("config"), Results(folder), [dataset], seeds, budget, chosen or {})


def fill(source: Source, tables=(), figures=()) -> None:
    variants = variants_of(tables, figures)
    for each in source.planner.experiments(variants, source.datasets, source.seeds):
        auc = AUC.get(each.model, (0.5, 0.5, 0.5))[each.seed - 1]
        curve = {"training step": [10, 20], "similarity": [0.9, 0.8]}
        source.results.add(row(each, test_AUC=auc, test_logloss=1 - auc, curve=curve))


def line(text: str, name: str) -> str:
    return next(x for x in text.splitlines() if x.startswith(f"| {name} |"))


def test_table_3_marks_best_strongest_star_and_improvement_beside_the_papers_figures(tmp_path):
    source = source_of(tmp_path)
    fill(source, [3])
    write_table(3, source, "python run_benchmark.py --table 3")
    text = (tmp_path / "table_3.md").read_text()
    assert line(text, "DMR") == (
        "| DMR | <u>0.7100 ± 0.0100</u> | <u>0.2900 ± 0.0100</u> | 0.8115 | 0.5289 |"
    )
    assert line(text, "MISS") == (
        "| MISS | **0.8200 ± 0.0200**★ | **0.1800 ± 0.0200**★ | 0.8867 | 0.4357 |"
    )
    # (0.82 - 0.71) / 0.71 and (0.29 - 0.18) / 0.29; the paper's own in Section VI.B
    assert line(text, "improvement") == "| improvement | +15.49% | +37.93% | +9.27% | +17.62% |"
    assert "n = 3" in text
    assert "the settings of the config" in text
    latex = (tmp_path / "table_3.tex").read_text()
    assert r"MISS & \textbf{0.8200 $\pm$ 0.0200}$^\bigstar$ &" in latex
    assert r"DMR & \underline{0.7100 $\pm$ 0.0100} &" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1


def test_no_star_with_two_seeds(tmp_path):
    source = source_of(tmp_path, seeds=2)
    fill(source, [3])
    write_table(3, source, "")
    text = (tmp_path / "table_3.md").read_text()
    assert "★" not in text
    assert "No significance test" in text


def test_what_has_not_run_failed_or_cannot_exist_is_told_apart(tmp_path):
    source = source_of(tmp_path, dataset="amazoncds_subset")
    planner = source.planner
    din, irssl, miss = (
        planner.experiments([v], source.datasets, 3)
        for v in variants_of([5], [])
        if v.name in ("DIN", "DIN-IRSSL", "DIN-MISS")
    )
    for each in irssl:
        source.results.add(row(each, status="diverged", reason="valid_AUC is not a finite number"))
    for each in miss[:1]:
        source.results.add(row(each, test_AUC=0.8, test_logloss=0.5))
    for each in din:
        source.results.add(row(each, test_AUC=0.6, test_logloss=0.6))
    write_table(5, source, "")
    text = (tmp_path / "table_5.md").read_text()
    assert "(paper)" not in text  # a part of Amazon-Cds is not the paper's data
    assert line(text, "DIN-Rule").count("–<sup>") == 2
    assert "Rule needs a category" in text
    assert line(text, "DIN-IRSSL").count("failed<sup>") == 2
    assert "valid_AUC is not a finite number" in text
    assert line(text, "DIN-S3Rec").count("…") == 2
    assert "0.8000" in line(text, "DIN-MISS")
    assert "n = 1: not all seeds are finished." in text


def test_table_6_says_where_two_of_its_rows_are_one_experiment(tmp_path):
    source = source_of(tmp_path, dataset="amazoncds_subset")
    fill(source, [6])
    write_table(6, source, "")
    text = (tmp_path / "table_6.md").read_text()
    assert "J = 1" in text
    assert "| 0.8200 ± 0.0200<sup>1</sup> |" in line(text, "DIN-MISS/F")  # no baseline of itself


@pytest.mark.parametrize("number", [9, 10])
def test_rates_have_the_relative_improvement_a_row(tmp_path, number):
    source = source_of(tmp_path)
    fill(source, [number])
    write_table(number, source, "")
    text = (tmp_path / f"table_{number}.md").read_text()
    cells = line(text, {9: "100%", 10: "0%"}[number]).split(" | ")
    # (0.82 - 0.69) / 0.69; the paper's 10.08 % stands in its Tables IX and X
    assert cells[3] == "+18.84%"
    assert cells[4:] == ["0.8055", "0.8867", "+10.08% |"]


def test_table_2_counts_the_data_set_and_shows_the_papers_counts(tmp_path):
    source = source_of(tmp_path)
    write_table(2, source, "")
    text = (tmp_path / "table_2.md").read_text()
    assert "| Amazon-Cds (paper) | 75,258 | 64,443 | 150,516 | 140,167 | 5 |" in text
    assert line(text, "amazoncds")


def test_the_report_says_budget_and_winners_of_the_search(tmp_path):
    chosen = {("amazoncds", "DIN"): Winner({"learning_rate": 0.01}, 0.71, 8)}
    source = source_of(tmp_path, budget=8, chosen=chosen)
    write_table(4, source, "")
    text = (tmp_path / "table_4.md").read_text()
    assert "8 trials for every model" in text
    assert "| amazoncds | DIN | learning_rate: 0.01 | 0.7100 | 8 |" in text
    as_it_stands = next(line for line in text.splitlines() if "settings of the config: " in line)
    assert "DIN_MISS, " in as_it_stands
    assert not {"DIN", "DIN."} & set(as_it_stands.split(": ")[1].split(", "))


def test_figures_are_png_and_svg_with_their_numbers_and_the_same_bytes_again(tmp_path):
    source = source_of(tmp_path)
    fill(source, [], [5, 6, 7])
    for number in (5, 6, 7):
        write_figure(number, source, "")
        svg = (tmp_path / f"figure_{number}.svg").read_bytes()
        assert b"<svg" in svg
        assert (tmp_path / f"figure_{number}.png").read_bytes().startswith(b"\x89PNG")
        write_figure(number, source, "")
        assert (tmp_path / f"figure_{number}.svg").read_bytes() == svg
    assert "| amazoncds | MISS-SA | 0.9000 | 0.8000 |" in (tmp_path / "figure_5.md").read_text()
    assert (tmp_path / "figure_6.md").read_text().count("0.8200 ± 0.0200") == 5


def test_reports_can_be_made_before_anything_has_run(tmp_path):
    source = source_of(tmp_path)
    for number in range(3, 11):
        write_table(number, source, "")
    for number in (5, 6, 7):
        write_figure(number, source, "")
    write_index(tmp_path)


def test_reports_without_a_number_can_be_left_out(tmp_path):
    source = source_of(tmp_path)
    assert not write_table(4, source, "", even_empty=False)
    assert not write_figure(7, source, "", even_empty=False)
    fill(source, [4], [7])
    assert write_table(4, source, "", even_empty=False)
    assert write_figure(7, source, "", even_empty=False)


def test_the_index_names_every_report_and_its_command(tmp_path):
    source = source_of(tmp_path)
    write_table(10, source, "python run_benchmark.py --table 10")
    write_table(3, source, "python run_benchmark.py --table 3")
    write_figure(6, source, "python run_benchmark.py --figure 6")
    write_index(tmp_path)
    text = (tmp_path / "README.md").read_text()
    places = [text.index(f"`python run_benchmark.py {x}`")
              for x in ("--table 3", "--table 10", "--figure 6")]  # fmt: skip
    assert places == sorted(places)
    assert "[figure_6.svg](figure_6.svg)" in text


@pytest.mark.parametrize(
    ("name", "make"),
    [("table_3.md", write_table), ("table_3.tex", write_table), ("figure_6.md", write_figure),
     ("figure_6.png", write_figure), ("figure_6.svg", write_figure)],
)  # fmt: skip
def test_a_strangers_report_is_refused_and_stays(tmp_path, name, make):
    (tmp_path / name).write_text("# Mine\n")
    with pytest.raises(InputError, match=f"{name} was not written by run_benchmark"):
        make(int(name.partition(".")[0][-1]), source_of(tmp_path), "c")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "# Mine\n"


def test_strangers_files_beside_the_reports_stay_and_are_no_reports(tmp_path):
    strangers = {"my_notes.md": b"", "table_x.md": b"# Mine", "a_b.md": b"\xff\xfe",
                 "table_4.md": b"# Mine", "figure.png": b"mine"}  # fmt: skip
    for name, content in strangers.items():
        (tmp_path / name).write_bytes(content)
    for _ in range(2):
        write_table(3, source_of(tmp_path), "python run_benchmark.py --table 3")
        write_figure(6, source_of(tmp_path), "python run_benchmark.py --figure 6")
        write_index(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in strangers} == strangers
    index = (tmp_path / "README.md").read_text()
    assert index.count("\n| [") == 2
    assert "table_3.md" in index
    assert "figure_6.md" in index


def test_our_pictures_are_replaced_where_their_page_is_gone(tmp_path):
    for _ in range(2):
        write_figure(6, source_of(tmp_path), "python run_benchmark.py --figure 6")
        write_table(3, source_of(tmp_path), "python run_benchmark.py --table 3")
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
