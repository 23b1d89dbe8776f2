"""What a method must have, and which names it can carry."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from torch import nn

import fuxictr_miss as fm
from fuxictr_miss.methods import base


@pytest.fixture(autouse=True)
def _own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_methods", dict(base._methods))


def method_class(**body: object) -> type:
    settings = dataclasses.make_dataclass("Settings", [])
    return type("AMethod", (nn.Module,), {"Settings": settings, "forward": len, **body})


@pytest.mark.parametrize("name", ["My_Method", "", "two words", "ssl", "SSL", "Größe", "a-b"])
def test_a_method_by_a_name_that_no_model_can_carry_is_refused(name):
    with pytest.raises(ValueError, match="cannot be called"):
        fm.register_method(name)(method_class())


@pytest.mark.parametrize("name", ["MISS", "Miss", "s3rec"])
def test_a_second_method_of_a_name_or_its_keys_is_refused(name):
    before = dict(base._methods)
    with pytest.raises(ValueError, match="already"):
        fm.register_method(name)(method_class())
    assert base._methods == before


def test_the_cell_that_defines_a_method_may_run_again():
    for _ in range(2):
        last = fm.register_method("Cell")(method_class())
    assert base.get_method("Cell") is last


@pytest.mark.parametrize(
    "settings",
    [
        None,
        dict,
        dataclasses.make_dataclass("Settings", [("width", "int")]),
        dataclasses.make_dataclass("Settings", [("width", "Whole", 3)]),  # a name that is not there
        dataclasses.make_dataclass("Settings", [("width", nn.Linear, None)]),
    ],
)
def test_a_method_without_settings_or_a_default_is_refused_and_breaks_no_model(settings):
    with pytest.raises(ValueError, match="dataclass Settings"):
        fm.register_method("Bare")(method_class(Settings=settings))
    assert "Bare" not in fm.list_methods()


@pytest.mark.parametrize("method", [len, object, nn.Module, type("A", (nn.Module,), {})])
def test_a_method_that_is_no_module_or_computes_nothing_is_refused(method):
    with pytest.raises(ValueError, match=r"torch\.nn\.Module"):
        fm.register_method("Bare")(method)


def test_our_methods_are_known_wherever_the_first_import_is():
    code = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]:\n"
        "    for name in [each for each in sys.modules if each.startswith('fuxictr_miss')]:\n"
        "        del sys.modules[name]\n"
        "    importlib.import_module(f'fuxictr_miss.{module}')\n"
        "    print(*importlib.import_module('fuxictr_miss').list_methods())\n"
    )
    first = ("registry", "methods.base", "methods.miss", "mixin", "self_supervision")
    found = subprocess.run([sys.executable, "-c", code, *first], capture_output=True, check=True)
    ours = "CL4CTR CL4SRec DuoRec ICSRec IRSSL Item2Vec MAP MISS NextItem PPMI Rule S3Rec"
    assert found.stdout.decode().splitlines() == [ours] * len(first)


def test_methods_import_nothing_that_uses_them():
    code = "import sys, fuxictr_miss.methods; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    above = {f"fuxictr_miss.{each}" for each in ("registry", "mixin", "training", "embeddings")}
    assert not above & set(found.stdout.decode().split())
