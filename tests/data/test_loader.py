"""Batches: every row once, reproducible, trimmed only where nothing is lost."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import torch
from fuxictr.features import FeatureMap

from fuxictr_miss.data import TensorDataLoader, build_dataset
from fuxictr_miss.errors import InputError


@pytest.fixture
def feature_map(params) -> Any:
    build_dataset(params)
    folder = f"{params['data_root']}/small"
    feature_map = FeatureMap("small", folder)
    feature_map.load(f"{folder}/feature_map.json", params)
    return feature_map


def loader(feature_map: Any, **options: Any) -> TensorDataLoader:
    path = f"{feature_map.data_dir}/train.parquet"
    return TensorDataLoader(feature_map, path, **{"batch_size": 16, **options})


def rows_of(batches: Any) -> list[tuple[Any, ...]]:
    return [
        (int(user), int(item), float(label), tuple(i for i in history.tolist() if i))
        for batch in batches
        for user, item, label, history in zip(
            batch["user_id"], batch["item_id"], batch["label"], batch["item_history"], strict=True
        )
    ]


@pytest.mark.parametrize("batch_size", [1, 7, 16, 179, 180, 1000])
def test_an_epoch_has_every_row_once_and_the_announced_number_of_batches(feature_map, batch_size):
    data = loader(feature_map, batch_size=batch_size, shuffle=True, seed=1)
    batches = list(data)
    assert len(batches) == len(data) == -(-data.num_samples // batch_size)
    assert sorted(rows_of(batches)) == sorted(rows_of(loader(feature_map)))


def test_without_shuffling_rows_come_as_in_the_file(feature_map):
    table = pl.read_parquet(f"{feature_map.data_dir}/train.parquet")
    rows = rows_of(loader(feature_map))
    assert [row[0] for row in rows] == table["user_id"].to_list()


@pytest.mark.parametrize("split", ["valid", "test"])
def test_only_the_training_split_is_shuffled(feature_map, split):
    assert rows_of(loader(feature_map, split=split, shuffle=True)) == rows_of(loader(feature_map))


def test_order_comes_from_the_seed_alone_and_differs_between_epochs(feature_map):
    first, second = (loader(feature_map, shuffle=True, seed=5) for _ in range(2))
    before = torch.get_rng_state()
    epochs = [rows_of(first), rows_of(first)]
    assert torch.equal(torch.get_rng_state(), before)
    assert [rows_of(second), rows_of(second)] == epochs
    assert epochs[0] != epochs[1]
    assert rows_of(loader(feature_map, shuffle=True, seed=6)) != epochs[0]


def test_a_restored_generator_repeats_the_order(feature_map):
    data = loader(feature_map, shuffle=True, seed=5)
    list(data)
    state = data.generator.get_state()
    expected = rows_of(data)
    other = loader(feature_map, shuffle=True, seed=0)
    other.generator.set_state(state)
    assert rows_of(other) == expected


@pytest.mark.parametrize("side", ["post", "pre"])
def test_trimming_cuts_to_the_longest_history_and_loses_nothing(feature_map, side):
    whole, trimmed = loader(feature_map), loader(feature_map, trim_history=True)
    if side == "pre":
        for data in (whole, trimmed):
            for name in ("item_history", "cate_history"):
                data.columns[name] = data.columns[name].flip(1)
    for full, cut in zip(whole, trimmed, strict=True):
        longest = int((full["item_history"] != 0).sum(dim=1).max())
        assert (
            cut["item_history"].shape == cut["cate_history"].shape == (len(full["label"]), longest)
        )
    assert rows_of(trimmed) == rows_of(whole)


def test_a_batch_of_empty_histories_keeps_one_position(feature_map):
    data = loader(feature_map, trim_history=True)
    for name in ("item_history", "cate_history"):
        data.columns[name] = torch.zeros_like(data.columns[name])
    assert next(iter(data))["item_history"].shape[1] == 1


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_sampling_keeps_a_seeded_share_of_the_training_rows_only(feature_map, rate):
    whole, part = loader(feature_map), loader(feature_map, train_sample_rate=rate, seed=1)
    assert part.num_samples == round(rate * whole.num_samples)
    assert set(rows_of(part)) <= set(rows_of(whole))
    assert rows_of(part) == rows_of(loader(feature_map, train_sample_rate=rate, seed=1))
    assert rows_of(part) != rows_of(loader(feature_map, train_sample_rate=rate, seed=2))
    valid = loader(feature_map, split="valid", train_sample_rate=rate)
    assert valid.num_samples == whole.num_samples


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2])
def test_noise_swaps_a_seeded_share_of_the_training_labels_only(feature_map, rate):
    clean = loader(feature_map).columns["label"]
    noisy = loader(feature_map, label_noise_rate=rate, seed=1).columns["label"]
    assert int((clean != noisy).sum()) == round(rate * len(clean))
    assert set(noisy.tolist()) == {0.0, 1.0}
    again = loader(feature_map, label_noise_rate=rate, seed=1).columns["label"]
    assert torch.equal(noisy, again)
    valid = loader(feature_map, split="valid", label_noise_rate=rate)
    assert torch.equal(valid.columns["label"], clean)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("train_sample_rate", 0), ("train_sample_rate", 1.1),
     ("label_noise_rate", -0.1), ("label_noise_rate", 1)],
)  # fmt: skip
def test_a_rate_outside_its_range_is_refused(feature_map, name, rate):
    with pytest.raises(InputError, match=name):
        loader(feature_map, **{name: rate})


def test_a_missing_file_is_named(feature_map):
    with pytest.raises(InputError, match="nowhere"):
        TensorDataLoader(feature_map, "nowhere/train.parquet")


def test_a_missing_column_is_named(feature_map):
    feature_map.features["price"] = {"type": "numeric"}
    with pytest.raises(InputError, match="'price'"):
        loader(feature_map)


def test_a_folder_of_parts_is_read_in_order(feature_map, tmp_path):
    table = pl.read_parquet(f"{feature_map.data_dir}/train.parquet")
    for part in range(3):
        table[part * 60 : part * 60 + 60].write_parquet(tmp_path / f"part-{part:06d}.parquet")
    data = TensorDataLoader(feature_map, str(tmp_path), batch_size=16)
    assert data.num_blocks == 3
    assert rows_of(data) == rows_of(loader(feature_map))


@pytest.mark.slow  # starts Ray
def test_fuxictrs_loader_reads_the_same_batches_and_takes_ours_by_its_hook(feature_map, params):
    from fuxictr.pytorch.dataloaders import RankDataLoader

    paths = dict(zip(("train_data", "valid_data", "test_data"), build_dataset(params), strict=True))
    options = {**params, **paths, "shuffle": False}
    theirs, valid, test = RankDataLoader(feature_map, stage="both", **options)
    ours = RankDataLoader(feature_map, stage="both", data_loader=TensorDataLoader, **options)
    for a, b in zip((theirs, valid, test), ours, strict=True):
        assert (len(a), a.num_samples) == (len(b), b.num_samples)
        assert rows_of(a) == rows_of(b)
