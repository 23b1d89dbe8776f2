"""Commands and snippets of README run as written, in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN_LOG = re.findall(r"^    (fuxictr-miss .*)$", README, re.MULTILINE)
SHORT = "--set epochs=1 ssl_pretrain_epochs=1 --set ssl_thaw=False"  # both ways to set several
WRITE_LOG = """
import sys; from pathlib import Path
sys.path.insert(0, "{}")
from made_up_log import write_log
write_log(Path("{}", "log.csv"))
"""


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


@pytest.mark.trained_number
def test_commands_and_snippets_run_as_written(copy):
    """The demo ends within three standard deviations of what ten seeds gave, on any processor."""
    printed = ""
    for language, block in re.findall(r"```(bash|yaml)\n(.*?)```", README, re.DOTALL):
        if language == "bash":
            printed += run(["bash", "-ec", block], copy)
        elif "MeanPool" in block:  # to be added to the config of the block before
            with open(copy / "my_log" / "config_mylog" / "model_config.yaml", "a") as config:
                config.write(f"\n{block}")
    for command in OWN_LOG:
        assert f"$ {command}\n" in printed  # own_log.py has run it
    own = printed[printed.index(f"$ {OWN_LOG[1]}\n") :]
    plain, with_miss = (float(auc) for auc in re.findall(r"\[test\] AUC: ([\d.]+)", own)[:2])
    assert with_miss > plain + 0.1
    made = {path.name for path in (copy / "my_log").iterdir()}
    assert made >= {"log.csv", "data", "config_mylog", "checkpoints", "config_mylog.csv"}
    assert not list(copy.glob("*mylog*")) + list(copy.glob("log.csv"))  # all of it is in my_log
    auc = float(re.search(r"\[test\] AUC: ([\d.]+)", printed).group(1))
    mean, deviation = re.search(r"([\d.]+) ± ([\d.]+) with MISS", README).groups()
    assert float(deviation) <= 0.008
    assert auc == pytest.approx(float(mean), abs=3 * float(deviation))
    for block in blocks("python", README):
        run([sys.executable, "-c", block], copy)


def test_plans_of_the_papers_tables_need_no_data(copy):
    commands = re.findall(r"^    python (run_benchmark\.py .*)$", README, re.MULTILINE)
    assert commands
    for command in commands:
        assert "experiments to run" in run([sys.executable, *command.split(), "--dry-run"], copy)


def test_ones_own_log_is_one_line_and_the_next_line_is_printed_by_it(copy, tmp_path):
    """The three lines as written, in a folder that has only a log."""
    run([sys.executable, "-c", WRITE_LOG.format(copy / "examples", tmp_path)], copy)
    preprocess, *train = OWN_LOG
    printed = run(["bash", "-ec", preprocess], copy, tmp_path)
    assert printed.rstrip().endswith(train[-1].removeprefix("fuxictr-miss"))
    for command in train:
        assert "[test] AUC" in run(["bash", "-ec", f"{command} {SHORT}"], copy, tmp_path)


def test_every_key_in_the_table_exists_with_that_default():
    from fuxictr_miss.self_supervision import method_defaults

    defaults = method_defaults()
    table = README[README.index("### Keys") : README.index("### Which strategy")]
    named = set(re.findall(r"`((?:ssl|miss)_\w+)`", table))
    assert named <= set(defaults)
    ours = {key for key in defaults if key.startswith(("ssl_", "miss_"))}
    assert named == ours
