"""FuxiCTR's benchmark: its configs as published, its samples from raw files to the table."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch

from fuxictr_miss import experiment
from fuxictr_miss.commands import benchmark
from fuxictr_miss.config import list_expids, load_config
from fuxictr_miss.errors import InputError
from fuxictr_miss.paper import bars, worker
from fuxictr_miss.paper.bars import BACKBONES, DATASETS, MODELS, PUBLISHED, SAMPLE, Suite
from fuxictr_miss.paper.results import Results
from fuxictr_miss.preprocess.bars import DATASETS as FILES
from fuxictr_miss.preprocess.bars import OUTPUT, write_splits
from fuxictr_miss.preprocess.bars_sample import write_sample

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "config" / "bars")
ZOO = os.environ.get("FUXICTR_ZOO")  # a checkout of FuxiCTR, or its model_zoo


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configs, the samples and their splits."""
    folder = tmp_path_factory.mktemp("bars")
    shutil.copytree(ROOT / "config", folder / "config")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for dataset in DATASETS:
            write_splits(dataset, write_sample(dataset), OUTPUT / f"{dataset}{SAMPLE}")
    return folder


@pytest.fixture
def place(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    shutil.rmtree(home / "results", ignore_errors=True)
    return home


def command(*arguments: str) -> None:
    with mock.patch("sys.argv", ["run_benchmark.py", "--suite", "bars", *arguments]):
        benchmark.main()


def in_this_process(experiments, results, *_) -> None:
    """What `run_all` does on Ray."""
    for each in experiments:
        row = worker.run(each, -1, os.getcwd(), worker.Options("checkpoints"))
        results.add({**row, "commit": ""})


def test_every_model_has_an_expid_on_every_data_set_and_nothing_else_has():
    assert list_expids(CONFIG) == sorted(f"{m}_{d}" for m in MODELS for d in DATASETS)


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_miss_differs_from_its_backbone_in_the_recipe_alone(dataset):
    for backbone in BACKBONES:
        plain, miss = (load_config(CONFIG, f"{m}_{dataset}").params
                       for m in (backbone, f"{backbone}_MISS"))  # fmt: skip
        different = {key for key in plain.keys() | miss.keys() if plain.get(key) != miss.get(key)}
        own = {key for key in different if not key.startswith(("ssl_", "miss_"))}
        assert own == {"model", "model_id"}
        assert miss["ssl_recipe"] == "recommended"


@pytest.mark.parametrize("dataset", DATASETS)
def test_entries_of_a_data_set_differ_in_their_files_alone(dataset):
    names = [f"{dataset}{end}" for end in ("", PUBLISHED, SAMPLE, f"{SAMPLE}{PUBLISHED}")]
    each = [load_config(CONFIG, f"DIN_{dataset}", name) for name in names]
    assert {config.valid_data == config.test_data for config in each[::2]} == {False}
    assert {config.valid_data == config.test_data for config in each[1::2]} == {True}
    columns = [[{**c, "pretrained_emb": ""} for c in config.feature_cols] for config in each]
    assert columns[0] == columns[1] == columns[2] == columns[3]
    vectors = FILES[dataset].vectors
    for config in each:
        files = {c["pretrained_emb"] for c in config.feature_cols if "pretrained_emb" in c}
        assert {Path(file).name for file in files} == ({vectors} if vectors else set())
        assert (
            all("_sample/" in file for file in files) == (SAMPLE in config.dataset_id) or not files
        )


def test_from_the_raw_files_of_the_samples_to_the_table(place, monkeypatch, capsys):
    """Both protocols, on all four; a class of attention, and one of pooled histories with MISS."""
    monkeypatch.setattr("fuxictr_miss.paper.run.run_all", in_this_process)
    command("--sample", "--seeds", "1", "--model", "DIN_MISS", "PNN", "BST")
    printed = capsys.readouterr().out
    assert "16 experiments: 16 ok. Reports: results/bars_sample.md" in printed
    assert "Left out: BST, which are classes of FuxiCTR's zoo: git clone" in printed
    page = (place / "results" / "bars_sample.md").read_text()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()
             if line.startswith("| ")]  # fmt: skip
    head, *rows = lines
    assert head[1:4] == [f"{DATASETS[0]} {name}" for name in ("gAUC", "AUC", "logloss")]
    table = {row[0]: row[1:] for row in rows}
    assert table["DIN, published"][:3] == ["0.8835", "0.8860", "0.4302"]
    assert table["DIN, published"][-3:] == ["0.6883", "0.7360", "0.4116"]
    for name in ("DIN-MISS", "DIN-MISS, stops on test", "PNN", "PNN, stops on test"):
        assert len(table[name]) == 12
        assert all(0 < float(cell) < 10 for cell in table[name])
    assert set(table["BST"]) == {"–"}
    assert "rows are made up" in page
    assert "epoch is chosen on the test split, so these numbers" in page
    assert (place / "results" / "bars_sample.tex").exists()
    rows = Results("results").rows.values()
    assert {row["dataset"] for row in rows} == {
        f"{dataset}{SAMPLE}{end}" for dataset in DATASETS for end in ("", PUBLISHED)
    }

    monkeypatch.setattr("fuxictr_miss.paper.run.run_all", lambda left, *_: [*left] and 1 / 0)
    command("--sample", "--seeds", "1", "--model", "DIN_MISS", "PNN")  # nothing is left to run
    command("--sample", "--seeds", "2", "--model", "PNN", "--report-only")
    assert "n = 1: not all seeds are finished." in Path("results/bars_sample.md").read_text()
    assert "bars_sample.md" in (place / "results" / "README.md").read_text()


@pytest.mark.parametrize("model", ["DIEN_MISS", "DMR_MISS", "DIN", "PNN_MISS"])
def test_our_own_classes_take_a_step_with_the_published_hyper_parameters(place, model):
    for dataset in DATASETS:
        sample = load_config(CONFIG, f"{model}_{dataset}", f"{dataset}{SAMPLE}").params
        sizes = load_config(CONFIG, f"{model}_{dataset}").params
        layers = {key: value for key, value in sizes.items() if key.endswith("hidden_units")}
        built, loaders = experiment.build({**sample, **layers, "batch_size": 16})
        built._max_gradient_norm = 10.0
        assert torch.isfinite(built.train_step(next(iter(loaders["train"]))))


def test_a_closed_form_of_pretrained_vectors_is_refused_in_one_sentence(place):
    name = f"microvideo1.7m_x1{SAMPLE}"
    config = load_config(CONFIG, "DIN_microvideo1.7m_x1", name).replace({"model": "DIN_PPMI"}, "")
    with pytest.raises(InputError, match="clicked_items is embedded by pretrained vectors: leave"):
        experiment.run(config)
    alone = config.replace({"ssl_sequences": ["clicked_categories"]}, "")
    assert 0 < experiment.run(alone)["test_AUC"] < 1


def test_a_failed_run_is_a_footnote(place):
    suite = Suite("config/bars", DATASETS[:1], ("DIN",), 1, sample=True)
    results, (job, _) = Results("results"), suite.experiments()
    results.add({**job.row(), "status": "failed", "reason": "no disk"})
    page = suite.sheet(results).markdown()
    assert "failed<sup>1</sup>" in page
    assert "DIN on amazonelectronics_x1_sample: 1 seeds without a result (failed, no disk)." in page
    assert "| … |" in page  # under the published protocol


def test_published_results_are_of_the_models_and_data_sets_of_the_suite():
    published = bars._read()
    assert set(published) == set(BACKBONES) - {"PNN"}
    for model in published.values():
        assert list(model) == list(DATASETS)
        assert all(0.1 < number < 0.9 for values in model.values() for number in values)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "kuaivideo"], r"data set of --suite bars 'kuaivideo'. Did you mean 'kuai"),
        (["--model", "DIN_MIS"], "Did you mean 'DIN_MISS'"),
        (["--table", "3"], "--suite has a table of its own"),
        (["--zoo", "nowhere"], "'nowhere' is neither a folder nor a package"),
        (["--seeds", "1", "--model", "DIN"], r"train split is not there.*bars.py --dataset amaz"),
    ],
)
def test_wrong_input_is_one_sentence(place, arguments, words):
    with pytest.raises(InputError, match=words):
        command(*arguments)


def test_a_plan_needs_no_data(place, capsys):
    command("--seeds", "1", "--dry-run", "--model", "DIN", "DIN_MISS")
    assert "16 of 16 experiments to run" in capsys.readouterr().out
    assert not (place / "results").exists()


@pytest.mark.slow
@pytest.mark.skipif(ZOO is None, reason="set FUXICTR_ZOO to a checkout of FuxiCTR")
@pytest.mark.parametrize("dataset", DATASETS)
def test_fuxictrs_classes_run_on_every_sample(place, dataset, monkeypatch, capsys):
    monkeypatch.setattr("fuxictr_miss.paper.run.run_all", in_this_process)
    models = ["DIN", *(f"{backbone}_MISS" for backbone in BACKBONES)]
    asked = ["--sample", "--seeds", "1", "--dataset", dataset, "--zoo", str(ZOO)]
    command(*asked, "--model", *models)
    assert "14 experiments: 14 ok." in capsys.readouterr().out
    page = (place / "results" / "bars_sample.md").read_text()
    assert f"Classes of {ZOO}." in page
    assert "–" not in page
