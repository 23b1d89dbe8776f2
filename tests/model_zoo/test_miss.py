"""The entry of the paper's model: its class, and a map that leads to the line of each equation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fuxictr_miss as fm
from model_zoo.DIN import DIN
from model_zoo.MISS import MISS

FOLDER = Path(__file__).resolve().parents[2] / "model_zoo" / "MISS"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| Eq\. (\d+) \| .* \| \[.*?:(\d+)\]\((.*?)#L(\d+)\) \|$", README, re.M)


def test_the_papers_miss_is_din_enhanced():
    assert MISS is fm.get_model("MISS") is fm.get_model("DIN_MISS") is fm.enhance(DIN)
    assert "MISS_MISS" not in fm.list_models()


def test_the_map_has_every_equation_of_the_method():
    assert [int(number) for number, *_ in ROWS] == list(range(8, 25))


@pytest.mark.parametrize(("number", "shown", "file", "line"), ROWS)
def test_the_map_leads_to_the_line_of_the_equation(number, shown, file, line):
    assert shown == line
    text = (FOLDER / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    numbers = re.findall(r"Eq\. ([\d, ]+)", text)
    assert number in re.findall(r"\d+", " ".join(numbers)), text
