"""What an enhanced model keeps of its backbone's promises: copies, files, names, a second fit."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel

import fuxictr_miss as fm
from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.training import fit
from fuxictr_miss.training.mixed_precision import autocast

pytestmark = pytest.mark.trained_number

ROOT = Path(__file__).resolve().parents[1]


def build(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, Any]]:
    model = changes.get("model", "DIN_MISS")
    return experiment.build({**params, "model": model, "model_id": model, **changes})


def trained(params: dict[str, Any], **changes: Any) -> tuple[Any, dict[str, Any]]:
    model, loaders = build(params, **changes)
    fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"])
    return model, loaders


def same_state(first: BaseModel, second: BaseModel) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return list(one) == list(other) and all(torch.equal(one[k], other[k]) for k in one)


# ----------------------------------------------------------------- weight 0


@pytest.mark.parametrize("regularizer", ["embedding_regularizer", "net_regularizer"])
@pytest.mark.parametrize("strategy", ["joint", "pretrain"])
def test_weight_zero_is_the_plain_backbone_under_every_regularizer(params, regularizer, strategy):
    changes = {regularizer: 0.5, "ssl_training": strategy}
    plain, loaders = trained(params, model="DIN", **changes)
    enhanced, _ = trained(params, ssl_weight=0, **changes)
    assert same_state(plain, enhanced)
    assert plain.evaluate(loaders["test"]) == enhanced.evaluate(loaders["test"])


def test_in_the_label_phase_a_regularizer_leaves_the_method_alone(params):
    """It has no part in that loss: its weights neither move nor fill the gradient clip."""
    changes = {"net_regularizer": 0.5, "ssl_training": "pretrain", "ssl_pretrain_epochs": 1}
    model, loaders = build(params, **changes)
    seen = []
    step = type(model).train_step

    def spy(self, batch):
        loss = step(self, batch)
        part = self._self_supervision.methods
        seen.append([p.detach().clone() for p in part.parameters()])
        assert all(p.grad is None for p in part.parameters())
        return loss

    model.train_step = spy.__get__(model)
    fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[-1], strict=True))


# ----------------------------------------------------------------- fit, twice


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_fit_leaves_the_model_as_it_came_but_for_what_it_has_learned(params, scale):
    changes = {"ssl_training": "pretrain", "ssl_pretrain_epochs": 1, "verbose": 1}
    model, loaders = build(params, ssl_label_gradient=scale, ssl_other_gradient=scale, **changes)
    before = [(list(map(id, g["params"])), g["lr"]) for g in model.optimizer.param_groups]
    fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    after = [(list(map(id, g["params"])), g["lr"]) for g in model.optimizer.param_groups]
    assert after == before
    assert all(p.requires_grad for p in model.parameters())
    assert model._verbose == 1
    assert model._self_supervision.active
    assert not model._state_dict_hooks


def test_an_interrupted_fit_leaves_the_model_as_it_came(params, monkeypatch):
    model, loaders = build(params, ssl_training="pretrain", ssl_pretrain_epochs=1,
                           ssl_label_gradient=0.0, ssl_other_gradient=0.0, verbose=1)  # fmt: skip

    def interrupt(batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "train_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert all(p.requires_grad for p in model.parameters())
    assert len(model.optimizer.param_groups) == 1
    assert model._verbose == 1


def test_fit_twice_is_two_fits(params):
    """A second fit of one model, and a fit of a copy of it, end with the same bits."""
    changes = {
        "ssl_training": "pretrain",
        "ssl_pretrain_epochs": 1,
        "ssl_label_gradient": 0.0,
        "ssl_other_gradient": 0.0,
    }
    model, loaders = trained(params, **changes)
    twin, others = copy.deepcopy((model, loaders))
    fit(model, loaders["train"], epochs=2, validation_data=loaders["valid"])
    fit(twin, others["train"], epochs=2, validation_data=others["valid"])
    assert same_state(model, twin)
    tables = model._self_supervision.sources[0].tables(model)
    assert all(t.weight.grad is None for t in tables)  # nothing piles up behind a frozen table


# ----------------------------------------------------------------- copies and files


@pytest.mark.parametrize(
    "name",
    ["DIN_MISS", "PNN_S3Rec", "DNN_IRSSL", "DIN_ICSRec", "PNN_MAP", "PNN_Item2Vec", "DIN_NextItem"],
)
def test_copies_and_files_of_a_model_predict_its_bits(params, name):
    model, loaders = trained(params, model=name)
    expected = model.predict(loaders["test"])
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    )
    for each in copies:
        assert type(each) is type(model)
        assert same_state(each, model)
        assert (each.predict(loaders["test"]) == expected).all()


def test_a_copy_trains_like_the_original_and_without_touching_it(params):
    model, loaders = build(params, ssl_training="pretrain_joint", ssl_pretrain_epochs=1)
    untouched = {name: value.clone() for name, value in model.state_dict().items()}
    twin, others = copy.deepcopy((model, loaders))
    fit(twin, others["train"], epochs=1, validation_data=others["valid"])
    assert all(torch.equal(model.state_dict()[k], v) for k, v in untouched.items())
    fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert same_state(model, twin)


def test_a_model_loads_in_a_new_process(params, tmp_path):
    zoo = tmp_path / "their_zoo" / "Net" / "src"
    zoo.mkdir(parents=True)
    source = "from model_zoo.DNN import DNN as Base\nclass Net(Base):\n    pass\n"
    (zoo / "Net.py").write_text(source)
    root = str(tmp_path / "their_zoo")
    for name, changes in (
        ("DIN_MISS", {}),
        ("DIN_MISS", {"autocast": "bf16"}),
        ("Net_MISS", {"model_zoo_path": root}),
    ):
        model, loaders = build(params, model=name, **changes)
        batch = {k: v.clone() for k, v in next(iter(loaders["test"])).items()}
        file = tmp_path / "model.pt"
        torch.save((model, batch), file)
        code = (
            f"import sys, torch; sys.path.insert(0, {str(ROOT)!r})\n"
            f"model, batch = torch.load({str(file)!r}, weights_only=False)\n"
            "with torch.no_grad(): print(model.eval().forward(batch)['y_pred'].tolist())\n"
            "print(type(model).__name__)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        predicted, kind = done.stdout.splitlines()
        with torch.no_grad():
            expected = model.eval().forward(batch)["y_pred"].tolist()
        assert torch.allclose(torch.tensor(eval(predicted)), torch.tensor(expected), atol=1e-7)
        assert kind == name


def test_one_class_a_backbone_and_method():
    din = fm.get_model("DIN")
    assert fm.enhance(din) is fm.enhance(din, "MISS") is fm.enhance(din, method="MISS")
    assert fm.get_model("DIN_MISS") is fm.enhance(din)
    assert pickle.loads(pickle.dumps(fm.enhance(din))) is fm.enhance(din)
    low = autocast(fm.enhance(din), "bf16")
    assert pickle.loads(pickle.dumps(low)) is low


def test_enhancing_twice_is_refused():
    with pytest.raises(InputError, match=r"DIN_MISS is already enhanced.*Enhance DIN"):
        fm.enhance(fm.get_model("DIN_MISS"), "S3Rec")


# ----------------------------------------------------------------- names


class Crowded(BaseModel):
    """A backbone with attributes that a careless mixin would take for its own."""

    def __init__(self, feature_map: Any, model_id: str = "Own", gpu: int = -1, **kwargs: Any):
        super().__init__(feature_map, model_id=model_id, gpu=gpu, **kwargs)
        self.backbone = MLP_Block(feature_map.num_fields * 4, [8], output_dim=1)
        self.embedding_layer = FeatureEmbedding(feature_map, 4)
        self.method = self.ssl = self.settings = self.active = "mine"
        self.sources = self.generator = self.losses = self.last = self.arguments = "mine"
        self.compile(kwargs["optimizer"], kwargs["loss"], 1e-2)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        embedded = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        return {"y_pred": self.output_activation(self.backbone(embedded))}


def test_a_backbones_own_attributes_are_never_shadowed(params):
    some, loaders = build(params, model="DNN")
    plain = Crowded(some.feature_map, **params)
    model = fm.enhance(Crowded)(some.feature_map, **params)
    own = {name for name in vars(plain) if vars(plain)[name] == "mine"}
    assert own
    assert all(getattr(model, name) == "mine" for name in own)
    assert isinstance(model.backbone, MLP_Block)
    assert set(vars(model)) == set(vars(plain))
    assert set(model._modules) - set(plain._modules) == {"_self_supervision"}
    model.fit(loaders["train"], validation_data=loaders["valid"], epochs=1)
    again = model.to_backbone()
    assert type(again) is Crowded
    assert (again.predict(loaders["test"]) == model.predict(loaders["test"])).all()
