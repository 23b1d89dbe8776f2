"""A Ray cluster: machines that are lost, that lack the data, or that have other code.

The quick tests have a Ray of their own that runs tasks in this process; the slow ones start nodes.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import ray.exceptions
import yaml

from fuxictr_miss.errors import InputError
from fuxictr_miss.paper import cluster, machines, worker
from fuxictr_miss.paper.plan import Experiment, Planner
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.run import run_all
from fuxictr_miss.paper.tables import Variant
from paper.conftest import an_experiment, row
from paper.ray_nodes import ROOT, Nodes, nodes, wait_for  # noqa: F401

DIN = Variant("DIN", "DIN")
LOST = ray.exceptions.NodeDiedError("the node is gone")


class FakeRay:
    """Runs a task when its result is asked for. `outcome` may raise what Ray would."""

    exceptions = ray.exceptions

    def __init__(self, outcome: Callable[..., Any]) -> None:
        self.outcome = outcome
        self.resources = {"CPU": 2.0}
        self.calls: list[tuple[Any, ...]] = []
        self.stored = 0

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.options = options
        return lambda function: SimpleNamespace(remote=self._remember, options=self._with)

    def _with(self, **options: Any) -> Any:
        return SimpleNamespace(remote=lambda *a: self._remember(*a, **options))

    def _remember(self, *arguments: Any, **options: Any) -> int:
        self.calls.append((*arguments, options))
        return len(self.calls) - 1

    def wait(self, running: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return (running[:1], running[1:]) if self.resources else ([], running)

    def get(self, reference: int) -> Any:
        *arguments, _ = self.calls[reference]
        return self.outcome(*arguments)

    def put(self, piece: bytes) -> bytes:
        self.stored += 1
        return piece

    def cluster_resources(self) -> dict[str, float]:
        return self.resources


@pytest.fixture
def of_ray(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], FakeRay]:
    def use(outcome: Callable[..., Any]) -> FakeRay:
        fake = FakeRay(outcome)
        monkeypatch.setattr("fuxictr_miss.paper.run._ray", mock.MagicMock())
        monkeypatch.setattr("fuxictr_miss.paper.run._ray.return_value.__enter__", lambda _: fake)
        monkeypatch.setattr("fuxictr_miss.paper.run._ray.return_value.__exit__", lambda *_: False)
        monkeypatch.setattr("ray.get", lambda piece: piece)
        return fake

    return use


def on_cluster(experiments: list[Experiment], workers: int = 2, gpu: int = -1) -> Results:
    results = Results("results")
    run_all(experiments, results, [gpu] * workers, "head:6379")
    return results


def wrapped(cause: Exception) -> Exception:
    return ray.exceptions.RayTaskError("run", "Traceback", cause)


def ok(job: Experiment, *_: Any) -> dict[str, Any]:
    return row(job)


def three(place: Path) -> list[Experiment]:
    return Planner(str(place / "config")).experiments([DIN], ["small"], 3)


def test_an_experiment_whose_machine_is_lost_runs_again(place, of_ray, capsys):
    lost = iter([False, True, True])

    def outcome(job, *_):
        if next(lost, False):
            raise LOST
        return row(job)

    fake = of_ray(outcome)
    results = on_cluster(three(place))
    assert [each["status"] for each in results.rows.values()] == ["ok"] * 3
    assert len(fake.calls) == 5
    assert fake.options == {"num_cpus": 1, "max_retries": 0}
    assert capsys.readouterr().err.count("was lost; it runs again.") == 2


def test_an_experiment_that_loses_three_machines_is_a_failed_row_and_the_others_run(place, of_ray):
    def outcome(job, *_):
        if job.seed == 2:
            raise ray.exceptions.WorkerCrashedError
        return row(job)

    fake = of_ray(outcome)
    experiments = three(place)
    results = on_cluster(experiments)
    status = [results.rows[each.key]["status"] for each in experiments]
    assert status == ["ok", "failed", "ok"]
    assert "lost 3 times" in results.rows[experiments[1].key]["reason"]
    assert len(fake.calls) == 5


def test_an_experiment_that_needs_too_much_memory_is_not_tried_again(place, of_ray):
    def outcome(job, *_):
        raise ray.exceptions.OutOfMemoryError("no memory")

    fake = of_ray(outcome)
    results = on_cluster(three(place))
    assert {each["reason"] for each in results.rows.values()} == {"the worker died: no memory"}
    assert len(fake.calls) == 3


@pytest.mark.parametrize(("gpu", "lacks"), [(-1, "a CPU"), (0, "a CPU and a GPU")])
def test_without_a_machine_the_command_ends_in_one_sentence_and_keeps_its_rows(
    place, of_ray, monkeypatch, gpu, lacks, capsys
):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.0)

    def outcome(job, *_):
        fake.resources = {}  # the last machine ends after its first experiment
        return row(job)

    fake = of_ray(outcome)
    with pytest.raises(InputError, match=f"head:6379 has {lacks} .* same command again") as error:
        on_cluster(three(place), gpu=gpu)
    assert "\n" not in str(error.value)
    assert len(Results("results").rows) == 1
    assert f"No machine has {lacks}: waiting for one." in capsys.readouterr().err


def test_a_gpu_is_any_gpu_of_the_cluster(place, of_ray):
    fake = of_ray(ok)
    on_cluster(three(place), gpu=3)
    assert {(call[1], call[-1]["num_gpus"]) for call in fake.calls} == {(0, 1)}
    assert fake.options["max_calls"] == 1


@pytest.fixture
def elsewhere_run(place: Path, tmp_path_factory, monkeypatch) -> Callable[..., Any]:
    """`machines.run` as on a machine without the folders of this one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    splits = Path(three(place)[0].params["train_data"]).parent
    away = tmp_path_factory.mktemp("away")

    def run(job, *arguments):
        shutil.move(place, away / "place")
        os.rename(splits, away / "splits")
        try:
            return machines.run(job, *arguments)
        except (InputError, machines.DataIsMissingError) as error:
            raise wrapped(error) from error
        finally:
            os.rename(away / "splits", splits)
            shutil.move(away / "place", place)
            os.chdir(place)

    return run


def test_a_machine_without_the_data_is_sent_it_once_and_gives_the_same_digits(
    place, of_ray, elsewhere_run, capsys
):
    experiments = three(place)[:2]
    here = worker.run(experiments[0], -1, str(place), worker.Options("runs"))
    fake = of_ray(elsewhere_run)
    results = on_cluster(experiments, workers=1)
    there = results.rows[experiments[0].key]
    names = [name for name in here if name.startswith(("valid_", "test_"))]
    assert here["status"] == there["status"] == "ok"
    assert {k: here[k] for k in names} == {k: there[k] for k in names}
    assert here["data"] == there["data"] != ""
    assert len(fake.calls) == 3
    encoded = place / "encoded" / "small"
    assert fake.stored == sum(1 for each in encoded.iterdir() if each.name[0] not in ".b")
    assert capsys.readouterr().err.count("lacks the encoded data of small: it is sent.") == 1
    kept = machines.own_folder()
    assert sorted(each.name for each in kept.rglob("*.parquet")) == [
        "test.parquet", "train.parquet", "valid.parquet"]  # fmt: skip
    assert not list(kept.rglob("*.building"))
    assert list(kept.rglob("*.log"))


def test_a_half_received_data_set_is_received_again(place, of_ray, elsewhere_run):
    (job,) = three(place)[:1]
    data = machines.Data.of(job.params)
    half = machines.own_folder() / "data" / data.digest / ".small.building"
    half.mkdir(parents=True)
    (half / "train.parquet").write_text("half")
    of_ray(elsewhere_run)
    assert on_cluster([job]).finished(job.key)
    assert not half.exists()


def test_a_machine_that_cannot_keep_the_data_says_where(place, of_ray, elsewhere_run):
    (job,) = three(place)[:1]
    machines.own_folder().parent.mkdir(exist_ok=True)
    machines.own_folder().write_text("in the way")
    of_ray(elsewhere_run)
    with pytest.raises(InputError, match=r"cannot .*fuxictr_miss.* \(Not a directory\): free some"):
        on_cluster([job])


def test_other_data_under_the_same_path_is_refused(place):
    (job,) = three(place)[:1]
    data = dataclasses.replace(machines.Data.of(job.params), digest="another")
    with pytest.raises(InputError, match=r"small on .* holds other data than here"):
        machines.run(job, -1, str(place), worker.Options("runs"), machines.code_here(), data, None)


def test_data_that_fuxictr_encoded_has_to_be_mounted(place, of_ray, elsewhere_run):
    (job,) = three(place)[:1]
    machines.Data.of(job.params)
    (place / "encoded" / "small" / "build.json").unlink()
    of_ray(elsewhere_run)
    with pytest.raises(InputError, match=r"cannot read the data set small .* mount its files and"):
        on_cluster([job])


def test_a_zoo_that_is_not_there_is_named(place, of_ray, elsewhere_run):
    job = an_experiment(str(place / "config"), Variant("killed", "Killer"), "small")
    of_ray(elsewhere_run)
    with pytest.raises(InputError, match=r"has no .*/zoo, from which the class of Killer comes: m"):
        on_cluster([job])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"versions": {"torch": "2.0.0"}}, r"has torch .* instead of 2\.0\.0: install"),
        ({"sources": "another"}, "has other source files in .*/fuxictr_miss .*: install"),
    ],
)
def test_a_machine_with_other_code_ends_the_command_in_one_sentence(place, of_ray, other, words):
    code = machines.code_here()
    there = {"versions": {**code.versions, **other.pop("versions", {})}, **other}

    def outcome(job, gpu, folder, options, _, *rest):
        try:
            machines.run(job, gpu, folder, options, dataclasses.replace(code, **there), *rest)
        except InputError as error:
            raise wrapped(error) from error

    of_ray(outcome)
    with pytest.raises(InputError, match=words) as error:
        on_cluster(three(place))
    assert "\n" not in str(error.value)


def test_a_machine_without_the_package_ends_the_command_in_one_sentence(place, of_ray):
    def outcome(*_):
        raise wrapped(RuntimeError("The remote function failed to import on the worker."))

    of_ray(outcome)
    with pytest.raises(InputError, match=r"failed to import .* install there what is installed"):
        on_cluster(three(place))


# ---------------------------------------------------------------------- nodes


def longer(place: Path, epochs: int) -> None:
    file = place / "config" / "model_config.yaml"
    models = yaml.safe_load(file.read_text())
    for name in ("DIN_small", "DIN_MISS_small"):
        models[name] |= {"epochs": epochs, "early_stop_patience": epochs}
    file.write_text(yaml.safe_dump(models))


def started(
    nodes: Nodes,  # noqa: F811
    script: str,
    *arguments: str,
    env: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *arguments, "--ray-address", nodes.address],
        env=env or nodes.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_machine_without_our_folders_works_and_when_it_is_lost_no_row_is(
    place, nodes, tmp_path_factory  # noqa: F811
):  # fmt: skip
    longer(place, 20)
    nodes.start()
    second = nodes.start(hidden=tmp_path_factory.getbasetemp())
    asked = ["--dataset", "small", "--table", "7", "--seeds", "2", "--workers", "2"]
    run = started(nodes, "run_benchmark.py", *asked)
    cache = nodes.folder / "cache"
    wait_for(lambda: len(list(cache.rglob("*.log"))) >= 2 or run.poll() is not None)
    nodes.kill(second)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, out + err
    rows = Results("results").rows
    assert [each["status"] for each in rows.values()] == ["ok"] * 8
    assert err.count("it is sent.") == 1
    assert err.count("it runs again.") == 1
    elsewhere = {log.stem for log in cache.rglob("*.log") if "test: " in log.read_text()}
    assert elsewhere
    for job in Planner(str(place / "config")).experiments(
        [DIN, Variant("MISS", "DIN_MISS")], ["small"], 2
    ):
        if job.name in elsewhere:
            here, there = worker.run(job, -1, ".", worker.Options("again")), rows[job.key]
            for name in ("valid_AUC", "valid_logloss", "test_AUC", "test_logloss", "data"):
                assert here[name] == there[name]


@pytest.mark.slow
def test_a_search_loses_no_trial_if_a_nodes_ray_dies_in_a_shared_folder(place, nodes):  # noqa: F811
    longer(place, 20)
    space = {"base_config": "config", "base_expid": "DIN_MISS_small"}
    space["tuner_space"] = {"learning_rate": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]}
    Path("space.yaml").write_text(yaml.safe_dump(space))
    nodes.start()
    second = nodes.start()
    asked = ["--config", "space.yaml", "--gpu", "-1", "-1"]

    without = {**nodes.env}
    del without["RAY_AUTH_MODE"], without["RAY_AUTH_TOKEN_PATH"]
    refused = started(nodes, "run_param_tuner.py", *asked, env=without)
    _, err = refused.communicate(timeout=300)
    assert refused.returncode == 2
    assert f"error: The Ray cluster {nodes.address} asks for a token: set RAY_AUTH_MODE" in err

    run = started(nodes, "run_param_tuner.py", *asked)
    folder = Path("checkpoints/tuner/space")
    wait_for(
        lambda: (
            len(list(folder.rglob("*.log"))) >= len(Results(folder).rows) + 2
            or run.poll() is not None
        )
    )
    nodes.kill_raylet(second)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, out + err
    assert [each["status"] for each in Results(folder).rows.values()] == ["ok"] * 6
    assert err.count("it runs again.") == 1
    assert "Best: DIN_MISS_small_" in out
