"""Runs on Ray, resumed and failing; and the command itself."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import polars as pl
import pytest
import ray.exceptions

from fuxictr_miss.commands import benchmark
from fuxictr_miss.data import build_dataset
from fuxictr_miss.data.digest import stamped_digest
from fuxictr_miss.errors import InputError
from fuxictr_miss.files import file_digest
from fuxictr_miss.paper import worker
from fuxictr_miss.paper.plan import Planner, variants_of
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.run import _ray, estimate, missing, run_all
from fuxictr_miss.paper.tables import Variant
from paper.conftest import row
from paper.ray_nodes import nodes, wait_for  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
METRICS = ("valid_AUC", "valid_logloss", "test_AUC", "test_logloss", "epochs", "curve", "status",
           "valid_ECE", "test_ECE")  # fmt: skip
MODELS = [Variant("DIN", "DIN"), Variant("MISS", "DIN_MISS")]
DIVERGING = Variant("diverging", "DIN", {"learning_rate": 1e30})
POPULARITY = Variant("Popularity", "Popularity")
KILLER = Variant("killed", "Killer")  # its worker dies under seed 1


def command(*arguments: str) -> None:
    """Run the command in this process, where torch is loaded already."""
    with mock.patch("sys.argv", ["run_benchmark.py", *arguments]):
        benchmark.main()


class InThisProcess:
    """What `_Here` does with Ray."""

    def __init__(self, _, gpus, options):
        assert gpus == [-1, -1, -1]
        self.options = options

    def start(self, job, _):
        return job.key

    def first_of(self, running):
        return running[0]

    def row(self, job, _):
        return worker.run(job, -1, os.getcwd(), self.options)


@pytest.mark.parametrize(("gpu", "timed"), [(-1, True), (0, False)])
def test_processor_seconds_are_those_of_a_cpu(place, monkeypatch, gpu, timed):
    monkeypatch.setattr(
        worker.experiment, "run", lambda *_, **__: {"seconds": 1.0, "epochs": 1, "history": []}
    )
    [job] = Planner("config").experiments(MODELS[:1], ["small"], 1)
    made = worker.run(job, gpu, str(place), worker.Options("checkpoints"))
    assert made["status"] == "ok"
    assert ("processor_seconds" in made) is timed


def test_plan_run_and_report_and_then_only_what_is_missing_on_any_number_of_workers(place, capsys):
    """Without Ray, and once more with it."""
    asked = ["--dataset", "small", "--table", "7", "--seeds", "1"]
    command(*asked, "--dry-run")
    assert "7 of 7 experiments to run, time unknown" in capsys.readouterr().out
    assert not (place / "results").exists()

    with (
        mock.patch("fuxictr_miss.paper.run._ray", return_value=contextlib.nullcontext()),
        mock.patch("fuxictr_miss.paper.run._Here", InThisProcess),
    ):
        command(*asked, "--workers", "3")
    assert "7 experiments: 7 ok" in capsys.readouterr().out
    file = place / "results" / "experiments.csv"
    before, report = file.read_bytes(), (place / "results" / "table_7.md").read_text()
    assert not list(place.rglob("*.state"))
    assert not list(place.rglob("*.model"))

    (place / "results" / "table_7.md").unlink()
    with mock.patch("ray.init", side_effect=AssertionError("a second start runs nothing")):
        command(*asked)
        command(*asked, "--report-only")
        command(*asked, "--dry-run")
    assert "0 of 7 experiments" in capsys.readouterr().out
    assert file.read_bytes() == before
    assert (place / "results" / "table_7.md").read_text() == report

    # two workers, and among the same experiments one that diverges and one that kills its worker
    one = Results(place / "results").rows
    two = Results(place / "of_two")
    planner = Planner("config")
    variants = [*variants_of(["table_7"]), POPULARITY, DIVERGING, KILLER]
    experiments = planner.experiments(variants, ["small"], 1)
    experiments += planner.experiments([KILLER], ["small"], 2)[1:]
    run_all(experiments, two, [-1, -1])
    for key, row_of_one in one.items():
        assert {k: row_of_one[k] for k in METRICS} == {k: two.rows[key][k] for k in METRICS}
        assert row_of_one["peak_memory_mb"] > 50
        assert row_of_one["seconds"] > 0
        assert row_of_one["processor_seconds"] > 0
        assert set(row_of_one["versions"]) == {"python", "torch", "fuxictr", "fuxictr_miss"}
    popularity, diverged, killed, spared = (two.rows[each.key] for each in experiments[-4:])
    assert (popularity["status"], popularity["epochs"]) == ("ok", 0)
    assert {key for key in popularity if key.startswith(("valid_", "test_"))} == {
        "valid_AUC", "test_AUC"}  # fmt: skip
    assert not missing(experiments[:-3], two, {}, True)
    assert diverged["status"] == "diverged"
    assert diverged["reason"]
    assert killed["status"] == "failed"
    assert "worker died" in killed["reason"]
    assert spared["status"] == "ok"  # seed 2, by the worker that took over


def test_only_what_is_missing_is_left(place, tmp_path):
    experiments = Planner("config").experiments(MODELS, ["small"], 2)
    results = Results(tmp_path / "results")
    assert missing(experiments, results, {}, False) == experiments
    for each in experiments[:2]:
        results.add(row(each, data="one"))
    results.add(row(experiments[2], data="one", status="failed"))
    assert missing(experiments, results, {"small": "one"}, False) == experiments[3:]
    assert missing(experiments, results, {"small": "one"}, True) == experiments[2:]
    assert missing(experiments, results, {"small": "other data"}, False) == experiments


def test_rows_belong_to_values_whatever_the_files_that_hold_them(params, splits, tmp_path):
    """Another version of pyarrow writes the same splits in other bytes."""
    build_dataset(params)
    first = stamped_digest(params)
    rows = pl.read_parquet(splits / "train.parquet")
    for change, same in ((rows, True), (rows.reverse(), False)):
        change.write_parquet(tmp_path / "train.parquet", compression="snappy")
        assert file_digest(tmp_path / "train.parquet") != file_digest(splits / "train.parquet")
        build_dataset({**params, "train_data": str(tmp_path / "train.parquet")})
        assert (stamped_digest(params) == first) == same


def test_the_estimate_is_the_median_of_the_nearest_kin(place, tmp_path):
    one, *_ = Planner("config").experiments(MODELS[:1], ["small"], 1)
    assert estimate(one, []) is None
    rows = [row(dataclasses.replace(one, model="FM"), seconds=7.0)]
    assert estimate(one, rows) == 7.0
    rows += [row(dataclasses.replace(one, dataset="large"), seconds=90.0)]
    assert estimate(one, rows) == 90.0
    rows += [row(one, seconds=s) for s in (1.0, 2.0, 30.0)]
    assert estimate(one, rows) == 2.0
    assert stamped_digest({"data_root": str(tmp_path), "dataset_id": "none"}) == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "smal", "--table", "4"], "data set 'smal'. Did you mean 'small'"),
        (["--dataset", "small", "--table", "11"], "Unknown table '11'.*Valid: 10, 2, 3"),
        (["--dataset", "small", "--figure", "3"], "Unknown figure '3'.*Valid: 5, 6, 7"),
        (["--dataset", "small"], "--table 3"),
        (["--table", "4"], "Name the data sets by --dataset"),
        (["--dataset", "small", "--table", "4", "--sample"], "options of --suite bars"),
        (["--dataset", "small", "--table", "4", "--model", "DNI"], "'DNI'. Did you mean 'DIN'"),
        (["--dataset", "small", "--table", "4", "--search", "2"], "search.yaml"),
    ],
)
def test_wrong_input_is_one_sentence(place, arguments, words):
    with pytest.raises(InputError, match=words):
        command(*arguments)


def test_a_failed_experiment_is_exit_code_1_and_a_diverged_one_is_not(place, monkeypatch):
    asked = ["--dataset", "small", "--table", "4", "--model", "DIN", "--seeds", "1"]
    experiments = Planner("config").experiments(MODELS[:1], ["small"], 1)
    monkeypatch.setattr("fuxictr_miss.paper.run.run_all", lambda *_: None)
    digest = stamped_digest(experiments[0].params)
    for status, code in (("diverged", None), ("failed", 1)):
        Results("results").add(row(experiments[0], status=status, reason="why", data=digest))
        if code is None:
            command(*asked)
        else:
            with pytest.raises(SystemExit) as end:
                command(*asked)
            assert end.value.code == code
        command(*asked, "--report-only")  # it runs nothing, so nothing failed


def test_a_strangers_file_is_refused_before_anything_runs(place, monkeypatch):
    monkeypatch.setattr("fuxictr_miss.paper.run.run_all", mock.Mock(side_effect=AssertionError))
    asked = ["--dataset", "small", "--table", "4", "--seeds", "1"]
    for name in ("README.md", "table_4.md", "table_4.tex", "experiments.csv"):
        stranger = place / "results" / name
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_text("# Mine\n")
        with pytest.raises(InputError, match=f"{name} .*: move it, or name another folder"):
            command(*asked)
        assert stranger.read_text() == "# Mine\n"
        stranger.unlink()
    (place / "results").rmdir()
    (place / "results").write_text("a file")
    with pytest.raises(InputError, match="Reports cannot be written to results"):
        command(*asked)


def test_sigterm_is_what_ctrl_c_is_while_ray_runs_and_only_then(monkeypatch):
    init, shutdown = mock.Mock(), mock.Mock()
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", shutdown)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _ray(1, None):
        os.kill(os.getpid(), signal.SIGTERM)
    assert shutdown.call_count == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert init.call_args.kwargs["address"] == "local"  # never the cluster of somebody else


def test_a_cluster_that_cannot_be_joined_is_one_sentence(monkeypatch):
    def refused(address: str, words: str) -> None:
        with pytest.raises(InputError, match=words) as error, _ray(1, address):
            pass
        assert "\n" not in str(error.value)

    refused(
        "localhost:1", r"There is no Ray cluster at localhost:1 \(Connection refused\): start one"
    )
    refused("localhost", r"localhost cannot be joined \(Invalid address.*belong to it")
    for raised, words in (
        (RuntimeError("Version mismatch: the\ncluster has 2.9"), r"mismatch: the cluster.*ray 2\."),
        (ray.exceptions.AuthenticationError("no token"), "asks for a token: set RAY_AUTH_MODE"),
    ):
        monkeypatch.setattr("ray.init", mock.Mock(side_effect=raised))
        refused("ray://head:10001", words)


@pytest.mark.slow
@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_command_leaves_no_process_and_no_address_to_which_fuxictr_would_connect(
    place, nodes, signal_  # noqa: F811
):  # fmt: skip
    asked = ["--dataset", "small", "--table", "4", "--seeds", "9"]
    run = subprocess.Popen(
        [sys.executable, str(ROOT / "run_benchmark.py"), *asked],
        env=nodes.env, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: list(place.rglob("*.log")) or run.poll() is not None)
    run.send_signal(signal_)
    _, err = run.communicate(timeout=100)
    if signal_ == signal.SIGTERM:
        assert run.returncode == 130
        assert err.endswith("interrupted; finished files are whole\n")
    find = ["pgrep", "--full", str(nodes.folder)]
    wait_for(lambda: not subprocess.run(find, capture_output=True, check=False).stdout)
    assert (nodes.folder / "ray").is_dir()
    assert not list(nodes.folder.rglob("ray_current_cluster"))


def test_help_teaches_and_does_not_wait_for_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "run_benchmark.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "--table 3 --dataset amazoncds_subset" in done.stdout
    assert " torch" not in done.stderr
