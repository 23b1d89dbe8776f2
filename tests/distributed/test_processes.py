"""Several processes of torchrun train as one does: the tasks of ranks.py, on gloo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import ranks
import torch
import yaml

from fuxictr_miss import experiment
from fuxictr_miss.distributed import processes, sharded_tables
from fuxictr_miss.methods import draws

ROOT = Path(__file__).resolve().parents[2]


def torchrun(number: int, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in several processes; nothing but the loopback device is used."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    words = [*launch, str(number), *map(str, command)]
    return subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


def task(name: str, number: int, params: dict[str, Any], folder: Path) -> Any:
    """Run a task of ranks.py and return what it found."""
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    files = folder / "params.yaml", folder / f"{name}_{number}.json"
    done = torchrun(number, ROOT / "tests" / "distributed" / "ranks.py", name, *files, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(files[1].read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def settings(params_below: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    return params_below(folder)


@pytest.fixture(scope="module", autouse=True)
def small_tables_are_sharded() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharded_tables, "MIN_ROWS", 1)
        yield


@pytest.fixture(scope="module")
def on_two(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What `everything` finds with two processes."""
    return task("everything", 2, settings, folder)


@pytest.fixture(scope="module")
def on_one(settings: dict[str, Any]) -> dict[str, Any]:
    """The runs on this process alone."""
    return {
        name: ranks.digits(experiment.run(ranks.experiment_of(settings, name, ranks.ON_ONE)))
        for name in ranks.RUNS
    }


def close(first: Any, other: Any) -> None:
    """Two results are equal up to float rounding."""
    rows = [[result, *result["history"]] for result in (first, other)]
    assert len(rows[0]) == len(rows[1])
    for row, same in zip(*rows, strict=True):
        assert row.keys() == same.keys()
        for name in row.keys() - {"history"}:
            exact = not isinstance(same[name], float)
            assert row[name] == (same[name] if exact else pytest.approx(same[name], 1e-4, 1e-5))


# ------------------------------------------------------------------- two processes


@pytest.mark.parametrize("case", ranks.GRADIENTS)
def test_the_gradient_of_shares_is_that_of_the_whole_batch(on_two, case):
    found = on_two["gradients"][case]
    loss, own = found.pop("losses")
    assert own == pytest.approx(loss, rel=1e-5)
    for ratio, cosine in found.values():
        assert ratio == pytest.approx(1, abs=1e-4)
        assert cosine == pytest.approx(1, abs=1e-5)


def test_negatives_without_their_gradient_would_be_seen(on_two):
    ratio, cosine = on_two["without_gradient"]["_self_supervision"]
    assert abs(ratio - 1) > 0.01 or cosine < 0.99
    ratio, cosine = on_two["without_gradient"]["embedding_layer"]
    assert abs(ratio - 1) > 0.01 or cosine < 0.99


def test_a_spread_table_is_a_whole_one_of_which_each_process_holds_its_rows(on_two):
    first, second = on_two["table"]
    assert np.allclose(first["rows"] + second["rows"], first["weights"][1], atol=1e-6)
    assert (len(first["rows"]), len(second["rows"])) == (6, 5)
    for found in (first, second):
        for name in ("values", "gradients", "weights"):
            assert np.allclose(*map(np.array, found[name]), atol=1e-6), name
        assert not any(found["gradients"][0][0])  # of padding
        assert found["moments"] == len(found["rows"])


def test_metrics_are_those_of_one_process(on_two):
    alone, *others = on_two["metrics"]
    for together in others:
        assert together == pytest.approx(alone, rel=0, abs=1e-9)


@pytest.mark.parametrize("name", ranks.RUNS)
def test_a_run_does_not_depend_on_the_number_of_processes(on_one, on_two, name):
    close(on_two["runs"][name], on_one[name])


@pytest.mark.parametrize("name", ranks.RESUMED)
def test_a_run_killed_on_two_processes_resumes_on_one(on_one, on_two, settings, folder, name):
    copied = folder / "resumed" / name
    shutil.copytree(folder / "checkpoints" / "killed", copied)
    changed = ranks.experiment_of(settings, name, "") | {"model_root": str(copied)}
    close(ranks.digits(experiment.run(changed, resume=True)), on_one[name])


def test_a_models_dropout_differs_by_process_and_is_the_same_in_a_second_run(on_two):
    found = on_two["dropout"]
    assert found["results"][0] == found["results"][1]
    assert found["draws"][0] != found["draws"][1]
    assert found["weights"][0] == found["weights"][1]  # all processes hold the same model


def test_an_error_of_rank_0_is_one_of_all_and_a_foreign_loader_is_refused(on_two):
    said = on_two["refused"]
    assert said[0] == "Only rank 0 looked."
    assert "TensorDataLoader" in said[1]


@pytest.mark.parametrize(
    ("how", "says"), [("killed", "Another process of this run has ended"),
                      ("fails", "Rank 1 has had enough.")]
)  # fmt: skip
def test_a_process_that_ends_takes_the_others_along_with_one_message(settings, folder, how, says):
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    script = ROOT / "tests" / "distributed" / "ranks.py"
    done = torchrun(2, script, how, folder / "params.yaml", folder / "none", cwd=folder)
    after = time.time() - float((folder / f"{how}_at").read_text())
    assert after < 60  # seconds, most of them to leave two interpreters
    ours = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0
    assert len(ours) <= 1
    assert ours == [] or says in ours[0]  # torchrun may end the other before it can say so
    if how == "fails":
        assert len(ours) == 1
    for room in ("fuxictr_miss", "tests"):  # torchrun's own report ends in a traceback of its own
        assert f'File "{ROOT / room}' not in done.stderr


# ------------------------------------------------------------------- slow ones


@pytest.mark.slow
def test_four_processes_train_and_resume_as_one_does(on_one, on_two, settings, folder):
    assert on_two
    found = task("runs", 4, settings, folder)
    for name in ranks.RUNS:
        close(found[name], on_one[name])
    for name in ranks.RESUMED:
        close(found[f"{name}, resumed"], on_one[name])


@pytest.mark.slow
def test_the_command_writes_one_log_one_row_and_one_line(settings, folder):
    config = folder / "config"
    config.mkdir()
    (config / "dataset_config.yaml").write_text(yaml.safe_dump({"small": {}}))
    entry = {**settings, "model": "DIN_MISS", "epochs": 1, "ssl_recipe": "paper"}
    entry |= {"ssl_training": "joint"}
    entry.pop("model_id")
    (config / "model_config.yaml").write_text(yaml.safe_dump({"E": entry}))
    words = [ROOT / "run_expid.py", "--config", config, "--expid", "E"]
    done = torchrun(2, *words, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line[:6] for line in done.stdout.splitlines()] == ["[valid", "[test]"]
    assert len(pl.read_csv(folder / "config.csv")) == 1
    assert done.stderr.count("joint epoch 1") == 1
    unknown = torchrun(2, *words[:-1], "F", cwd=folder)
    assert unknown.returncode != 0
    assert unknown.stderr.count("error: ") == 1


# ------------------------------------------------------------------- without processes


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend to be one of several processes."""

    def set_to(rank: int, size: int) -> None:
        monkeypatch.setattr(processes, "_world", processes._World(rank, size, None, None))

    return set_to


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("total", [8, 9, 31, 128, 1000])
@pytest.mark.parametrize("block", [None, 1, 8, 128])
def test_shares_hold_every_row_once_and_whole_blocks_if_there_are_enough(world, size, total, block):
    shares = []
    for rank in range(size):
        world(rank, size)
        shares.append(processes.share_of(total, block))
    rows = [row for share in shares for row in range(total)[share.own]]
    assert rows == list(range(total))
    assert all(share.rows for share in shares)
    blocks = -(-total // (block or total))
    if blocks >= size:
        assert all(share.own.start % -(-total // blocks) == 0 for share in shares)


def test_a_batch_of_less_than_two_rows_a_process_is_computed_by_each(world):
    world(1, 4)
    assert processes.share_of(7) is None
    assert processes.fraction() == 1 / 4


def test_without_torchrun_there_is_one_process_and_nothing_is_shared():
    x = torch.ones(2)
    with processes.session(0) as gpu:
        assert gpu == 0
    assert processes.world_size() == 1
    assert processes.rank() == 0
    assert processes.share_of(100) is None
    assert processes.weighted(x) is x
    assert processes.mean(x) is x
    assert processes.total(x) is x
    assert processes.first(lambda: 7) == 7
    compute = torch.sum
    assert processes.synchronised(compute, []) is compute


@pytest.mark.parametrize("times", [1, 3])
def test_a_rows_draws_are_those_of_one_process(times):
    edges, shape = (0, 3, 4, 9), (times, 5)

    def draw(rows: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        size = (rows * shape[0], *shape[1:])
        return draws.numbers(size, generator, torch.device("cpu")).view(rows, *shape)

    parts = []
    for rank in range(3):
        share = processes.Share(edges, rank)
        with processes.sharing(share):
            parts.append(draw(share.rows))
    assert torch.equal(torch.cat(parts), draw(9))


def test_the_shares_of_a_loader_are_its_batches(params):
    def batches(rank: int) -> list[dict[str, torch.Tensor]]:
        _, loaders = experiment.build(params)

        def share_of(rows: int) -> processes.Share:
            return processes.Share((0, rows // 3, rows), rank)

        return [batch for batch, _ in loaders["train"].shares(share_of)]

    _, loaders = experiment.build(params)
    for whole, first, second in zip(loaders["train"], batches(0), batches(1), strict=True):
        for name, column in whole.items():
            assert torch.equal(torch.cat([first[name], second[name]]), column)
