"""Batches: every row once, reproducible, trimmed only where nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from fuxictr.features import FeatureMap

from fuxictr_miss.adapt import padded
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


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_a_loader_of_some_rows_has_those_of_the_split_and_shares_its_order(feature_map, rate):
    whole = loader(feature_map, train_sample_rate=rate, shuffle=True, seed=1, trim_history=True)
    chosen = torch.arange(3, whole.num_samples, 4)
    part = whole.of_rows(chosen)
    every = rows_of(whole.batches())
    assert len(part) == -(-len(chosen) // 16)
    assert rows_of(part.batches()) == [every[place] for place in chosen.tolist()]
    assert rows_of(whole.batches()) == every
    state = whole.generator.get_state()
    shuffled = rows_of(part)
    assert sorted(shuffled) == sorted(rows_of(part.batches()))
    whole.generator.set_state(state)  # what a resumed run restores
    assert rows_of(part) == shuffled


@pytest.mark.parametrize("side", ["post", "pre"])
def test_trimming_cuts_to_the_longest_history_and_loses_nothing(feature_map, side):
    whole, trimmed = loader(feature_map), loader(feature_map, trim_history=True)
    if side == "pre":
        for data in (whole, trimmed):
            for name in ("item_history", "cate_history"):
                data.columns[name].copy_(data.columns[name].flip(1))
    for full, cut in zip(whole, trimmed, strict=True):
        longest = int((full["item_history"] != 0).sum(dim=1).max())
        assert (
            cut["item_history"].shape == cut["cate_history"].shape == (len(full["label"]), longest)
        )
    assert rows_of(trimmed) == rows_of(whole)


def test_a_batch_of_empty_histories_keeps_one_position(feature_map):
    data = loader(feature_map, trim_history=True)
    for name in ("item_history", "cate_history"):
        data.columns[name].zero_()
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0), ("batch_size", -1), ("batch_size", 1.5), ("batch_size", "16"),
        ("batch_size", True), ("seed", -1), ("seed", 2**32), ("seed", "1"),
        ("memory_budget_gb", -1), ("memory_budget_gb", "2"), ("memory_budget_gb", float("nan")),
        ("train_sample_rate", "0.5"), ("train_sample_rate", float("nan")),
        ("train_sample_rate", 0.001), ("label_noise_rate", None),
    ],
)  # fmt: skip
def test_a_value_that_no_loader_can_have_is_refused(feature_map, key, value):
    with pytest.raises(InputError, match=key):
        loader(feature_map, **{key: value})


def test_a_split_without_rows_is_refused(feature_map, tmp_path):
    table = pl.read_parquet(f"{feature_map.data_dir}/train.parquet")
    table[:0].write_parquet(tmp_path / "valid.parquet")
    with pytest.raises(InputError, match=r"valid.parquet holds no rows"):
        TensorDataLoader(feature_map, str(tmp_path / "valid.parquet"), split="valid")


def test_brackets_in_a_folders_name_are_no_pattern(feature_map, tmp_path):
    folder = tmp_path / "exp [1]"
    folder.mkdir()
    table = pl.read_parquet(f"{feature_map.data_dir}/train.parquet")
    table.write_parquet(folder / "train.parquet")
    for path in (folder, folder / "train.parquet"):
        for home in ({}, {"memory_budget_gb": 0}):
            data = TensorDataLoader(feature_map, str(path), batch_size=16, **home)
            assert rows_of(data) == rows_of(loader(feature_map))


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


def equal_batches(one: Any, other: Any) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(
        a.keys() == b.keys()
        and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)
        for a, b in pairs
    )


MAPPED: dict[str, Any] = {"memory_budget_gb": 0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": True, "trim_history": True},
        {"shuffle": True, "train_sample_rate": 0.3, "label_noise_rate": 0.2},
        {"split": "valid", "trim_history": True},
    ],
)
def test_columns_mapped_from_disk_give_the_batches_of_columns_in_memory(feature_map, options):
    memory, mapped = (loader(feature_map, seed=3, **options, **home) for home in ({}, MAPPED))
    assert equal_batches(memory, mapped)
    assert equal_batches(memory, mapped)  # the second epoch
    assert torch.equal(memory.column("item_history"), mapped.column("item_history"))


def to_the_right(columns: dict[str, torch.Tensor]) -> None:
    names = ["item_history", "cate_history"]
    columns.update(zip(names, padded([columns[n] for n in names], "pre"), strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2019])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 180, 1000])
@pytest.mark.parametrize("arrange", [None, to_the_right], ids=["as in the file", "to the right"])
def test_mapped_and_in_memory_loaders_yield_the_same_bits_in_the_same_order(
    feature_map, seed, batch_size, arrange
):
    for split, trim, multiple in (("train", True, 1), ("train", False, 1), ("valid", True, 8)):
        memory, mapped = (
            loader(
                feature_map, split=split, batch_size=batch_size, shuffle=True, seed=seed,
                trim_history=trim, train_sample_rate=0.8, label_noise_rate=0.1, arrange=arrange,
                **home,
            )
            for home in ({}, MAPPED)
        )  # fmt: skip
        for _ in range(2):  # epochs
            assert equal_batches(memory, mapped)
        if trim:
            orders = [data.by_length() for data in (memory, mapped)]
            assert torch.equal(*orders)
            parts = zip((memory, mapped), orders, strict=True)
            assert equal_batches(*(data.batches(order, multiple) for data, order in parts))
        for name in [*feature_map.features, "label"]:
            assert torch.equal(memory.column(name), mapped.column(name))


def test_histories_mapped_from_disk_are_arranged_in_each_batch(feature_map):
    options = {"trim_history": True, "arrange": to_the_right}
    memory, mapped = (loader(feature_map, **options, **home) for home in ({}, MAPPED))
    assert equal_batches(memory, mapped)
    assert all((batch["item_history"][:, -1] != 0).all() for batch in mapped)


def test_a_split_beyond_the_budget_is_mapped_and_the_log_says_so(feature_map, caplog):
    caplog.set_level("INFO")
    file = Path(feature_map.data_dir) / "train.columns"
    loader(feature_map, memory_budget_gb=1)
    assert not file.exists()
    assert "budget" not in caplog.text
    loader(feature_map, **MAPPED)
    assert file.exists()
    assert "more than the budget of 0.00 GB (memory_budget_gb)" in caplog.text
    assert {path.suffix for path in file.parent.iterdir()} <= {
        ".columns", ".json", ".lock", ".parquet", ".pkl"
    }  # fmt: skip


def test_the_mapped_file_is_made_anew_when_the_parquet_changes_and_only_then(feature_map):
    parquet = Path(feature_map.data_dir) / "train.parquet"
    file = parquet.with_suffix(".columns")
    loader(feature_map, **MAPPED)
    made = file.stat().st_ino
    loader(feature_map, **MAPPED)
    assert file.stat().st_ino == made
    pl.read_parquet(parquet).reverse().write_parquet(parquet)
    assert equal_batches(loader(feature_map), loader(feature_map, **MAPPED))


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(feature_map, monkeypatch):
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    before = set(Path(feature_map.data_dir).iterdir())
    monkeypatch.setattr("fuxictr_miss.data.tensors._parts", full)
    with pytest.raises(InputError, match=r"train\.columns \(No space left on device\): free some"):
        loader(feature_map, **MAPPED)
    left = set(Path(feature_map.data_dir).iterdir()) - before
    assert {path.suffix for path in left} == {".lock"}


def test_a_folder_that_cannot_be_written_names_the_key(feature_map, monkeypatch):
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fuxictr_miss.data.tensors.FileLock", refused)
    with pytest.raises(InputError, match="memory_budget_gb above"):
        loader(feature_map, **MAPPED)


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "trim_history": True}, MAPPED])
def test_a_batch_can_be_saved_and_written_to_without_a_change_to_the_split(
    feature_map, tmp_path, options
):
    data = loader(feature_map, **options)
    kept = {name: column.clone() for name, column in data.columns.items()}
    for batch in data:
        torch.save(batch, tmp_path / "batch.pt")
        loaded = torch.load(tmp_path / "batch.pt")
        assert all(torch.equal(loaded[name], values) for name, values in batch.items())
        for values in batch.values():
            values.zero_()
    assert (tmp_path / "batch.pt").stat().st_size < 10_000  # of 16 rows, not of the split
    assert all(torch.equal(data.columns[name], column) for name, column in kept.items())


@pytest.mark.parametrize("multiple", [1, 4])
def test_a_batch_is_trimmed_to_what_a_scan_of_it_finds(feature_map, multiple):
    data = loader(feature_map, batch_size=3, trim_history=True)
    generator = torch.Generator().manual_seed(1)
    for name in ("item_history", "cate_history"):
        ids = torch.randint(1, 5, data.columns[name].shape, generator=generator)
        ids[torch.rand(ids.shape, generator=generator) < 0.8] = 0
        data.columns[name].copy_(ids)
    for batch, start in zip(data.batches(multiple=multiple), range(0, 180, 3), strict=True):
        whole = [data.columns[name][start : start + 3] for name in ("item_history", "cate_history")]
        used = (torch.stack(whole) != 0).any(dim=0).any(dim=0).nonzero().flatten().tolist() or [0]
        first = used[0] // multiple * multiple
        stop = -(-(used[-1] + 1) // multiple) * multiple
        assert torch.equal(batch["item_history"], whole[0][:, first:stop])
        assert torch.equal(batch["cate_history"], whole[1][:, first:stop])


def test_by_length_is_a_permutation_that_sorts_histories(feature_map):
    assert loader(feature_map).by_length() is None
    data = loader(feature_map, trim_history=True, train_sample_rate=0.5)
    order = data.by_length()
    assert sorted(order.tolist()) == list(range(90))
    lengths = [int((b != 0).sum()) for x in data.batches(order) for b in x["item_history"]]
    assert lengths == sorted(lengths)


@pytest.mark.slow  # starts Ray
def test_fuxictrs_loader_reads_the_same_batches_and_takes_ours_by_its_hook(feature_map, params):
    import ray
    from fuxictr.pytorch.dataloaders import RankDataLoader

    paths = dict(zip(("train_data", "valid_data", "test_data"), build_dataset(params), strict=True))
    options = {**params, **paths, "shuffle": False}
    theirs = RankDataLoader(feature_map, stage="both", **options)
    ours = RankDataLoader(feature_map, stage="both", data_loader=TensorDataLoader, **options)
    if hasattr(ours, "make_iterator"):  # of FuxiCTR's repository
        theirs, ours = theirs.make_iterator(), ours.make_iterator()
    try:
        for a, b in zip(theirs, ours, strict=True):
            assert (len(a), a.num_samples) == (len(b), b.num_samples)
            assert rows_of(a) == rows_of(b)
    finally:
        ray.shutdown()
