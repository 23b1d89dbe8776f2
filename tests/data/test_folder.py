"""The folder of encoded data: only files that we wrote are ever replaced."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fuxictr_miss.data import build, build_dataset, folder
from fuxictr_miss.errors import InputError


def home(params: dict[str, Any]) -> Path:
    return Path(params["data_root"]) / params["dataset_id"]


def content(place: Path) -> dict[str, bytes]:
    files = [file for file in place.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {str(file.relative_to(place)): file.read_bytes() for file in files}


def changed(params: dict[str, Any]) -> dict[str, Any]:
    """The same data set under a setting that encodes it anew."""
    return {**params, "vocab_scope": "train"}


STRANGERS = ["notes.txt", "train.csv", "items.parquet", "train/part-000000.parquet", ".hidden"]


def test_files_of_others_beside_inside_and_above_stay_untouched(params, tmp_path):
    places = [home(params), home(params).parent, home(params) / "deep" / "er"]
    for place in places:
        for name in STRANGERS:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(f"mine: {name}")
    before = content(tmp_path)
    for each in (params, changed(params), {**params, "test_data": None}):
        build_dataset(each)
        after = content(tmp_path)
        assert {name: after[name] for name in before} == before
    assert not (home(params) / "test.parquet").exists()  # ours, and no split any more


@pytest.mark.parametrize("layout", ["csv", "parquet"])
def test_raw_splits_in_the_folder_survive_as_in_fuxictrs_examples(
    params, splits, tmp_path, monkeypatch, layout
):
    """data_root: ./data/, train_data: ./data/small/train.csv"""
    monkeypatch.chdir(tmp_path)
    raw = Path("data/small")
    raw.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        rows = pl.read_parquet(splits / f"{split}.parquet")
        (rows.write_csv if layout == "csv" else rows.write_parquet)(raw / f"{split}.{layout}")
        params[f"{split}_data"] = f"./data/small/{split}.{layout}"
    params.update(data_root="./data/", data_format=layout)
    before = content(Path("data"))
    if layout == "csv":
        build_dataset(params)
        build_dataset(changed(params))
        after = content(Path("data"))
        assert {name: after[name] for name in before} == before
    else:
        with pytest.raises(InputError, match=r"train.parquet is read.*another data_root"):
            build_dataset(params)
        assert content(Path("data")) == before
        assert not list(Path("data").glob(".*"))


def test_a_file_of_ours_that_would_go_is_no_input(params):
    build_dataset(params)
    items = home(params) / "test.parquet"
    with pytest.raises(InputError, match="is read, and the encoded data"):
        build_dataset({**params, "test_data": None, "vocab_data": str(items)})
    assert items.exists()


@pytest.mark.parametrize("how", ["link", "hard link", "folder link", "other spelling"])
def test_an_input_is_known_under_every_name_of_it(params, splits, tmp_path, how):
    home(params).mkdir(parents=True)
    target, source = home(params) / "train.parquet", splits / "train.parquet"
    if how == "hard link":
        copy = shutil.copy(source, tmp_path / "raw.parquet")
        os.link(copy, target)
        params["train_data"] = str(copy)
    else:
        shutil.copy(source, target)
        link = tmp_path / "link"
        if how == "link":
            link = tmp_path / "raw.parquet"
            link.symlink_to(target)
            params["train_data"] = str(link)
        elif how == "folder link":
            link.symlink_to(home(params), target_is_directory=True)
            params["train_data"] = str(link / "train.parquet")
        else:
            params["train_data"] = f"{home(params)}/../small/./train.parquet"
    before = content(tmp_path)
    with pytest.raises(InputError, match="is read, and the encoded data"):
        build_dataset(params)
    assert content(tmp_path) == before


def test_a_linked_folder_is_built_where_it_is(params, tmp_path):
    real = tmp_path / "disk" / "real"
    real.mkdir(parents=True)
    home(params).parent.mkdir(parents=True)
    home(params).symlink_to(real, target_is_directory=True)
    build_dataset(params)
    build_dataset(changed(params))
    assert home(params).is_symlink()
    assert (real / "train.parquet").exists()


@pytest.mark.parametrize(
    "name",
    ["feature_vocab.json", "feature_processor.pkl", "valid.parquet", "build.json"],
)
def test_what_somebody_else_encoded_is_refused(params, tmp_path, name):
    home(params).mkdir(parents=True)
    (home(params) / name).write_text('{"dataset_id": "small"}')
    before = content(tmp_path)
    with pytest.raises(InputError, match=rf"{name} was not written by.*data_root or dataset_id"):
        build_dataset(params)
    assert content(tmp_path) == before
    assert not list(home(params).parent.glob(".*"))


@pytest.mark.parametrize("name", ["train.parquet", "feature_map.json", "feature_processor.pkl"])
@pytest.mark.parametrize("how", ["content", "link"])
def test_a_file_of_ours_that_somebody_changed_is_refused(params, tmp_path, name, how):
    build_dataset(params)
    file = home(params) / name
    if how == "content":
        file.write_bytes(b"x" * file.stat().st_size)
    else:
        file.rename(tmp_path / name)
        file.symlink_to(tmp_path / name)
    before = content(tmp_path)
    for each in (changed(params), *([params] if how == "content" else [])):
        with pytest.raises(InputError, match=rf"{name} was changed since"):
            build_dataset(each)
    assert content(tmp_path) == before


def test_a_missing_file_of_ours_is_built_again(params):
    build_dataset(params)
    (home(params) / "valid.parquet").unlink()
    build_dataset(params)
    assert (home(params) / "valid.parquet").exists()


def test_a_copied_folder_is_up_to_date_whatever_its_times(params, tmp_path):
    build_dataset(params)
    shutil.copytree(home(params), tmp_path / "moved" / "small", copy_function=shutil.copyfile)
    params["data_root"] = str(tmp_path / "moved")
    times = {file.name: file.stat().st_mtime_ns for file in home(params).iterdir()}
    build_dataset(params)
    del times["build.json"]
    assert {n: (home(params) / n).stat().st_mtime_ns for n in times} == times


def test_data_of_an_earlier_version_is_ours_and_built_again(params):
    """Its stamp lists no files."""
    build_dataset(params)
    stamp = json.loads((home(params) / "build.json").read_text())
    old = {key: stamp[key] for key in ("fuxictr", "settings", "content", "files")}
    (home(params) / "build.json").write_text(json.dumps(old))
    (home(params) / "notes.txt").write_text("mine")
    build_dataset(params)
    new = json.loads((home(params) / "build.json").read_text())
    assert new["content"] == old["content"]
    assert set(new["written"]) == {
        "feature_map.json", "feature_vocab.json", "feature_processor.pkl",
        "train.parquet", "valid.parquet", "test.parquet",
    }  # fmt: skip
    assert (home(params) / "notes.txt").read_text() == "mine"


class Killed(BaseException):
    pass


def test_a_build_killed_at_any_write_leaves_data_that_the_next_one_completes(
    params, tmp_path, monkeypatch
):
    """Killed before each rename, each removal and each stamp, with a stranger's file inside."""
    build_dataset({**params, "test_data": None})
    (home(params) / "notes.txt").write_text("mine")
    template = shutil.copytree(home(params).parent, tmp_path / "template")
    build_dataset(params)
    whole = content(home(params))
    for step in range(100):
        shutil.rmtree(home(params).parent)
        shutil.copytree(template, home(params).parent)
        steps = iter(range(step))

        def replace(source: Any, target: Any, steps: Any = steps, real: Any = os.replace) -> None:
            if next(steps, None) is None:
                raise Killed
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(folder.os, "replace", replace)
            patch.setattr(folder, "clear", lambda building: None)  # a killed process does not
            patch.setattr(build.folder, "begin", _begin)
            try:
                build_dataset(params)
            except Killed:
                finished = False
            else:
                finished = True
        if not finished:
            build_dataset(params)
        after = content(home(params))
        assert after.keys() == whole.keys()
        assert all(after[name] == whole[name] for name in whole if name != "build.json")
        assert not finished or step >= 8
        if finished:
            return
        assert not home(params).with_name(".small.building").exists()
    raise AssertionError("no build was finished")


def _begin(building: Path, names: list[str]) -> None:
    building.mkdir(parents=True)
    (building / ".fuxictr_miss.json").write_text(json.dumps(names))


def test_the_folder_of_a_killed_build_is_cleared_only_of_our_files(params):
    building = home(params).with_name(".small.building")
    folder.begin(building, ["train.parquet"])
    (building / "train.parquet").write_bytes(b"half")
    build_dataset(params)
    assert not building.exists()
    folder.begin(building, ["train.parquet"])
    (building / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"small.building is in the way"):
        build_dataset(changed(params))
    assert (building / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["full", "file", "link"])
def test_a_strangers_folder_under_the_name_of_ours_is_refused(params, tmp_path, kind):
    building = home(params).with_name(".small.building")
    building.parent.mkdir(parents=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    if kind == "full":
        shutil.copytree(other, building)
    elif kind == "file":
        building.write_text("mine")
    else:
        building.symlink_to(other, target_is_directory=True)
    before = content(tmp_path)
    with pytest.raises(InputError, match="is in the way"):
        build_dataset(params)
    assert content(tmp_path) == before


def test_an_empty_folder_of_a_build_killed_at_once_is_no_obstacle(params):
    home(params).with_name(".small.building").mkdir(parents=True)
    build_dataset(params)


def test_a_file_in_the_place_of_the_folder_is_refused(params):
    home(params).parent.mkdir(parents=True)
    home(params).write_text("mine")
    with pytest.raises(InputError, match="is no folder"):
        build_dataset(params)
    assert home(params).read_text() == "mine"


def test_mapped_columns_of_replaced_data_go_and_a_strangers_file_of_that_name_stays(params):
    from fuxictr_miss.data.tensors import open_columns

    train, valid, _ = build_dataset(params)
    open_columns([train], ["user_id"], 0)
    other = Path(str(valid)).with_suffix(".columns")
    other.write_text("mine")
    build_dataset(changed(params))
    assert not Path(train).with_suffix(".columns").exists()
    assert other.read_text() == "mine"
