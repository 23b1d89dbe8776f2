"""The data sets of FuxiCTR's benchmark: only the published bytes are used, and users held out."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import h5py
import polars as pl
import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess import bars, bars_sample
from fuxictr_miss.preprocess.bars import DATASETS, write_splits
from fuxictr_miss.preprocess.bars_sample import write_sample

COLUMNS = {  # as reczoo/Datasets' own scripts write them
    "amazonelectronics_x1": "label,user_id,item_id,cate_id,item_history,cate_history",
    "taobaoad_x1": "clk,btag_his,cate_his,brand_his,userid,cms_segid,cms_group_id,"
    "final_gender_code,age_level,pvalue_level,shopping_level,occupation,new_user_class_level,"
    "adgroup_id,cate_id,campaign_id,customer,brand,price,pid,btag",
    "kuaivideo_x1": "timestamp,user_id,item_id,is_click,is_like,is_follow,pos_items,neg_items",
    "microvideo1.7m_x1": "user_id,item_id,cate_id,is_click,timestamp,clicked_items,"
    "clicked_categories",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for dataset in DATASETS:
        write_sample(dataset, folder)
    return folder


def home(raw: Path, dataset: str) -> Path:
    return raw / DATASETS[dataset].name


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_sample_has_the_published_columns_and_a_few_thousand_rows(raw, dataset):
    for part, least in (("train", 2000), ("test", 200)):
        file = home(raw, dataset) / f"{part}.csv"
        header, *rows = file.read_text().splitlines()
        assert header == COLUMNS[dataset]
        assert least <= len(rows) < 4000
        assert '"' not in file.read_text()


@pytest.mark.parametrize("dataset", ["kuaivideo_x1", "microvideo1.7m_x1"])
def test_every_video_of_a_sample_has_a_vector(raw, dataset):
    folder = home(raw, dataset)
    with h5py.File(folder / DATASETS[dataset].vectors) as file:
        keys = file["key"][:]
        assert file["value"].shape == (len(keys), 64)
    items = {
        part: set(pl.read_csv(folder / f"{part}.csv")["item_id"]) for part in ("train", "test")
    }
    assert items["train"] | items["test"] <= set(keys.tolist())
    if dataset == "microvideo1.7m_x1":  # its published test split has new videos only
        assert items["train"].isdisjoint(items["test"])


def test_the_same_seed_gives_the_same_rows(raw, tmp_path):
    again = write_sample("kuaivideo_x1", tmp_path)
    first = home(raw, "kuaivideo_x1")
    assert (again / "train.csv").read_bytes() == (first / "train.csv").read_bytes()
    other = write_sample("kuaivideo_x1", tmp_path, seed=8)
    assert (other / "train.csv").read_bytes() != (first / "train.csv").read_bytes()


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_twentieth_of_the_training_users_is_held_out_whole(raw, dataset, tmp_path):
    rows = write_splits(dataset, home(raw, dataset), tmp_path / "splits")
    user = DATASETS[dataset].user
    kept, held_out, test = (pl.read_parquet(tmp_path / "splits" / name) for name in rows)
    assert list(rows.values()) == [len(kept), len(held_out), len(test)]
    users = set(kept[user]), set(held_out[user])
    assert users[0].isdisjoint(users[1])
    assert len(users[1]) == round(0.05 * (len(users[0]) + len(users[1])))
    source = pl.read_csv(home(raw, dataset) / "train.csv", infer_schema=False)
    together = pl.concat([kept, held_out]).drop(DATASETS[dataset].numbers)
    assert together.sort(pl.all()).equals(source.drop(DATASETS[dataset].numbers).sort(pl.all()))
    for name in DATASETS[dataset].numbers:
        assert kept[name].dtype == pl.Float64


def test_the_training_folder_is_all_of_the_published_rows(raw, tmp_path):
    rows = write_splits("taobaoad_x1", home(raw, "taobaoad_x1"), tmp_path)
    both = pl.read_parquet(tmp_path / "train")
    assert len(both) == rows["train/kept.parquet"] + rows["train/held_out.parquet"]


def test_other_bytes_than_the_published_ones_are_refused(raw, tmp_path):
    folder = tmp_path / "KuaiVideo_x1"
    folder.mkdir()
    for name in (*DATASETS["kuaivideo_x1"].md5, DATASETS["kuaivideo_x1"].vectors):
        (folder / name).write_bytes((home(raw, "kuaivideo_x1") / name).read_bytes())
    says = r"train.csv has the md5 sum \w{32}, which is not the published file's, 16f13734"
    with pytest.raises(InputError, match=says):
        write_splits("kuaivideo_x1", folder, tmp_path / "splits")
    assert not (tmp_path / "splits").exists()


def test_a_sample_that_has_changed_is_refused(tmp_path):
    folder = write_sample("amazonelectronics_x1", tmp_path)
    with open(folder / "test.csv", "a") as file:
        file.write("1,1,1,1,1,1\n")
    with pytest.raises(InputError, match=r"test.csv has the md5 sum .* not what .*sample.json"):
        write_splits("amazonelectronics_x1", folder, tmp_path / "splits")


@pytest.mark.parametrize("name", ["train.csv", "item_image_emb_dim64.h5"])
def test_a_missing_file_is_answered_with_where_it_is_to_be_had(raw, name, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for file in home(raw, "microvideo1.7m_x1").iterdir():
        if file.name != name:
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError) as error:
        write_splits("microvideo1.7m_x1", folder, tmp_path / "splits")
    assert f"{name} is not there: fetch MicroVideo1.7M_x1 from https://hugg" in str(error.value)


def test_a_file_of_somebody_else_stays(raw, tmp_path):
    (tmp_path / "test.parquet").write_text("mine")
    with pytest.raises(InputError, match="it may be yours"):
        write_splits("taobaoad_x1", home(raw, "taobaoad_x1"), tmp_path)
    assert (tmp_path / "test.parquet").read_text() == "mine"


def command(module, *arguments: str) -> None:
    with mock.patch("sys.argv", ["bars.py", *arguments]):
        module.main()


def test_a_sample_never_gets_the_name_of_the_published_data(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command(bars_sample)
    command(bars, "--sample", "--dataset", "taobaoad_x1")
    command(bars, "--raw", str(home(raw, "kuaivideo_x1")), "--dataset", "kuaivideo_x1")
    made = sorted(path.name for path in Path("data/splits/bars").iterdir())
    assert made == ["kuaivideo_x1_sample", "taobaoad_x1_sample"]
    about = json.loads(Path("data/splits/bars/taobaoad_x1_sample/bars.json").read_text())
    assert about["dataset"] == "TaobaoAd_x1"
    assert "train/kept.parquet: " in capsys.readouterr().out


def test_an_unknown_data_set_is_answered_with_the_closest(tmp_path):
    with pytest.raises(InputError, match=r"Did you mean 'kuaivideo_x1'\?"):
        command(bars, "--dataset", "kuaivideo")
