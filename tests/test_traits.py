"""What a class says of itself, and what is known of FuxiCTR's classes."""

from __future__ import annotations

from pathlib import Path

import pytest

import fuxictr_miss as fm
from fuxictr_miss.registry import _own_names
from fuxictr_miss.traits import Traits, possible_traits


def in_zoo(file: Path, name: str) -> type:
    """A class of a zoo that is written in `file`."""
    file.parent.mkdir(parents=True)
    file.write_text(
        f"from fuxictr.pytorch.models import BaseModel\nclass {name}(BaseModel): pass\n"
    )
    return fm.get_model(name, file.parent)


def test_our_own_models_use_masks_and_may_be_trimmed():
    for name in _own_names():
        (traits,) = possible_traits(fm.get_model(name))
        assert traits == Traits(pooled=traits.pooled, trim=True), name


@pytest.mark.parametrize(
    ("name", "padding", "trim"),
    [("BST", None, False), ("DIEN", "post", True), ("DMR", "pre", False), ("MaskNet", None, True)],
)
def test_fuxictrs_classes_are_known_by_name_and_place(tmp_path, name, padding, trim):
    theirs = fm.get_model(name, in_zoo_of_fuxictr(tmp_path, name))
    assert possible_traits(theirs) == [
        Traits(pooled=pooled, trim=trim, padding=padding) for pooled in (True, False)
    ]
    elsewhere = possible_traits(in_zoo(tmp_path / "mine" / f"{name}.py", name))
    assert [(each.padding, each.trim) for each in elsewhere] == [(padding, False)] * 2


def in_zoo_of_fuxictr(folder: Path, name: str) -> Path:
    in_zoo(folder / "theirs" / name / "src" / f"{name}.py", name)
    return folder / "theirs"


def test_a_class_derived_from_a_known_one_is_never_trimmed():
    class Mine(fm.get_model("DIN")):
        pass

    assert possible_traits(Mine) == [Traits(pooled=False, trim=False)]


def test_what_a_class_says_itself_wins():
    class Mine(fm.get_model("DIN")):
        traits = Traits(pooled=True, trim=True, padding="pre")

    assert possible_traits(Mine) == [Mine.traits]
