"""One line from a log to a config: what it writes, what it keeps, and that training follows."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fuxictr_miss import experiment
from fuxictr_miss.config import list_datasets, list_expids, load_config
from fuxictr_miss.preprocess import interactions, own_config

ROOT = Path(__file__).parents[2]
EXPIDS = ["DIN_MISS_mine", "DIN_PPMI_mine", "DIN_mine", "PNN_MISS_mine", "PNN_PPMI_mine",
          "PNN_mine"]  # fmt: skip
LOG = ("--input", "log.csv", "--user", "u", "--item", "i", "--time", "t")
FILES = ("dataset_config.yaml", "model_config.yaml")


@pytest.fixture
def write(tmp_path, monkeypatch, run):
    """write(*options): the command in an empty folder with a log; its end."""
    monkeypatch.chdir(tmp_path)
    rows = [f"u{u},i{(u * 3 + t * t) % 12},{t},c{u % 2},{(u + t) % 3},{t * 1.5}" for u in range(30)
            for t in range(9)]  # fmt: skip
    Path("log.csv").write_text("\n".join(["u,i,t,cate_id,stars,price", *rows]))
    return lambda *options: run(interactions, *LOG, *options)


def texts(folder: str) -> list[str]:
    return [Path(folder, name).read_text() for name in FILES]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_line_writes_splits_and_a_config_of_every_model(write, tmp_path):
    ended = write("--name", "mine", "--attributes", "cate_id", "--max-len", 7)
    assert ended.code == 0, ended.err
    assert left(tmp_path) == ["config_mine", "data", "log.csv"]
    assert list_expids("config_mine") == EXPIDS
    assert list_datasets("config_mine") == ["mine"]
    for expid in EXPIDS:
        config = load_config("config_mine", expid)
        recipe = "recommended" if expid.count("_") == 2 else None
        assert config.params.get("ssl_recipe") == recipe
        assert Path(config.train_data).is_file()
        assert [each["max_len"] for each in config.feature_cols if "max_len" in each] == [7, 7]
        assert config.params["din_sequence_field"] == [["item_history", "cate_history"]]


def test_the_next_command_trains_as_printed(write):
    ended = write("--name", "mine")
    (command,) = [line for line in ended.out.splitlines() if "--expid" in line]
    command += " --set epochs=1 --set ssl_pretrain_epochs=1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "[test] AUC" in done.stdout


def test_every_model_trains_on_impressions_with_context(write):
    ended = write("--name", "mine", "--positive", "stars >= 1", "--context", "price,cate_id")
    assert ended.code == 0, ended.err
    columns = {each["name"]: each for each in load_config("config_mine", EXPIDS[0]).feature_cols}
    assert columns["price"]["type"] == "numeric"
    assert columns["price"]["normalizer"] == "StandardScaler"
    assert "fill_na" not in columns["price"]
    assert columns["cate_id"]["type"] == "categorical"
    for expid in ("DIN_mine", "PNN_MISS_mine"):
        sets = ["epochs=1", "ssl_pretrain_epochs=1", "ssl_thaw=False"]
        assert experiment.run(load_config("config_mine", expid).override(sets, 1))["test_AUC"] >= 0


def test_a_missing_number_becomes_the_median_of_the_training_rows(write):
    text = Path("log.csv").read_text()
    Path("log.csv").write_text(text.replace(",3.0\n", ",\n"))
    assert write("--name", "mine", "--positive", "stars >= 1", "--context", "price").code == 0
    columns = {each["name"]: each for each in load_config("config_mine", EXPIDS[0]).feature_cols}
    assert columns["price"]["fill_na"] == 6.0  # of 0, 1.5, 4.5, 6, 7.5, .. in the oldest rows


def test_the_models_are_those_of_the_config_that_is_measured(write):
    write("--name", "mine", "--attributes", "cate_id")
    for expid in EXPIDS:
        ours = load_config("config_mine", expid).params
        measured = load_config(str(ROOT / "config"), expid.replace("mine", "amazonbeauty")).params
        for key in set(ours) - {"model_id", "dataset_id", "model_root", "data_root", "vocab_data",
                                "train_data", "valid_data", "test_data", "feature_cols",
                                "reduce_lr_on_plateau"}:  # fmt: skip
            assert ours[key] == measured[key], (expid, key)


@pytest.mark.parametrize("name", ["2024", "no", "a-b_c", "Base", "x" * 100])
def test_a_name_that_yaml_would_read_as_something_else_stays_a_name(write, name):
    ended = write("--name", name)
    assert ended.code == 0, ended.err
    assert load_config(f"config_{name}", f"DIN_MISS_{name}").dataset_id == name
    plain = yaml.safe_load(Path(f"config_{name}", FILES[1]).read_text())  # as FuxiCTR reads it
    assert plain[f"DIN_{name}"]["dataset_id"] == name


def test_entries_of_others_stay_with_their_comments(write):
    Path("mine").mkdir()
    theirs = ["# data\r\nother: {data_root: d/, train_data: x}  # ours\n",
              "Base: {seed: 5}  # for all\nDIN_other: {model: DIN, dataset_id: other}"]  # fmt: skip
    for name, text in zip(FILES, theirs, strict=True):
        Path("mine", name).write_bytes(text.encode())
    for max_len in (5, 6):  # the second run replaces the entries of the first
        ended = write("--name", "mine", "--config-folder", "mine", "--max-len", max_len)
        assert ended.code == 0, ended.err
        for name, text in zip(FILES, theirs, strict=True):
            assert Path("mine", name).read_bytes().startswith(text.encode())
            assert Path("mine", name).read_text().count("# --- mine") == 1
        assert load_config("mine", "DIN_mine").feature_cols[-1]["max_len"] == max_len
    assert list_expids("mine") == sorted([*EXPIDS, "DIN_other"])
    once = texts("mine")
    write("--name", "mine", "--config-folder", "mine", "--max-len", 6)
    assert texts("mine") == once


def test_two_logs_share_a_folder_and_what_stands_below_stays(write):
    assert write("--name", "mine", "--config-folder", "all").code == 0
    assert write("--name", "second", "--config-folder", "all").code == 0
    with Path("all", FILES[1]).open("a") as file:
        file.write("DIN_wide: {<<: *DIN_mine, embedding_dim: 64}\n")
    assert write("--name", "mine", "--config-folder", "all", "--attributes", "cate_id").code == 0
    assert load_config("all", "DIN_wide").feature_names[2] == "cate_id"
    assert load_config("all", "DIN_second").dataset_id == "second"


def test_a_config_of_folders_gets_files_of_its_own(write):
    for kind in ("dataset_config", "model_config"):
        Path("mine", kind).mkdir(parents=True)
    assert write("--name", "mine", "--config-folder", "mine").code == 0
    assert write("--name", "mine", "--config-folder", "mine").code == 0
    made = sorted(str(path) for path in Path("mine").glob("*/*"))
    assert made == ["mine/dataset_config/mine.yaml", "mine/model_config/mine.yaml"]
    assert list_expids("mine") == EXPIDS


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (FILES[0], "mine: {data_root: d/}\n", "line 1: there is an entry mine already"),
        (FILES[1], "a: {}\nPNN_mine: {model: X}\n", "line 2: there is an entry PNN_mine already"),
        (FILES[1], "{DIN_other: {model: DIN}}\n", "cannot be added. With them, config_mine/model"),
        (FILES[1], "a: &mine {b: 1}\n", "cannot be added. With them, config_mine/model_config.y"),
        (FILES[1], "a: |+\n  text\n", "model_config.yaml ends in the middle of a value"),
        (FILES[1], "Base: {num_workers: -1}\n", "num_workers must be"),
        (FILES[1], "a: [1,\n", "is not valid YAML"),
        (FILES[1], "Base: {seed: -1, epochs: 0}\n_mine: {}\n", "there is an entry _mine already"),
    ],
)
def test_a_file_that_cannot_take_the_entries_is_refused_before_the_log_is_read(
    write, tmp_path, file, text, says
):
    Path("config_mine").mkdir()
    Path("config_mine", file).write_text(text)
    Path("log.csv").write_text("no log")
    ended = write("--name", "mine")
    assert ended.code == 2
    assert says in ended.err
    assert str(Path("config_mine", file)) in ended.err
    assert ended.err.count("\n") == 1
    assert Path("config_mine", file).read_text() == text
    assert left(tmp_path / "config_mine") == [file]
    assert left(tmp_path) == ["config_mine", "log.csv"]


def test_entries_changed_by_hand_are_never_replaced(write):
    write("--name", "mine")
    for name in FILES:
        before = texts("config_mine")
        path = Path("config_mine", name)
        path.write_text(path.read_text().replace("# --- end", "  # mine\n# --- end"))
        changed = texts("config_mine")
        ended = write("--name", "mine", "--max-len", 3)
        assert ended.code == 2
        assert f"{path}: the entries for mine have been changed since" in ended.err
        assert texts("config_mine") == changed
        path.write_text(before[FILES.index(name)])
    assert write("--name", "mine", "--max-len", 3).code == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--name", "../mine"], "--name '../mine' must be"),
        (["--name", ""], "--name '' must be"),
        (["--name", "_mine"], "--name '_mine' must be"),
        (["--name", "x" * 101], "must be at most 100 letters"),
        (["--name", "mine", "--config-folder", "log.csv"], "log.csv is a file"),
        (["--config-folder", "here", "--output", "out"], "--config-folder needs --name"),
        ([], "Give --name"),
        (["--name", "mine", "--attributes", "type"], "Feature 'type' has the name of a part"),
        (["--name", "mine", "--label", "stars", "--context", "a.b"], "Feature 'a.b' has a dot"),
    ],
)
def test_what_no_config_can_have_is_refused_before_the_log_is_read(write, tmp_path, options, says):
    Path("log.csv").write_text("no log")
    ended = write(*options)
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert left(tmp_path) == ["log.csv"]


def test_a_disk_that_is_full_leaves_no_half_of_a_config(write, monkeypatch):
    def full(self: Path, data: bytes) -> int:
        if self.name.startswith(".model_config"):
            raise OSError(28, "No space left on device")
        return real(self, data)

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full)
    ended = write("--name", "mine")
    assert ended.code == 2
    assert "Cannot write config_mine/model_config.yaml (No space left on device)" in ended.err
    assert list(Path("config_mine").iterdir()) == []


def test_training_is_started_as_preprocessing_was(monkeypatch):
    here = Path(sys.executable).parent
    monkeypatch.setattr(sys, "argv", ["data_preprocess/interactions.py"])
    monkeypatch.setattr(shutil, "which", lambda name: str(here / name))
    assert own_config._train() == "python run_expid.py"
    monkeypatch.setattr(sys, "argv", ["fuxictr-miss preprocess interactions"])
    assert own_config._train() == "fuxictr-miss train"
    monkeypatch.setattr(shutil, "which", lambda name: f"/another/bin/{name}")
    assert own_config._train() == f"{shlex.quote(sys.executable)} -m fuxictr_miss train"


def test_a_folder_with_a_space_is_quoted_in_the_command(write):
    ended = write("--name", "mine", "--config-folder", "my config")
    assert "--config 'my config' --expid DIN_MISS_mine" in ended.out
