"""Every public name has an example in its docstring, and every example in the package runs."""

from __future__ import annotations

import doctest
import importlib
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import fuxictr_miss as fm
from fuxictr_miss import behavior, experiment, export, registry
from fuxictr_miss.config import load_config
from fuxictr_miss.methods import base
from fuxictr_miss.preprocess.amazon import main as preprocess
from fuxictr_miss.preprocess.demo import write_demo

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = [
    *(getattr(fm, name) for name in fm.__all__),
    *(getattr(m, name) for m in (fm.losses, fm.data, fm.serving) for name in m.__all__),
    *(base.SSLLosses, base.get_method, behavior.Behavior, load_config),
    *(experiment.run, experiment.build, experiment.load_trained),
    *(export.export_backbone, export.export_embeddings),
]
NAMES = {each.__name__: each for each in PUBLIC if not isinstance(each, ModuleType)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make demo` leaves it, after one epoch a phase."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "config", folder / "config")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["amazon.py", "--dataset", "demo"])
        write_demo()
        preprocess()
        params = load_config("config", "DIN_MISS_demo").params
        experiment.run({**params, "epochs": 1, "ssl_pretrain_epochs": 1, "verbose": 0, "gpu": -1})
    return folder


def modules() -> list[str]:
    """Those with an example."""
    files = [file for name in ("fuxictr_miss", "model_zoo") for file in (ROOT / name).rglob("*.py")]
    own = [file for file in files if ">>> " in file.read_text(encoding="utf-8")]
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in own)


@pytest.mark.parametrize("name", modules())
def test_every_example_gives_what_it_shows(name, demo, monkeypatch):
    monkeypatch.chdir(demo)
    shipped = {key: each for key, each in base._methods.items() if "fuxictr" in each.__module__}
    monkeypatch.setattr(base, "_methods", shipped)  # without those of other tests
    monkeypatch.setattr(registry, "_models", {})
    ran = doctest.testmod(importlib.import_module(name))
    assert ran.attempted
    assert not ran.failed


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_has_an_example_and_its_arguments_are_explained(name):
    doc = NAMES[name].__doc__
    assert ">>>" in doc
    code = getattr(NAMES[name], "__code__", None)
    if code is not None and code.co_argcount > 1:
        for argument in code.co_varnames[: code.co_argcount]:
            assert f"{argument}:" in doc or f"`{argument}`" in doc, argument
