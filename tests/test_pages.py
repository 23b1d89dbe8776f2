"""Commands and snippets of README and docs/ run as written, in a copy of the repository."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fuxictr_miss.self_supervision import method_defaults

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN_LOG = re.findall(r"^    (fuxictr-miss .*)$", README, re.MULTILINE)
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which `python` is this interpreter."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("fuxictr_miss", "model_zoo", "config", "data_preprocess", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run_expid.py", "run_benchmark.py"):
        shutil.copy(ROOT / name, folder)
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    command = folder / "bin" / "fuxictr-miss"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fuxictr_miss "$@"\n')
    command.chmod(0o755)
    return folder


def run(command: list[str], folder: Path, cwd: Path | None = None) -> str:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=cwd or folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def demo(copy: Path) -> str:
    """What README's demo prints, in the copy."""
    return run(["bash", "-ec", blocks("bash", README)[0]], copy)


@pytest.mark.trained_number
def test_commands_and_snippets_of_readme_run_as_written(copy, demo):
    """The demo ends within three standard deviations of what ten seeds gave, on any processor."""
    auc = float(re.search(r"\[test\] AUC: ([\d.]+)", demo).group(1))
    mean, deviation = re.search(r"([\d.]+) ± ([\d.]+) with MISS", README).groups()
    assert float(deviation) <= 0.008
    assert auc == pytest.approx(float(mean), abs=3 * float(deviation))
    printed = ""
    for language, block in re.findall(r"```(bash|yaml)\n(.*?)```", README, re.DOTALL)[1:]:
        if language == "bash":
            printed += run(["bash", "-ec", block], copy)
        elif "MeanPool" in block:  # to be added to the config of the block before
            with open(copy / "my_log" / "config_mylog" / "model_config.yaml", "a") as config:
                config.write(f"\n{block}")
    for command in OWN_LOG:
        assert f"$ {command}\n" in printed  # own_log.py has run it, in a folder with only a log
    preprocessed, own = printed.split(f"$ {OWN_LOG[1]}\n")
    assert preprocessed.rstrip().endswith(
        OWN_LOG[-1].removeprefix("fuxictr-miss")
    )  # what to do next
    plain, with_miss = (float(auc) for auc in re.findall(r"\[test\] AUC: ([\d.]+)", own)[:2])
    assert with_miss > plain + 0.1
    made = {path.name for path in (copy / "my_log").iterdir()}
    assert made >= {"log.csv", "data", "config_mylog", "checkpoints", "config_mylog.csv"}
    assert not list(copy.glob("*mylog*")) + list(copy.glob("log.csv"))  # all of it is in my_log
    for block in blocks("python", README):
        run([sys.executable, "-c", block], copy)


@pytest.mark.parametrize("page", [name for name, page in PAGES.items() if "```" in page])
def test_commands_and_snippets_of_a_page_run_as_written(copy, demo, page):
    for block in blocks("bash", PAGES[page]):
        run(["bash", "-ec", block], copy)
    for block in blocks("python", PAGES[page]):
        run([sys.executable, "-c", block], copy)


def test_plans_of_the_papers_tables_need_no_data(copy, monkeypatch, capsys):
    commands = re.findall(r"^    python (run_benchmark\.py .*)$", README, re.MULTILINE)
    assert commands
    monkeypatch.chdir(copy)
    for command in commands:
        monkeypatch.setattr(sys, "argv", [*command.split(), "--dry-run"])
        runpy.run_path(sys.argv[0], run_name="__main__")
        assert "experiments to run" in capsys.readouterr().out


def stated_defaults() -> dict[str, Any]:
    """The defaults in README's table of keys, without remarks: those in parentheses and at the end.

    A value that stands alone beside several keys is that of each.
    """
    stated: dict[str, Any] = {}
    table = README[README.index("### Keys") : README.index("### Which strategy")]
    for keys, cell in re.findall(r"^\|[^|]*\| (`[^|]*) \| ([^|]*) \|$", table, re.MULTILINE):
        names = re.findall(r"`(\w+)`", keys)
        values, *_ = re.split(r";| = ", re.sub(r" \(.*?\)|, of Eq\. \d+", "", cell))
        each = yaml.safe_load(f"[{values}]")
        stated |= zip(names, each * len(names) if len(each) == 1 else each, strict=True)
    return stated


def test_every_key_is_in_the_table_with_its_default():
    ours = {k: v for k, v in method_defaults().items() if k.startswith(("ssl_", "miss_"))}
    assert stated_defaults() == ours
