"""Names, and what is said about names that do not exist."""

from __future__ import annotations

import dataclasses
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import fuxictr_miss as fm
from fuxictr_miss import registry
from fuxictr_miss.methods import base


def test_every_backbone_has_every_method():
    names = fm.list_models()
    for backbone in ("DIN", "DNN", "FiGNN", "PNN"):
        assert {backbone, *(f"{backbone}_{method}" for method in fm.list_methods())} <= set(names)
    assert names == sorted(names)


def test_helper_modules_of_the_zoo_are_no_models():
    assert not {"fields", "histories", "one_row"} & set(fm.list_models())


def test_miss_is_din_miss():
    assert fm.get_model("MISS").__name__ == "DIN_MISS"


def test_an_enhanced_class_is_a_subclass_of_its_backbone():
    enhanced = fm.get_model("PNN_MISS")
    assert issubclass(enhanced, fm.get_model("PNN"))
    assert enhanced.__name__ == "PNN_MISS"


@pytest.mark.parametrize(
    ("wrong", "right"), [("DIN_MIS", "DIN_MISS"), ("dnn", "DNN"), ("FIGNN_MISS", "FiGNN_MISS")]
)
def test_an_unknown_model_names_the_closest_and_all(wrong, right):
    with pytest.raises(ValueError, match=f"Did you mean '{right}'") as error:
        fm.get_model(wrong)
    assert all(name in str(error.value) for name in ("DIN", "PNN_MISS"))


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'MISS'"):
        fm.enhance(fm.get_model("DIN"), "MIS")


def test_models_and_methods_of_other_packages_join_by_decorator(monkeypatch):
    monkeypatch.setattr(registry, "_models", {})
    monkeypatch.setattr(base, "_methods", dict(base._methods))

    @fm.register_model("Mine")
    class Mine(fm.get_model("DNN")):
        pass

    @fm.register_method("OTHER")
    class Other(nn.Module):
        forward = len

        @dataclasses.dataclass
        class Settings:
            pass

    assert fm.get_model("Mine") is Mine
    assert "Mine_OTHER" in fm.list_models()
    assert fm.get_model("Mine_OTHER")._ssl_backbone is Mine


def test_a_model_that_hides_another_or_none_at_all_is_refused(monkeypatch):
    monkeypatch.setattr(registry, "_models", {})
    backbone = type("Fresh", (fm.get_model("DNN"),), {})
    for name, reason in (("DIN", "already"), ("MISS", "already"), ("A_MISS", "end in"),
                         ("a b", "letters")):  # fmt: skip
        with pytest.raises(ValueError, match=reason):
            fm.register_model(name)(backbone)
    with pytest.raises(ValueError, match="BaseModel"):
        fm.register_model("Linear")(nn.Linear)
    fm.register_model("Fresh")(backbone)
    with pytest.raises(ValueError, match="already"):
        fm.register_model("Fresh")(fm.get_model("DIN"))


def test_a_zoo_folder_comes_before_our_own(tmp_path):
    source = "from model_zoo.DNN import DNN as Base\nclass DNN(Base):\n    mine = True\n"
    (tmp_path / "DNN" / "src").mkdir(parents=True)
    (tmp_path / "DNN" / "src" / "DNN.py").write_text(source)
    assert fm.get_model("DNN_MISS", zoo=tmp_path).mine


def test_a_zoo_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no_such_zoo"):
        fm.get_model("X", zoo="no_such_zoo")


def test_our_zoo_is_found_beside_another_and_the_other_stays(tmp_path):
    """FuxiCTR's wheel has a folder model_zoo without an __init__."""
    (tmp_path / "model_zoo" / "DIN" / "src").mkdir(parents=True)
    code = f"""import pickle, sys
import model_zoo
assert model_zoo.__file__ is None
before = dict(vars(model_zoo))
sys.path.append({str(Path(fm.__file__).resolve().parents[1])!r})
import fuxictr_miss as fm
classes = [fm.get_model(name) for name in ("DIN", "DIN_MISS", "MISS")]
assert classes[0].__module__ == "fuxictr_miss.model_zoo.DIN.model"
assert sys.modules["model_zoo"] is model_zoo and vars(model_zoo) == before
sys.stdout.buffer.write(pickle.dumps(classes))"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE
    )
    assert pickle.loads(done.stdout) == [
        fm.get_model(name) for name in ("DIN", "DIN_MISS", "DIN_MISS")
    ]


@pytest.mark.parametrize("with_checkout", [False, True])
def test_fuxictrs_scripts_get_classes_from_our_zoo_and_theirs_if_a_checkout_is_on_the_path(
    tmp_path, with_checkout
):
    """As its demo: sys.path.append("../"), and then from model_zoo import DIN."""
    folder = tmp_path / "model_zoo" / "DIN" / "src"
    if with_checkout:
        folder.mkdir(parents=True)
        (tmp_path / "model_zoo" / "__init__.py").write_text("from .DIN.src import DIN\n")
        source = "from fuxictr.pytorch.models import BaseModel\nclass DIN(BaseModel): ...\n"
        (folder / "DIN.py").write_text(source)
    code = f"""import sys
sys.path.insert(0, {str(Path(fm.__file__).resolve().parents[1])!r})
sys.path.append({str(tmp_path)!r})
from model_zoo import DIN, fields
from model_zoo.DIN import DIN as ours
try:
    from model_zoo import DINN
except ImportError:
    print(DIN is ours)"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == f"{not with_checkout}\n"


@pytest.mark.parametrize("name", sorted({*registry._own_names(), "MISS"}))
def test_both_names_of_our_zoo_lead_to_one_class(name):
    theirs = getattr(importlib.import_module(f"model_zoo.{name}"), name)
    assert theirs is fm.get_model(name)
