"""Every example runs as its docstring says, from any folder, and MISS gains on its log.

`own_log.py` runs in `test_pages.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
IMPORTED = {"made_up_log.py", "mean_pool.py"}
SCRIPTS = sorted({path.name for path in EXAMPLES.glob("*.py")} - IMPORTED)
NOTEBOOK = json.loads((EXAMPLES / "demo.ipynb").read_text(encoding="utf-8"))
# Its cells in order, as a kernel runs them; nbclient would bring thirty packages for this.
RUN_NOTEBOOK = """
import json, sys
cells = json.load(open(sys.argv[1], encoding="utf-8"))["cells"]
names = {"__name__": "__main__"}
for number, cell in enumerate(cells):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
print(json.dumps({key: names[key] for key in ("shares", "folder")}))
print(json.dumps({name: result["test_AUC"] for name, result in names["results"].items()}))
"""


def run(script: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def aucs(printed: str) -> list[float]:
    pattern = r"^\[test\] AUC: ([\d.]+)|: test AUC ([\d.]+)"
    return [float(a or b) for a, b in re.findall(pattern, printed, re.MULTILINE)]


@pytest.mark.trained_number
@pytest.mark.parametrize("script", ["own_model.py", "own_method.py"])
def test_examples_run_and_miss_gains(script, tmp_path):
    plain, with_miss, third = aucs(run(script, tmp_path))
    assert with_miss > plain + 0.1
    assert not list(tmp_path.iterdir())  # all of it was in a folder of its own
    if script == "own_model.py":
        assert third == with_miss  # the backbone


@pytest.mark.trained_number
def test_the_behavior_that_carries_the_signal_is_learned_beside_one_that_does_not(tmp_path):
    printed = run("two_behaviors.py", tmp_path)
    plain, both, clicks, seen, zipped = (
        float(a) for a in re.findall(r"test AUC ([\d.]+)", printed)
    )
    assert both > plain + 0.2
    assert both > clicks - 0.12
    assert max(plain, seen) < 0.6  # there is nothing to learn from what was seen
    assert zipped < both - 0.1  # a click and what was seen at its place are no pair of attributes
    assert not list(tmp_path.iterdir())


@pytest.mark.trained_number
def test_a_table_without_a_history_is_enhanced(tmp_path):
    plain, *enhanced = aucs(run("no_history.py", tmp_path))
    assert len(enhanced) == 2
    assert plain > 0.67
    assert all(abs(auc - plain) < 0.02 for auc in enhanced)  # as the docstring says
    assert not list(tmp_path.iterdir())


def test_own_log_writes_into_no_folder_of_the_users(tmp_path):
    (tmp_path / "log.csv").write_text("mine")
    command = [sys.executable, str(EXAMPLES / "own_log.py"), "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ". is not empty: name a new folder.\n"
    assert (tmp_path / "log.csv").read_text() == "mine"


def test_every_example_is_short_and_listed():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"`python examples/(\w+\.py)`", listed)) == SCRIPTS
    assert "(demo.ipynb)" in listed
    for script in SCRIPTS:
        assert len((EXAMPLES / script).read_text(encoding="utf-8").splitlines()) < 85


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_workers_of_ray_train_give_the_auc_of_a_plain_run(tmp_path, workers):
    printed = run("ray_train.py", tmp_path, workers)
    (auc,) = aucs(printed)
    assert "Kept: DIN_MISS.log, DIN_MISS.metrics.json, DIN_MISS.model, " in printed
    plain = """
import sys
from pathlib import Path
from made_up_log import parameters
from fuxictr_miss.experiment import run
params = {**parameters(Path(sys.argv[1])), "model": "DIN_MISS", "model_id": "DIN_MISS"}
print(run(params)["test_AUC"])
"""
    command = [sys.executable, "-c", plain, str(tmp_path)]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=True)
    # sums over two workers round differently, and Adam follows: in twenty epochs by some 0.005
    allowed = 5e-5 if workers == "1" else 0.02
    assert auc == pytest.approx(float(done.stdout.splitlines()[-1]), abs=allowed)


@pytest.mark.trained_number
def test_the_notebook_runs_and_its_story_is_true(tmp_path):
    command = [sys.executable, "-c", RUN_NOTEBOOK, str(EXAMPLES / "demo.ipynb")]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    known, auc = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    shutil.rmtree(known["folder"])
    assert auc["DIN_MISS"] > auc["DIN"] + 0.1
    assert known["shares"]["DIN_MISS"] > 5 * known["shares"]["DIN"]
    assert not list(tmp_path.iterdir())


def test_the_notebook_shows_the_outputs_of_one_run():
    code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {
        "stream",
        "execute_result",
        "display_data",
    }
