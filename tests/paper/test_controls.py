"""The control rows of the tables do what their names say."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import yaml

from fuxictr_miss import experiment
from fuxictr_miss.paper.plan import Planner, variants_of
from fuxictr_miss.training import fit
from paper.conftest import an_experiment


def built(name: str):
    """The row of Table III with this name, on the small data."""
    variant = next(each for each in variants_of(["table_3"]) if each.name == name)
    params = {**an_experiment("config", variant, "small").params, "model_id": "control", "gpu": -1}
    return params, *experiment.build(params)


def test_tables_as_drawn_get_the_norms_of_the_recipe_and_learn_nothing(place):
    params, model, loaders = built("DIN, tables as drawn")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = fit(model, loaders["train"], params["epochs"], loaders["valid"])
    assert [row["phase"] for row in rows] == ["pretrain", "label"]
    after = model.state_dict()
    (item,) = (name for name in after if name.endswith(".item_id.weight"))
    assert torch.equal(after[item.replace("item_id", "user_id")],
                       before[item.replace("item_id", "user_id")])  # fmt: skip
    norm, old = after[item].norm(dim=1), before[item].norm(dim=1)
    seen = norm > 0
    assert seen.sum() > 10
    cosine = (after[item] * before[item]).sum(dim=1)[seen] / (norm * old)[seen]
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    assert norm[seen].mean().item() == pytest.approx(1, abs=1e-5)
    assert any(not torch.equal(after[n], before[n]) for n in after if "embedding" not in n)


def test_without_the_user_id_a_model_has_no_table_of_it_and_runs(place):
    params, model, loaders = built("DIN, no user id")
    names = [name for name, _ in model.named_parameters()]
    assert not any("user_id" in name for name in names)
    assert any("item_id" in name for name in names)
    (row,) = fit(model, loaders["train"], params["epochs"], loaders["valid"])
    assert row["phase"] == "label"


def test_the_column_that_groups_the_rows_has_to_stay(place):
    file = place / "config" / "dataset_config.yaml"
    datasets = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({"grouped": {**datasets["small"], "group_id": "user_id"}}))
    models = (place / "config" / "model_config.yaml").read_text()
    (place / "config" / "model_config.yaml").write_text(models.replace("small", "grouped"))
    planner = Planner(str(place / "config"))
    (variant,) = (v for v in variants_of(["table_4"]) if v.name == "DIN")
    assert planner.experiment(variant, "grouped", 1) is not None
    variant = dataclasses.replace(variant, without="user_id")
    assert planner.experiment(variant, "grouped", 1) is None
    assert "(group_id), which has to stay" in planner.absence(variant, "grouped")
