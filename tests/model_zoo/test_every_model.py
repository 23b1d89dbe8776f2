"""What holds for every backbone: it learns, survives odd batches, and checkpoints move."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.trained_number

TOWER = [8, 8]


@dataclass(frozen=True)
class Case:
    """One way to build a model: the class, its keys, where upstream keeps its file."""

    name: str
    keys: dict[str, Any] = field(default_factory=dict)
    pooled: bool = True
    upstream_file: str | None = ""
    upstream_keys: dict[str, Any] = field(default_factory=dict)
    upstream_padding: str = "post"

    def __str__(self) -> str:
        return self.name

    @property
    def cls(self) -> type[nn.Module]:
        return getattr(importlib.import_module(f"model_zoo.{self.name}"), self.name)


PAIR = ("item_id", "cate_id"), ("item_history", "cate_history")
ONE_GROUP = [list(PAIR[0])], [list(PAIR[1])]  # as YAML writes it
TWO_GROUPS = list(PAIR[0]), list(PAIR[1])
TUPLES = [PAIR[0]], [PAIR[1]]  # as FuxiCTR takes it


def keys_for(prefix: str, fields: tuple[list, list]) -> dict[str, Any]:
    return {f"{prefix}target_field": fields[0], f"{prefix}sequence_field": fields[1]}


def din(fields: tuple[list, list] = ONE_GROUP, **keys: Any) -> Case:
    return Case(
        "DIN",
        keys_for("din_", fields) | {"dnn_hidden_units": TOWER} | keys,
        pooled=False,
        upstream_keys=keys_for("din_", TUPLES if fields is ONE_GROUP else fields),
    )


def dien(fields: tuple[list, list] = ONE_GROUP, upstream: str | None = "", **keys: Any) -> Case:
    return Case(
        "DIEN",
        keys_for("dien_", fields) | {"dnn_hidden_units": TOWER} | keys,
        pooled=False,
        upstream_file=upstream,
        upstream_keys=keys_for("dien_", TUPLES if fields is ONE_GROUP else fields)
        | {"dien_neg_seq_field": []},
    )


def dmr(fields: tuple[list, list] = ONE_GROUP, **keys: Any) -> Case:
    return Case(
        "DMR",
        keys_for("", fields) | {"dnn_hidden_units": TOWER} | keys,
        pooled=False,
        upstream_keys=keys_for("", TUPLES if fields is ONE_GROUP else fields)
        | {"neg_seq_field": None, "context_field": None},
        upstream_padding="pre",  # it reads the last position as the newest behavior
    )


CASES = {
    "LR": Case("LR"),
    "FM": Case("FM"),
    "DNN": Case("DNN", {"hidden_units": TOWER}, upstream_file="DNN/DNN_torch/src/DNN.py"),
    "DNN batch norm": Case(
        "DNN",
        {"hidden_units": TOWER, "batch_norm": True},
        upstream_file="DNN/DNN_torch/src/DNN.py",
    ),
    "DeepFM": Case(
        "DeepFM", {"hidden_units": TOWER}, upstream_file="DeepFM/DeepFM_torch/src/DeepFM.py"
    ),
    "PNN": Case("PNN", {"hidden_units": TOWER}),
    "DCN": Case("DCN", {"dnn_hidden_units": TOWER}, upstream_file="DCN/DCN_torch/src/DCN.py"),
    "DCN crosses": Case("DCN", upstream_file="DCN/DCN_torch/src/DCN.py"),
    "DCNv2": Case("DCNv2", {"parallel_dnn_hidden_units": TOWER}),
    "DCNv2 no tower": Case("DCNv2", upstream_file=None),  # upstream: IndexError
    "DCNv2 both": Case(
        "DCNv2",
        {
            "model_structure": "stacked_parallel",
            "parallel_dnn_hidden_units": TOWER,
            "stacked_dnn_hidden_units": TOWER,
        },
    ),
    "DCNv2 mixture": Case(
        "DCNv2", {"parallel_dnn_hidden_units": TOWER, "use_low_rank_mixture": True, "low_rank": 3}
    ),
    "xDeepFM": Case("xDeepFM", {"dnn_hidden_units": TOWER, "cin_hidden_units": [3, 2]}),
    "xDeepFM CIN": Case("xDeepFM", {"dnn_hidden_units": None, "cin_hidden_units": [3, 2]}),
    "AutoInt": Case("AutoInt", {"dnn_hidden_units": TOWER}),
    "AutoInt wide": Case(
        "AutoInt",
        {
            "dnn_hidden_units": None,
            "use_wide": True,
            "num_heads": 2,
            "layer_norm": True,
            "use_scale": True,
        },
    ),
    "FiGNN": Case("FiGNN"),
    "FiGNN add": Case("FiGNN", {"use_gru": False, "reuse_graph_layer": True}),
    "FiGNN attention": Case("FiGNN", {"attention_heads": 2}, upstream_file=None),
    "DIN": din(),
    "DIN two groups": din(TWO_GROUPS, din_use_softmax=True),
    "DIN dice": din(dnn_activations="Dice", batch_norm=True),
    "DIEN": dien(),
    "DIEN two groups": dien(TWO_GROUPS, gru_type="AGRU", enable_sum_pooling=True),
    "DIEN GRU": dien(gru_type="GRU"),
    "DIEN AIGRU": dien(gru_type="AIGRU", upstream=None),  # upstream: shapes do not broadcast
    "DIEN din attention": dien(attention_type="din_attention", use_attention_softmax=False),
    "DIEN auxiliary": dien(aux_loss_alpha=0.5),
    "DMR": dmr(),
    "DMR two groups": dmr(TWO_GROUPS, enable_i2i_rel=True, enable_sum_pooling=True),
    "DMR i2i only": dmr(enable_u2i_rel=False, enable_i2i_rel=True, use_pos_emb=False),
    "DMR match": dmr(aux_loss_beta=0.5, enable_i2i_rel=True, match_negatives=3),
    "SIM": Case("SIM", {"dnn_hidden_units": TOWER}, pooled=False, upstream_file=None),
    "SIM search": Case(
        "SIM",
        {"dnn_hidden_units": TOWER, "topk": 2, "short_seq_len": 3, "num_heads": 2},
        pooled=False,
        upstream_file=None,  # its batches have another form: see test_sim.py
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_training_lowers_the_loss(
    case: Case, make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    model = build(case.cls, make_feature_map(case.pooled), **case.keys).train()
    batch = make_batch([5, 3, 1, 2, 4, 5])
    losses = [model.train_step(batch).item() for _ in range(15)]
    assert losses[-1] < losses[0]


def test_empty_histories_give_finite_predictions_and_gradients(
    case: Case, make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    model = build(case.cls, make_feature_map(case.pooled), **case.keys).train()
    for lengths in ([0, 3, 0, 5], [0, 0, 0]):
        batch = make_batch(lengths)
        loss = model.train_step(batch)
        assert loss.isfinite()
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        assert model.eval()(batch)["y_pred"].isfinite().all()
        model.train()


def test_a_last_batch_of_one_row_trains(
    case: Case, make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    model = build(case.cls, make_feature_map(case.pooled), **case.keys).train()
    for length in (0, 1, 5):
        batch = make_batch([length])
        assert model.train_step(batch).isfinite()
        assert model(batch)["y_pred"].shape == (1, 1)


def test_predictions_do_not_depend_on_where_the_padding_is(
    case: Case, make_feature_map: Callable, make_batch: Callable, build_exact: Callable
) -> None:
    model = build_exact(case.cls, make_feature_map(case.pooled), **case.keys)
    lengths = [0, 3, 2, 1]
    last, first = make_batch(lengths, padding="post"), make_batch(lengths, padding="pre")
    expected = model(last)["y_pred"]
    torch.testing.assert_close(model(first)["y_pred"], expected)
    cut = {name: column[:, :3] if column.dim() == 2 else column for name, column in last.items()}
    torch.testing.assert_close(model(cut)["y_pred"], expected)
    cut = {name: column[:, -3:] if column.dim() == 2 else column for name, column in first.items()}
    torch.testing.assert_close(model(cut)["y_pred"], expected)


def test_one_behavior_of_one_row_trains(
    case: Case, make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    model = build(case.cls, make_feature_map(case.pooled), **case.keys).train()
    for length in (0, 1):
        batch = make_batch([length])
        cut = {
            name: column[:, :1] if column.dim() == 2 else column for name, column in batch.items()
        }
        assert model.train_step(cut).isfinite()


def test_an_empty_row_does_not_depend_on_the_rows_beside_it(
    case: Case, make_feature_map: Callable, make_batch: Callable, build_exact: Callable
) -> None:
    model = build_exact(case.cls, make_feature_map(case.pooled), **case.keys)
    batch = make_batch([0, 5, 2])
    alone = {name: column[:1] for name, column in batch.items()}
    torch.testing.assert_close(model(batch)["y_pred"][:1], model(alone)["y_pred"])


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of nn.GRU, by torch itself
@pytest.mark.parametrize("case", [CASES[name] for name in CASES if " " not in name], ids=str)
def test_torch_export_follows_any_batch_size(
    case: Case, make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    class Prediction(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.model(inputs)["y_pred"]

    model = Prediction(build(case.cls, make_feature_map(case.pooled), **case.keys).eval())
    batches = [make_batch(lengths) for lengths in ([5, 3, 0, 2], [1, 0, 4, 5, 2], [0])]
    for batch in batches:
        del batch["label"]
    shapes = ({name: {0: torch.export.Dim("rows")} for name in batches[0]},)
    exported = torch.export.export(model, (batches[0],), dynamic_shapes=shapes).module()
    for batch in batches:
        torch.testing.assert_close(exported(batch), model(batch))


def test_checkpoints_move_between_here_and_upstream(
    case: Case,
    make_feature_map: Callable,
    make_batch: Callable,
    build: Callable,
    load_upstream: Callable,
) -> None:
    if case.upstream_file is None:
        pytest.skip("upstream has no such form")
    upstream = load_upstream(case.upstream_file or f"{case.name}/src/{case.name}.py", case.name)
    feature_map = make_feature_map(case.pooled)
    ours = build(case.cls, feature_map, **case.keys)
    theirs = build(upstream, feature_map, **case.keys | case.upstream_keys)
    for name, weight in theirs.state_dict().items():  # one seed, one start
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=0, atol=0, msg=name)
    batch = make_batch([5, 3, 1, 2, 4, 5], padding=case.upstream_padding)
    for _ in range(3):
        ours.train().train_step(batch)
    theirs.aux_loss_alpha = theirs.aux_loss_beta = 0  # theirs want columns of negatives in eval too
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(
        ours.eval()(batch)["y_pred"], theirs.eval()(batch)["y_pred"], rtol=1e-5, atol=1e-6
    )
