"""A training on a grown vocabulary that starts from an exported artefact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from fuxictr.pytorch.layers import FeatureEmbedding
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss import experiment, registry
from fuxictr_miss.commands import train
from fuxictr_miss.config import Config
from fuxictr_miss.errors import InputError
from fuxictr_miss.outputs.run_files import METRICS, read_run_file
from fuxictr_miss.serving.vocabulary import digests_of
from fuxictr_miss.serving.warm_start import read_artefact, start_from
from fuxictr_miss.training import run as training_run
from fuxictr_miss.training.pretraining import Pretraining

SPLITS = ("train", "valid", "test")
IDS = ("user_id", "item_id", "cate_id", "item_history", "cate_history")


class SeveralTables(BaseModel):
    """As in FFM, each feature has a table for each of two others."""

    def __init__(self, feature_map: Any, embedding_dim: int = 4, **params: Any) -> None:
        super().__init__(feature_map, **params)
        layers = [FeatureEmbedding(feature_map, embedding_dim) for _ in range(2)]
        self.embedding_layers = nn.ModuleList(layers)
        self.compile(params["optimizer"], params["loss"], params["learning_rate"])
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        first, second = (layer(self.get_inputs(inputs)) for layer in self.embedding_layers)
        return {"y_pred": (first * second).sum(dim=(1, 2))[:, None].sigmoid()}


@pytest.fixture
def last_week(params, splits, tmp_path) -> dict[str, Any]:
    """The config on a part of the rows, in which some users, items and a category are unknown."""
    folder = tmp_path / "last_week"
    folder.mkdir()
    known = pl.element().str.slice(1).cast(pl.Int64) % 6 != 5  # as the categories are numbered
    for split in SPLITS:
        frame = pl.read_parquet(splits / f"{split}.parquet")
        frame = frame.filter(
            pl.col("user_id").str.slice(1).cast(pl.Int64) < 70, pl.col("cate_id") != "c5"
        ).with_columns(
            pl.col("item_history", "cate_history").str.split("^").list.eval(
                pl.element().filter(known)
            ).list.join("^")
        )  # fmt: skip
        frame.filter(pl.col("item_history") != "").write_parquet(folder / f"{split}.parquet")
        params[f"{split}_data"] = str(folder / f"{split}.parquet")
    return {**params, "dataset_id": "last_week", "model_id": "before", "epochs": 1}


@pytest.fixture
def this_week(last_week, splits) -> dict[str, Any]:
    """The same config on all rows."""
    files = {f"{split}_data": str(splits / f"{split}.parquet") for split in SPLITS}
    return {**last_week, **files, "dataset_id": "this_week", "model_id": "after", "seed": 8}


@pytest.fixture
def export() -> Callable[[BaseModel, Path], Path]:
    """(model, folder) -> the folder, with what a training reads of an exported artefact."""

    def write(model: BaseModel, folder: Path) -> Path:
        plain = model.to_backbone() if hasattr(model, "to_backbone") else model
        batch = {name: torch.ones(4, dtype=torch.long) for name in IDS[:3]}
        batch |= {name: torch.ones(4, 9, dtype=torch.long) for name in IDS[3:]}
        rows = torch.export.Dim("rows")
        shapes = ({name: {0: rows} for name in batch},)
        folder.mkdir()
        program = torch.export.export(plain.eval(), (batch,), dynamic_shapes=shapes)
        torch.export.save(program, folder / "model.pt2")
        vocabularies, inputs = {}, []
        for name in IDS:
            ids = vocabulary(plain)[name]
            oov = ids.pop("__OOV__")
            ids.pop("__PAD__")
            entry = {"oov": oov, "ids": ids}
            same = next((k for k, other in vocabularies.items() if other == entry), name)
            vocabularies.setdefault(same, entry)
            inputs.append({"name": name, "vocabulary": same})
        content = {"format": 1, "model": type(plain).__name__, "inputs": inputs,
                   "vocabularies": vocabularies,
                   "files": digests_of(folder, ["model.pt2"])}  # fmt: skip
        (folder / "vocab.json").write_text(json.dumps(content))
        return folder

    return write


def vocabulary(model: BaseModel) -> dict[str, dict[str, int]]:
    return json.loads((Path(model.feature_map.data_dir) / "feature_vocab.json").read_text())


def trained(params: dict[str, Any]) -> tuple[BaseModel, dict[str, Any]]:
    """A model whose weights all differ from their start."""
    model, loaders = experiment.build(params)
    for batch in loaders["train"]:
        model._max_gradient_norm = 10.0
        model.train_step(batch)
    return model.eval(), loaders


def recoded(batch: dict[str, Tensor], old: BaseModel, new: BaseModel) -> dict[str, Tensor]:
    """Ids of the old vocabulary as the new one numbers them."""
    batch = dict(batch)
    for name in IDS:
        before, now = vocabulary(old)[name], vocabulary(new)[name]
        number = torch.zeros(max(before.values()) + 1, dtype=torch.long)
        for token, index in before.items():
            number[index] = now[token]
        batch[name] = number[batch[name].long()]
    return batch


def of_model(params: dict[str, Any], model: str) -> dict[str, Any]:
    """Also "DIN, sum" and "DIN, init", whose items have pretrained vectors of another width."""
    model, _, usage = model.partition(", ")
    params = {**params, "model": model}
    if usage:
        file = Path(params["model_root"]).parent / f"{params['dataset_id']}.npz"
        week = params["dataset_id"]
        names = [f"i{n}" for n in range(40) if week == "this_week" or n % 6 != 5]
        values = np.random.default_rng(len(names)).random((len(names), 3))
        np.savez(file, key=np.array(names), value=values)
        users, *rest = params["feature_cols"]
        item = {**users, "name": "item_id", "pretrained_emb": str(file), "pretrain_dim": 3,
                "pretrain_usage": usage, "freeze_emb": usage == "init"}  # fmt: skip
        params["feature_cols"] = [{**users, "name": ["user_id", "cate_id"]}, item, *rest]
    if model in ("FM", "LR"):
        del params["embedding_regularizer"], params["net_regularizer"]
    return params


@pytest.mark.parametrize(
    "model", ["DIN", "DIN, init", "DIN, sum", "DNN", "FM", "LR", "xDeepFM", "SeveralTables"]
)
def test_known_ids_get_the_old_predictions_to_the_bit(
    last_week, this_week, tmp_path, export, model, monkeypatch
):
    monkeypatch.setitem(registry._models, "SeveralTables", SeveralTables)
    old, loaders = trained(of_model(last_week, model))
    new, _ = experiment.build(of_model(this_week, model))
    grown = {n: (len(vocabulary(old)[n]), len(vocabulary(new)[n])) for n in IDS}
    assert all(before < now for before, now in grown.values())
    start_from(new, read_artefact(export(old, tmp_path / "exported")))
    batch = next(iter(loaders["test"]))
    unknown = {name: column.clone() for name, column in batch.items()}
    unknown["item_id"][:] = vocabulary(old)["item_id"]["__OOV__"]
    for each in (batch, unknown):
        with torch.no_grad():
            found = new.eval()(recoded(each, old, new))["y_pred"]
            expected = old(each)["y_pred"]
        assert torch.equal(found, expected)
        assert expected.std() > 0


def table(model: BaseModel, name: str = "item_id") -> Tensor:
    return model.embedding_layer.embedding_layers[name].weight.detach()


def test_new_ids_are_fresh_by_the_seed_and_padding_is_nothing(
    last_week, this_week, tmp_path, export
):
    old, _ = trained(last_week)
    fresh, _ = experiment.build(this_week)
    new, _ = experiment.build(this_week)
    start_from(new, read_artefact(export(old, tmp_path / "exported")))
    before, now = vocabulary(old)["item_id"], vocabulary(new)["item_id"]
    for token, row in now.items():
        start = table(old)[before[token]] if token in before else table(fresh)[row]
        assert torch.equal(table(new)[row], start), token
    assert not table(new)[0].any()
    assert new.optimizer.state == {}


def test_ids_that_are_gone_are_dropped_and_all_are_counted(
    last_week, this_week, tmp_path, export, caplog
):
    old, _ = trained(this_week)
    new, _ = experiment.build(last_week)
    folder = export(old, tmp_path / "exported")
    with caplog.at_level("INFO"):
        start_from(new, read_artefact(folder))
    before, now = vocabulary(old)["item_id"], vocabulary(new)["item_id"]
    gone = len(before) - len(now)
    assert (
        f"item_id: {len(now) - 2} of {len(now) - 2} ids from {folder}, 0 new; {gone} of"
        in caplog.text
    )
    assert caplog.text.count("item_id: ") == 1  # a history that shares the table says nothing new
    assert torch.equal(table(new)[now["i1"]], table(old)[before["i1"]])


def test_the_counts_say_how_many_are_new(last_week, this_week, tmp_path, export, caplog):
    old, _ = trained(last_week)
    new, _ = experiment.build(this_week)
    with caplog.at_level("INFO"):
        start_from(new, read_artefact(export(old, tmp_path / "exported")))
    for name in IDS[:3]:
        known, size = len(vocabulary(old)[name]) - 2, len(vocabulary(new)[name]) - 2
        assert f"{name}: {known} of {size} ids from " in caplog.text
        assert f", {size - known} new." in caplog.text


def test_other_ids_altogether_are_a_warning(last_week, this_week, tmp_path, export, caplog):
    old, _ = trained(last_week)
    folder = export(old, tmp_path / "exported")
    content = json.loads((folder / "vocab.json").read_text())
    ids = content["vocabularies"]["item_id"]["ids"]
    content["vocabularies"]["item_id"]["ids"] = {f"other {token}": n for token, n in ids.items()}
    (folder / "vocab.json").write_text(json.dumps(content))
    new, _ = experiment.build(this_week)
    start_from(new, read_artefact(folder))
    assert "No id of item_id is in" in caplog.text


@pytest.mark.parametrize("strategy", ["joint", "pretrain"])
def test_an_enhanced_model_starts_with_the_backbone_and_a_fresh_method(
    last_week, this_week, tmp_path, export, strategy
):
    old, _ = trained({**last_week, "model": "DIN_MISS"})
    keys = {**this_week, "model": "DIN_MISS", "ssl_training": strategy, "ssl_pretrain_epochs": 1}
    fresh, _ = experiment.build(keys)
    new, _ = experiment.build(keys)
    folder = export(old, tmp_path / "exported")
    start_from(new, read_artefact(folder))
    methods = [each._self_supervision.state_dict() for each in (fresh, new)]
    assert all(torch.equal(methods[0][name], value) for name, value in methods[1].items())
    head = "dnn.mlp.0.weight"
    assert torch.equal(new.state_dict()[head], old.state_dict()[head])
    starts: list[Tensor] = []
    go = training_run.Run.go

    def spy(run: Any, resume: bool) -> None:
        starts.append(table(run.model).clone())
        go(run, resume)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run.Run, "go", spy)
        result = experiment.run(keys, init_from=folder)
    assert torch.equal(starts[0], table(new))
    assert 0 < result["test_AUC"] < 1


def test_a_start_from_the_svd_gives_way_to_the_old_tables(
    last_week, this_week, tmp_path, export, monkeypatch
):
    folder = export(trained(last_week)[0], tmp_path / "exported")
    keys = {"model": "DIN_MISS", "ssl_training": "pretrain", "ssl_pretrain_epochs": 1}
    new, _ = experiment.build({**this_week, **keys})
    start_from(new, read_artefact(folder))
    starts: list[Tensor] = []
    epoch = Pretraining.epoch

    def spy(phase: Pretraining, number: int, progress: Any) -> Any:
        starts.append(table(phase.model).clone())
        return epoch(phase, number, progress)

    monkeypatch.setattr(Pretraining, "epoch", spy)
    experiment.run({**this_week, **keys, "ssl_start": "svd"}, init_from=folder)
    assert torch.equal(starts[0], table(new))
    log = Config.of({**this_week, **keys}).file(".log").read_text()
    assert "ssl_start: svd is left out: --init-from has given the tables their start." in log


def test_a_pretraining_keeps_vectors_of_ids_without_a_history_now(
    last_week, this_week, tmp_path, export
):
    """Rows as long as log(1 + count) would be nothing for them."""
    old, _ = trained(this_week)
    keys = {**last_week, "vocab_data": str(tmp_path / "items.parquet"), "vocab_scope": "all"}
    pl.DataFrame({"item_id": ["i5", "i11"], "cate_id": ["c5", "c5"]}).write_parquet(
        keys["vocab_data"]
    )
    keys.update(model="DIN_MISS", ssl_training="pretrain", ssl_pretrain_epochs=1,
                ssl_row_norm="log_count", ssl_label_gradient=0, ssl_other_gradient=0)  # fmt: skip
    result = {}
    for start in (None, export(old, tmp_path / "exported")):
        experiment.run(keys, init_from=start)
        model = experiment.load_trained(keys)
        result[start is None] = table(model)[vocabulary(model)["item_id"]["i5"]]
    assert not result[True].any()
    assert torch.equal(result[False], table(old)[vocabulary(old)["item_id"]["i5"]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embedding_dim": 5}, r"does not fit DIN: .*item_id.weight is \d+ x 4 there and \d+ x 5"),
        ({"dnn_hidden_units": [9, 8]}, "does not fit DIN: .*dnn.* there and .* here"),
        ({"dnn_hidden_units": [8, 8, 8]}, "does not fit|has no dnn"),
        ({"dnn_hidden_units": [8]}, "there only"),
        ({"model": "DNN"}, "is a DIN, not a DNN: export a DNN, or train a DIN"),
        ({"model": "DIN_PPMI"}, "computed from the data"),
    ],
)
def test_what_does_not_fit_is_one_sentence(last_week, this_week, tmp_path, export, changes, words):
    folder = export(trained(last_week)[0], tmp_path / "exported")
    with pytest.raises(InputError, match=words) as error:
        experiment.run({**this_week, **changes}, init_from=folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert not Config.of({**this_week, **changes}).file(".model").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.pt2").unlink(), "has no model.pt2: name a folder that"),
        (lambda folder: (folder / "vocab.json").unlink(), "has no vocab.json"),
        (lambda folder: (folder / "model.pt2").write_bytes(b"x"), "model.pt2 is not the file that"),
        (lambda folder: (folder / "vocab.json").write_text("["), "vocab.json cannot be read"),
        (lambda folder: (folder / "vocab.json").write_text("{}"), "is of format None"),
        (lambda folder: (folder / "vocab.json").write_text('{"format": 9}'), "is of format 9"),
    ],
)
def test_what_is_no_artefact_is_refused_before_anything_is_done(
    last_week, this_week, tmp_path, export, damage, words, caplog
):
    folder = export(trained(last_week)[0], tmp_path / "exported")
    damage(folder)
    with pytest.raises(InputError, match=words):
        experiment.run(this_week, init_from=folder)
    assert not Config.of(this_week).file(".log").exists()
    assert "Traceback" not in caplog.text


def test_a_training_starts_from_what_export_has_written(last_week, this_week, tmp_path):
    """The whole way: train, export, a grown vocabulary, the first predictions, train again."""
    serving = pytest.importorskip("fuxictr_miss.serving")
    if not hasattr(serving, "export"):
        pytest.skip("there is no export")
    keys = {"model": "DIN_MISS", "ssl_training": "pretrain", "ssl_pretrain_epochs": 1}
    experiment.run({**last_week, **keys})
    old = experiment.load_trained({**last_week, **keys})
    folder = serving.export(old, tmp_path / "served")
    new, _ = experiment.build({**this_week, **keys})
    start_from(new, read_artefact(folder))
    batch = next(iter(experiment.build({**last_week, **keys})[1]["test"]))
    with torch.no_grad():
        found = new.eval()(recoded(batch, old, new))["y_pred"]
        assert torch.equal(found, old(batch)["y_pred"])
    assert 0 < experiment.run({**this_week, **keys}, init_from=folder)["test_AUC"] < 1


def test_a_resume_with_another_start_is_refused(last_week, this_week, tmp_path, export):
    old, _ = trained(last_week)
    folder = export(old, tmp_path / "exported")
    result = experiment.run(this_week, init_from=folder)
    again = experiment.run(this_week, init_from=folder, resume=True)
    assert again["test_AUC"] == result["test_AUC"]
    digest = read_artefact(folder).digest
    assert read_run_file(Config.of(this_week).file(METRICS))["init_from"] == digest
    with torch.no_grad():
        next(old.parameters()).add_(1)
    for other in (None, export(old, tmp_path / "another")):
        with pytest.raises(InputError, match=f"init_from was '{digest}' and is"):
            experiment.run(this_week, init_from=other, resume=True)


def test_the_command_takes_the_folder(monkeypatch, tmp_path):
    seen = {}

    def run(*_: Any, **options: Any) -> dict[str, Any]:
        seen.update(options)
        return {"history": []}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "run", run)
    monkeypatch.setattr("sys.argv", ["train", "--expid", "DIN_demo", "--init-from", "served"])
    train.main()
    assert seen == {"init_from": "served"}
