"""Models of other people's: what is found in a folder, and what is said where one does not load."""

from __future__ import annotations

import logging
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fuxictr_miss as fm
from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.zoo import Zoo

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "upstream_zoo.py"
LONG = {"ETA", "MIRRN", "SDIM", "SIM", "TWIN"}  # take tuples
UNTRAINED = {
    *LONG,
    "LR",
    "QNN",
    "QNN_alpha",
}  # no table to enhance; two do not run on FuxiCTR 2.3.10
UNEXPORTED = {*LONG, "DIEN", "QNN", "QNN_alpha"}  # DIEN packs its histories by their lengths
DNN = "from model_zoo.DNN import DNN as Base\n"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A folder laid out as FuxiCTR's, with everything that can go wrong in one."""
    files = {
        "Net/src/__init__.py": "raise RuntimeError('is not run')",
        "Net/src/Net.py": f"{DNN}from .parts.layers import NAME\nclass Net(Base):\n    name = NAME",
        "Net/src/parts/layers.py": "from ..names import NAME",
        "Net/src/names.py": "NAME = 'net'",
        "Two/src/Two.py": "from fuxictr.pytorch.models import BaseModel\n"
        "class First(BaseModel): pass\nclass Second(First): pass\nclass Helper: pass",
        "Tf/Tf_tf/src/Tf.py": "import tensorflow as tf\nclass Tf(tf.Model): pass",
        "Tf/Tf_torch/src/Tf.py": f"{DNN}class Tf(Base): pass",
        "Long/Twice/Twice.py": f"{DNN}class Twice(Base):\n"
        "    def get_inputs(self, inputs):\n        batch_dict, item_dict, mask = inputs",
        "Twice/src/Twice.py": f"{DNN}class Twice(Base): pass",
        "Long/Only/Only.py": f"{DNN}class Only(Base):\n"
        "    def get_inputs(self, inputs):\n        batch_dict, item_dict, mask = inputs",
        "Broken/src/Broken.py": "class Broken(:",
        "Missing/src/Missing.py": f"import no_such_module\n{DNN}class Missing(Base): pass",
        "Other/src/Other.py": "from dict_like import D\nclass Other(D): pass",
        ".hidden/Hidden.py": f"{DNN}class Hidden(Base): pass",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_models_are_found_by_their_source_alone(zoo):
    assert Zoo(zoo).names == ["First", "Missing", "Net", "Other", "Second", "Tf", "Twice"]


def test_relative_imports_work_and_no_init_is_run(zoo):
    model = fm.get_model("Net_MISS", zoo=zoo)
    assert model.__name__ == "Net_MISS"
    assert model.name == "net"


def test_a_class_that_is_asked_for_twice_is_the_same(zoo):
    assert fm.get_model("Net", zoo) is fm.get_model("Net_MISS", zoo)._ssl_backbone


def test_the_form_for_tensorflow_is_passed_over(zoo):
    assert "Tf_torch" in Zoo(zoo).load("Tf").__module__


def test_of_two_classes_of_one_name_the_one_for_ordinary_batches_is_taken(zoo):
    assert Zoo(zoo).load("Twice").__module__.endswith(".Twice.src.Twice")


def test_ours_is_taken_where_the_zoo_has_only_one_for_tuples(zoo):
    source = (zoo / "Long" / "Only" / "Only.py").read_text().replace("Only", "SIM")
    (zoo / "Long" / "SIM.py").write_text(source)
    assert fm.get_model("SIM", zoo) is fm.get_model("SIM")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Only_MISS", "tuples of FuxiCTR's LongCTR loader"),
        ("Broken_MISS", r"Broken.* cannot be read: .*Broken\.py"),
        ("Missing", r"Missing\.py cannot be imported: ModuleNotFoundError: .*no_such_module"),
        ("Nett_MISS", "Did you mean 'Net_MISS'"),
    ],
)
def test_a_model_that_does_not_load_says_why_in_one_sentence(zoo, name, words):
    with pytest.raises(InputError, match=words):
        fm.get_model(name, zoo)


def test_a_class_that_is_no_model_of_fuxictr_is_refused(zoo):
    (zoo / "dict_like.py").write_text("")
    (zoo / "Other" / "src" / "Other.py").write_text("class D: pass\nclass Other(D): pass")
    with pytest.raises(InputError, match=r"Other in .* is not derived from FuxiCTR's BaseModel"):
        fm.get_model("Other", zoo)


def test_the_root_of_a_checkout_will_do(zoo, tmp_path):
    root = tmp_path / "FuxiCTR"
    (root / "model_zoo").mkdir(parents=True)
    (root / "demo").mkdir()
    (root / "demo" / "Demo.py").write_text(f"{DNN}class Demo(Base): pass")
    (root / "model_zoo" / "Mine.py").write_text(f"{DNN}class Mine(Base): pass")
    assert Zoo(root).names == ["Mine"]


def test_a_package_is_imported_under_its_own_name(tmp_path, monkeypatch):
    folder = tmp_path / "someones" / "models"
    folder.mkdir(parents=True)
    (tmp_path / "someones" / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("SIZE = 7")
    (folder / "Theirs.py").write_text(
        f"{DNN}from someones.models import SIZE\nclass Theirs(Base):\n    size = SIZE"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = fm.get_model("Theirs_MISS", zoo="someones.models")
    assert model.size == 7
    assert model._ssl_backbone is sys.modules["someones.models.Theirs"].Theirs
    assert "Theirs_MISS" in fm.list_models("someones.models")


@pytest.mark.parametrize("path", ["no_such_zoo", "no.such.zoo", "json.decoder", "../nowhere"])
def test_a_zoo_that_is_neither_folder_nor_package_is_named(path):
    with pytest.raises(InputError, match="neither a folder nor a package"):
        Zoo(path)


@pytest.fixture
def _loud() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_loud")
def test_the_table_of_a_zoo_says_of_each_class_what_became_of_it(zoo, monkeypatch, capsys):
    for name in ("Missing", "Other", "Net", "Two", "Tf"):
        for file in (zoo / name).rglob("*.py"):
            file.unlink()
    monkeypatch.setattr(sys, "argv", ["upstream_zoo.py", str(zoo)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    head, _, only, twice = capsys.readouterr().out.splitlines()
    assert head.startswith("| model | trains with `_MISS` | first loss | fifth loss |")
    assert only.startswith("| Only | no: Only (Long/Only/Only.py) takes the tuples")
    cells = twice.split(" | ")
    assert cells[:2] == ["| Twice", "yes"]
    assert float(cells[3]) < float(cells[2])
    assert cells[4:] == ["yes", "same bits |"]


@pytest.mark.slow
@pytest.mark.usefixtures("_loud")
def test_fuxictrs_own_classes_train_enhanced(monkeypatch, capsys):
    path = os.environ.get("FUXICTR_ZOO")
    if path is None:
        pytest.skip("set FUXICTR_ZOO to the model_zoo folder of a checkout of FuxiCTR")
    monkeypatch.setattr(sys, "argv", ["upstream_zoo.py", path])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 63
    for name, trains, _, _, one_row, backbone in (row for row in rows if row[0] not in UNTRAINED):
        assert (trains, backbone) == ("yes", "same bits"), name
        assert one_row == "yes" or name == "DIEN", name


@pytest.mark.slow
@pytest.mark.usefixtures("_loud")
def test_fuxictrs_own_classes_are_exported_or_refused_in_a_sentence(monkeypatch, capsys):
    path = os.environ.get("FUXICTR_ZOO")
    if path is None:
        pytest.skip("set FUXICTR_ZOO to the model_zoo folder of a checkout of FuxiCTR")
    monkeypatch.setattr(sys, "argv", ["upstream_zoo.py", path, "--export"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert {name for name, exports in rows if exports != "yes"} <= UNEXPORTED
