"""What `export` writes: the trained backbone for raw rows, equal in every runtime, or nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from test_to_backbone import MODELS

import fuxictr_miss as fm
from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.outputs.run_files import write_run_file
from fuxictr_miss.serving import artefact
from fuxictr_miss.serving.warm_start import read_artefact

FILES = ["card.md", "feature_map.json", "model.onnx", "model.pt2", "sample.json", "vocab.json"]
QUICK = ("DIEN", "DIN", "PNN")
BACKBONES = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in sorted([*MODELS, "LR"])
]
SHORT = {"epochs": 1, "ssl_pretrain_epochs": 1}


def keys_of(params: dict[str, Any], backbone: str, name: str) -> dict[str, Any]:
    if backbone in ("FM", "LR"):  # they have one key for both
        params = {k: v for k, v in params.items() if not k.endswith("_regularizer")}
    return {**params, **MODELS.get(backbone, {}), "model": name, "model_id": name}


def trained(params: dict[str, Any], backbone: str, method: str = "", **changes: Any) -> Any:
    """A model after an epoch, its weights drawn wide, and what `run` said of the test split."""
    keys = keys_of(params, backbone, backbone + method) | SHORT | changes
    result = experiment.run(keys)
    return experiment.load_trained(keys), result


def untrained(params: dict[str, Any], name: str, **changes: Any) -> Any:
    model, _ = experiment.build(keys_of(params, name, name) | changes)
    draw = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = torch.randn(parameter.shape, generator=draw) / 3
    return model


def batches(model: Any) -> dict[str, torch.Tensor]:
    """4,097 rows of random ids, whose histories have 0 to max_len items."""
    draw = torch.Generator().manual_seed(5)
    columns = {}
    lengths = torch.randint(0, 10, (4097, 1), generator=draw)
    for name, spec in model.feature_map.features.items():
        shape = (4097, spec["max_len"]) if spec["type"] == "sequence" else (4097,)
        columns[name] = torch.randint(1, spec["vocab_size"], shape, generator=draw)
        if spec["type"] == "sequence":
            columns[name] *= torch.arange(spec["max_len"]) < lengths
    return columns


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of nn.GRU, by torch itself
@pytest.mark.parametrize("name", BACKBONES)
def test_a_row_scores_the_same_in_training_in_every_runtime_and_from_raw_rows(
    params, splits, tmp_path, name
):
    model, result = trained(params, name, "" if name == "LR" else "_MISS")
    folder = fm.serving.export(model, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == FILES

    rows = pl.read_parquet(splits / "test.parquet")
    scorer = fm.serving.Scorer(folder)
    scores = scorer.score(rows).astype(np.float64)
    assert roc_auc_score(rows["label"], scores) == pytest.approx(result["test_AUC"], abs=1e-6)
    assert log_loss(rows["label"], scores) == pytest.approx(result["test_logloss"], abs=1e-6)

    columns = batches(model)
    program = torch.export.load(folder / "model.pt2").module()
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for size in (1, 2, 100, 4097):
        batch = {column: values[:size] for column, values in columns.items()}
        with torch.no_grad():
            eager = model(batch)["y_pred"].numpy()
            exported = program(batch)["y_pred"].numpy()
        feed = {each.name: batch[each.name].numpy() for each in session.get_inputs()}
        (by_onnx,) = session.run(["y_pred"], feed)
        assert eager.shape == exported.shape == by_onnx.shape == (size, 1)
        np.testing.assert_allclose(exported, eager, rtol=0, atol=1e-6)
        np.testing.assert_allclose(by_onnx, eager, rtol=0, atol=1e-6)

    past = [f"i{item % 40}" for item in range(27)]  # 3 times max_len
    history = {"item_history": past, "cate_history": [f"c{item % 6}" for item in range(27)]}
    long, newest, oldest = (
        rows.head(30).with_columns(pl.lit("^".join(v[part])).alias(n) for n, v in history.items())
        for part in (slice(None), slice(-9, None), slice(9))
    )
    assert (scorer.score(long) == scorer.score(newest)).all()
    assert (scorer.score(long) != scorer.score(oldest)).any()


def test_the_artefact_holds_the_plain_backbones_weights_under_their_names(params, tmp_path):
    model = untrained(params, "DIN_MISS").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folder = fm.serving.export(model, tmp_path / "out")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    plain = model.to_backbone().state_dict()
    state = torch.export.load(folder / "model.pt2").state_dict
    assert state.keys() == plain.keys()
    assert all(torch.equal(state[name], plain[name]) for name in plain)
    content = (folder / "vocab.json").read_text() + (folder / "feature_map.json").read_text()
    assert "MISS" not in content


@pytest.mark.parametrize("name", ["vocab.json", "model.onnx", "model.pt2"])
def test_files_of_two_exports_in_one_folder_are_refused(params, tmp_path, name):
    one, other = (untrained({**params, "seed": seed}, "LR") for seed in (1, 2))
    for model, folder in ((one, "one"), (other, "other")):
        with torch.no_grad():
            next(model.parameters()).add_(0.1 if folder == "one" else 0.2)
        fm.serving.export(model, tmp_path / folder)
    (tmp_path / "one" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    readers = {"model.onnx": [fm.serving.Scorer], "model.pt2": [read_artefact]}
    for read in readers.get(name, [fm.serving.Scorer, read_artefact]):
        with pytest.raises(InputError, match=r"is not the file that .*vocab.json was .*copy the"):
            read(tmp_path / "one")


def test_histories_may_be_shorter_than_max_len_in_pytorch(params, tmp_path):
    model = untrained(params, "LR").eval()
    folder = fm.serving.export(model, tmp_path / "out")
    columns = {n: v[:, :3] if v.ndim == 2 else v for n, v in batches(model).items()}
    with torch.no_grad():
        assert torch.equal(
            torch.export.load(folder / "model.pt2").module()(columns)["y_pred"],
            model(columns)["y_pred"],
        )


def test_vocabularies_are_stored_once_and_say_how_a_row_is_encoded(params, tmp_path):
    folder = fm.serving.export(untrained(params, "LR"), tmp_path / "out")
    content = json.loads((folder / "vocab.json").read_text())
    encoded = Path(params["data_root"]) / "small"
    vocabulary = json.loads((encoded / "feature_vocab.json").read_text())
    assert {k: content[k] for k in ("format", "model", "dataset_id", "outputs")} == {
        "format": 1, "model": "LR", "dataset_id": "small", "outputs": ["y_pred"],
    }  # fmt: skip
    assert content["data"] == fm.data.data_digest(encoded)
    assert content["vocabularies"].keys() == {"user_id", "item_id", "cate_id"}
    items = content["vocabularies"]["item_id"]
    assert items["oov"] == vocabulary["item_id"].pop("__OOV__")
    del vocabulary["item_id"]["__PAD__"]
    assert items["ids"] == vocabulary["item_id"]
    assert content["inputs"][3] == {
        "name": "item_history", "type": "sequence", "dtype": "str", "fill_na": "",
        "splitter": "^", "max_len": 9, "padding": "post", "vocabulary": "item_id",
    }  # fmt: skip


def test_sample_and_card_are_of_the_test_split(params, splits, tmp_path):
    model = untrained(params, "DNN_MISS", ssl_recipe="paper").eval()
    record = {"data": "another", "seed": 7, "metrics": {"test": {"AUC": 0.75}}}
    beside = Path(model.checkpoint).with_suffix(".metrics.json")
    write_run_file(beside, record)
    card = (fm.serving.export(model, tmp_path / "other") / "card.md").read_text()
    assert "Metrics: unknown" in card  # those beside it are of other data
    record["data"] = fm.data.data_digest(Path(params["data_root"]) / "small")
    write_run_file(beside, record)
    folder = fm.serving.export(model, tmp_path / "out")
    card = (folder / "card.md").read_text()
    for text in ("# DNN on small", "DNN_MISS by `ssl_recipe: paper`", "seed 7", "| AUC | 0.75 |",
                 record["data"], f"torch {torch.__version__}", f'Scorer("{folder}")'):  # fmt: skip
        assert text in card
    sample = json.loads((folder / "sample.json").read_text())
    rows = pl.read_parquet(splits / "test.parquet").head(10).drop("label")
    assert sample["rows"] == rows.to_dicts()
    _, loaders = experiment.build({**params, "model": "DNN", "model_id": "again"})
    with torch.no_grad():
        expected = model(next(iter(loaders["test"])))["y_pred"][:10, 0]
    np.testing.assert_allclose(sample["scores"], expected, atol=1e-6)


def test_int8_tables_move_predictions_little_and_take_a_quarter(params, tmp_path):
    model = untrained(params, "DNN", embedding_dim=64).eval()
    columns = {name: values.numpy() for name, values in batches(model).items()}
    scores, sizes = [], []
    for quantize in (False, True):
        folder = fm.serving.export(model, tmp_path / str(quantize), quantize=quantize)
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        scores.append(session.run(["y_pred"], columns)[0])
        sizes.append((folder / "model.onnx").stat().st_size)
    assert 0 < abs(scores[0] - scores[1]).max() < 0.02
    assert sizes[0] - sizes[1] > 0.7 * 4 * 64 * (91 + 41 + 7)  # of the tables' bytes
    assert "int8" in (folder / "card.md").read_text()
    content = (folder / "model.onnx").read_bytes()
    assert b"embedding_layers.user_id.weight.int8" in content


def test_numbers_copies_and_preceding_padding_are_encoded_as_in_training(params, splits, tmp_path):
    """Raw rows in CSV, with gaps, whole numbers as ids, and lists padded in front."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, split in enumerate(("train", "valid", "test")):
        rows = pl.read_parquet(splits / f"{split}.parquet").with_row_index("row")
        gap = pl.col("row") % 5 == 0
        rows = rows.with_columns(
            pl.col("user_id").str.slice(1).cast(pl.Int64),
            pl.when(gap).then(None).otherwise(pl.col("row") * 1.5 + number).alias("price"),
            (pl.col("row") % 7).alias("age"),
            pl.when(gap).then(None).otherwise(pl.col("item_history")).alias("item_history"),
        )
        rows.drop("row").write_csv(folder / f"{split}.csv", separator=";")
        params[f"{split}_data"] = str(folder / f"{split}.csv")
    params |= {"data_format": "csv", "sep": ";"}
    (first, items, categories) = params["feature_cols"]
    params["feature_cols"] = [
        {**first, "name": "user_id", "dtype": "int"},
        {**first, "name": ["item_id", "cate_id"]},
        {**first, "name": "item_again", "preprocess": "copy_from(item_id)"},
        items | {"padding": "pre"},
        categories,
        *(
            {"name": name, "active": True, "dtype": "float", "type": "numeric", "fill_na": 2.5,
             "normalizer": scaler}
            for name, scaler in (("price", "StandardScaler"), ("age", "MinMaxScaler"))
        ),
    ]  # fmt: skip
    model, result = trained(params, "DNN")
    out = fm.serving.export(model, tmp_path / "out")
    rows = pl.read_csv(folder / "test.csv", separator=";")
    scores = fm.serving.Scorer(out).score(rows).astype(np.float64)
    assert log_loss(rows["label"], scores) == pytest.approx(result["test_logloss"], abs=1e-6)
    content = json.loads((out / "vocab.json").read_text())
    by_name = {each["name"]: each for each in content["inputs"]}
    assert by_name["item_again"]["column"] == "item_id"
    assert by_name["item_history"]["padding"] == "pre"
    assert by_name["price"]["normalizer"]["name"] == "StandardScaler"
    assert by_name["age"]["normalizer"] == {
        "name": "MinMaxScaler", "min": 0.0, "scale": pytest.approx(1 / 6),
    }  # fmt: skip


def exported(params: dict[str, Any], out: Path, restored: bool = False) -> list[dict[str, Any]]:
    """The raw rows that an export shows, of the raw split or restored from the encoded one."""
    model = untrained(params, "LR")
    if restored:
        Path(params["test_data"]).unlink()
    return json.loads((fm.serving.export(model, out) / "sample.json").read_text())["rows"]


def rewritten(params: dict[str, Any], folder: Path, *columns: pl.Expr) -> None:
    """The splits with other columns."""
    folder.mkdir()
    for split in ("train", "valid", "test"):
        rows = pl.read_parquet(params[f"{split}_data"]).with_columns(*columns)
        rows.write_parquet(folder / f"{split}.parquet")
        params[f"{split}_data"] = str(folder / f"{split}.parquet")


ITEM = pl.col("item_id").str.slice(1).cast(pl.Int64)
PAST = (
    pl.col("item_history").str.split("^").list.eval(pl.element().str.slice(1).cast(pl.Int64)).list
)
FLOATS = pl.element().cast(pl.Float64)
ENDS = (FLOATS.first() == FLOATS) | (FLOATS.last() == FLOATS)


@pytest.mark.parametrize(
    ("item", "past"),
    [
        (ITEM.cast(pl.Decimal(38, 2)), PAST.eval(pl.element().cast(pl.Decimal(20, 0)))),
        (ITEM / 10, PAST.eval((pl.element() / 10).cast(pl.Float32))),
        (
            ITEM.cast(pl.Float32),
            PAST.eval(pl.when(ENDS | (FLOATS % 3 > 0)).then(FLOATS).otherwise(np.nan)),
        ),
        (ITEM.cast(pl.Int32).cast(pl.Date), PAST.eval(pl.element().cast(pl.Int32).cast(pl.Date))),
        (ITEM.cast(pl.String).cast(pl.Categorical), PAST.eval(pl.element().cast(pl.UInt8))),
    ],
    ids=["decimal", "fraction", "float with NaN", "date", "categorical"],
)
def test_a_split_of_any_type_that_training_takes_is_exported(params, tmp_path, item, past):
    """The export compares its sample's ids with those of training."""
    price = (ITEM * 3 / 4).cast(pl.Decimal(12, 4))
    gaps = pl.when(ITEM % 2 == 0).then(price).alias("gaps")
    code = price.alias("code")
    rewritten(params, tmp_path / "raw", item, past.alias("item_history"), gaps, code)
    number = {"active": True, "dtype": "float", "type": "numeric", "fill_na": 1}
    params["feature_cols"] += [
        {"name": "gaps", **number},
        {"name": "code", "active": True, "dtype": "str", "type": "categorical"},
    ]
    rows = exported(params, tmp_path / "out")
    assert {type(row["gaps"]) for row in rows} == {float, type(None)}
    assert {type(row["code"]) for row in rows} == {str}


@pytest.mark.parametrize("scaler", ["MinMaxScaler", "StandardScaler"])
def test_a_whole_number_restored_from_its_scaling_is_whole(params, tmp_path, scaler):
    rewritten(params, tmp_path / "raw", (ITEM % 24).alias("hour"))
    hour = {"name": "hour", "active": True, "dtype": "int", "type": "numeric"}
    params["feature_cols"].append(hour | {"normalizer": scaler})
    hours = pl.read_parquet(params["test_data"])["hour"].head(10).to_list()
    rows = exported(params, tmp_path / "out", restored=True)
    assert [row["hour"] for row in rows] == hours


def test_of_two_histories_in_one_raw_column_the_longer_is_restored(params, tmp_path, splits):
    items = params["feature_cols"][1]
    short = {"name": "newest", "preprocess": "copy_from(item_history)", "max_len": 2}
    params["feature_cols"].append(items | short)
    rewritten(params, tmp_path / "raw")
    rows = exported(params, tmp_path / "out", restored=True)
    raw = pl.read_parquet(splits / "test.parquet")["item_history"]
    assert [row["item_history"] for row in rows] == raw.head(10).to_list()


class Blind(fm.get_model("LR")):  # type: ignore[misc]
    """Its predictions do not depend on the user."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return super().forward({**inputs, "user_id": torch.zeros_like(inputs["item_id"])})


def test_a_column_that_the_prediction_does_not_read_is_no_input(params, tmp_path, monkeypatch):
    monkeypatch.setattr("fuxictr_miss.experiment.get_model", lambda *_: Blind)
    model = untrained(params, "LR").eval()
    folder = fm.serving.export(model, tmp_path / "out")
    content = json.loads((folder / "vocab.json").read_text())
    names = [each["name"] for each in content["inputs"]]
    assert names == ["item_id", "cate_id", "item_history", "cate_history"]
    assert "user_id" not in content["vocabularies"]
    columns = {name: values for name, values in batches(model).items() if name in names}
    with torch.no_grad():
        program = torch.export.load(folder / "model.pt2").module()
        assert torch.equal(program(columns)["y_pred"], model(columns)["y_pred"])


def test_a_feature_named_like_a_prediction_is_refused(params, tmp_path):
    first = params["feature_cols"][0]
    params["feature_cols"].append({**first, "name": "y_pred", "preprocess": "copy_from(user_id)"})
    with pytest.raises(InputError, match="feature 'y_pred' has the name of a prediction"):
        fm.serving.export(untrained(params, "LR"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_that_fails_leaves_nothing(params, tmp_path, monkeypatch):
    model = untrained(params, "LR")
    monkeypatch.setattr(artefact, "card", lambda *_: 1 / 0)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError):
        fm.serving.export(model, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_appears_during_an_export_stays(params, tmp_path, monkeypatch):
    card, out = artefact.card, tmp_path / "out"
    out.mkdir()

    def meanwhile(*arguments: Any) -> str:
        (out / "card.md").write_text("mine")
        return card(*arguments)

    monkeypatch.setattr(artefact, "card", meanwhile)
    with pytest.raises(InputError, match=r"Cannot write .*out .*not empty"):
        fm.serving.export(untrained(params, "LR"), out)
    assert {file.name: file.read_text() for file in out.iterdir()} == {"card.md": "mine"}


def test_a_folder_with_files_is_refused_and_an_empty_one_is_filled(params, tmp_path):
    model = untrained(params, "LR")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("")
    with pytest.raises(InputError, match="mine exists and is not an empty folder"):
        fm.serving.export(model, tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    kept = (tmp_path / "empty").stat().st_ino  # of a mount, or the working folder
    assert fm.serving.export(model, tmp_path / "empty") == tmp_path / "empty"
    assert (tmp_path / "empty").stat().st_ino == kept
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == FILES


def test_what_a_raw_row_cannot_give_is_refused_by_its_column(params, tmp_path):
    params["feature_cols"][0] = {
        "name": ["item_id", "cate_id"], "active": True, "dtype": "str", "type": "categorical",
    }  # fmt: skip
    own = tmp_path / "own.py"
    own.write_text(
        "import polars as pl\nfrom fuxictr.preprocess import FeatureProcessor\n"
        "class Own(FeatureProcessor):\n"
        "    def shout(self, name):\n        return pl.col(name).str.to_uppercase()\n"
    )
    user = {"name": "user_id", "active": True, "dtype": "str", "type": "categorical"}
    params["feature_cols"].insert(0, user | {"preprocess": "shout"})
    model = untrained(params, "DNN", feature_processor=f"{own}:Own")
    with pytest.raises(InputError, match=r"Column 'user_id' is made by .* 'shout'"):
        fm.serving.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_that_somebody_else_encoded_is_exported_by_its_vocabulary(params, tmp_path):
    experiment.build(params)
    encoded = Path(params["data_root"]) / "small"
    for name in ("build.json", "feature_processor.pkl"):
        (encoded / name).unlink()
    for split in ("train", "valid", "test"):
        params[f"{split}_data"] = str(encoded / f"{split}.parquet")
    del params["feature_cols"]
    model, _ = trained(params, "LR")
    folder = fm.serving.export(model, tmp_path / "out", params)
    sample = json.loads((folder / "sample.json").read_text())
    assert fm.serving.Scorer(folder).score(sample["rows"]).tolist() == sample["scores"]
    assert sample["rows"][0]["item_id"].startswith("i")
    (encoded / "feature_vocab.json").unlink()
    model, _ = trained(params, "LR")
    with pytest.raises(InputError, match=r"feature_vocab\.json cannot be read .*--backbone"):
        fm.serving.export(model, tmp_path / "none")


class Unsteady(fm.get_model("DNN")):  # type: ignore[misc]
    """A class whose program depends on its data, which torch.export cannot follow."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if inputs["item_id"].sum() > 0:
            return super().forward(inputs)
        return {"y_pred": torch.zeros(len(inputs["item_id"]), 1)}


def test_a_model_without_numbers_is_refused(params, tmp_path):
    model = untrained(params, "LR")
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(InputError, match="y_pred of the test split is not a number in some row"):
        fm.serving.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_class_that_torch_cannot_export_is_one_sentence(params, tmp_path, monkeypatch):
    monkeypatch.setattr("fuxictr_miss.experiment.get_model", lambda *_: Unsteady)
    with pytest.raises(InputError, match=r"torch\.export cannot take Unsteady \(.*--backbone"):
        fm.serving.export(untrained(params, "Unsteady"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, monkeypatch):
    for name in ("artefact", "card", "program", "scorer"):
        monkeypatch.delitem(sys.modules, f"fuxictr_miss.serving.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"needs the package {package}.*pip install"):
        _ = fm.serving.export
