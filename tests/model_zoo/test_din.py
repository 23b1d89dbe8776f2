"""DIN against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from model_zoo.DIN import DIN

ONE_GROUP = {
    "din_target_field": [["item_id", "cate_id"]],
    "din_sequence_field": [["item_history", "cate_history"]],
}
TWO_GROUPS = {
    "din_target_field": ["item_id", "cate_id"],
    "din_sequence_field": ["item_history", "cate_history"],
}


def activation_unit(block: nn.Module, target: Tensor, behavior: Tensor) -> Tensor:
    """a(e_j, v_A), with Dice: p(s) s + (1 - p(s)) alpha s, p(s) = sigmoid((s - E) / std)."""
    first, dice, last = block.mlp
    seen = torch.cat([target, behavior, target - behavior, target * behavior])
    s = first.weight @ seen + first.bias
    p = torch.sigmoid((s - dice.bn.running_mean) / (dice.bn.running_var + dice.bn.eps).sqrt())
    return last.weight @ (p * s + (1 - p) * dice.alpha * s) + last.bias


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("padding", ["post", "pre"])
@pytest.mark.parametrize("groups", [ONE_GROUP, TWO_GROUPS], ids=["one group", "two groups"])
def test_history_is_weighed_by_its_attention_to_the_candidate(
    groups: dict,
    padding: str,
    softmax: bool,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    run_tower: Callable,
) -> None:
    model = build_exact(
        DIN,
        make_feature_map(pooled=False),
        dnn_hidden_units=[6],
        attention_hidden_units=[3],
        din_use_softmax=softmax,
        **groups,
    )
    batch = make_batch([5, 2, 1, 0], padding)
    tables = model.embedding_layer.embedding_layers

    def vector(names: list[str], row: int, step: int | None = None) -> Tensor:
        ids = [batch[name][row] if step is None else batch[name][row, step] for name in names]
        return torch.cat([tables[name].weight[i] for name, i in zip(names, ids, strict=True)])

    for row, length in enumerate([5, 2, 1, 0]):
        fields = [vector([name], row) for name in ("user_id", "item_id", "cate_id")]
        for number, (targets, sequences) in enumerate(model.groups):
            unit = model.attention_layers[number].attention_layer
            steps = range(length) if padding == "post" else range(5 - length, 5)
            behaviors = [vector(sequences, row, step) for step in steps]
            weights = [activation_unit(unit, vector(targets, row), each) for each in behaviors]
            if softmax:
                weights = [torch.exp(w) / sum(torch.exp(each) for each in weights) for w in weights]
            interest = torch.zeros(4 * len(targets), dtype=torch.float64)
            for weight, behavior in zip(weights, behaviors, strict=True):
                interest = interest + weight * behavior  # Eq. 3
            fields.append(interest)
        expected = torch.sigmoid(run_tower(model.dnn, torch.cat(fields)))
        torch.testing.assert_close(model(batch)["y_pred"][row], expected)


@pytest.mark.parametrize(
    ("target", "sequence"),
    [
        ("item_id", "item_history"),
        (["item_id"], ["item_history"]),
        ([["item_id"]], [["item_history"]]),
        ([("item_id",)], [("item_history",)]),
    ],
)
def test_one_field_may_be_written_in_any_form(
    target: object, sequence: object, make_feature_map: Callable, build: Callable
) -> None:
    keys = {"din_target_field": target, "din_sequence_field": sequence}
    model = build(DIN, make_feature_map(pooled=False), **keys)
    assert model.groups == [(("item_id",), ("item_history",))]


def test_a_sequence_that_no_key_names_is_averaged(
    make_feature_map: Callable, make_batch: Callable, build_exact: Callable
) -> None:
    keys = {"din_target_field": "item_id", "din_sequence_field": "item_history"}
    batch = make_batch([5, 2, 0])
    unpooled = make_feature_map(pooled=False)
    encoded = make_feature_map(pooled=False)
    encoded.features["cate_history"]["feature_encoder"] = "layers.MaskedAveragePooling()"
    torch.testing.assert_close(
        build_exact(DIN, unpooled, **keys)(batch), build_exact(DIN, encoded, **keys)(batch)
    )


@pytest.mark.parametrize(
    ("target", "sequence", "message"),
    [
        ("item_id", ["item_history", "cate_history"], "pair up"),
        ([["item_id", "cate_id"]], [["item_history"]], "pair up"),
        ([], [], "pair up"),
        ("item_id", "item_histroy", "'item_histroy'.*'item_history'"),
        ("item_id", "cate_id", "not a sequence"),
    ],
)
def test_groups_that_do_not_fit_are_explained(
    target: object, sequence: object, message: str, make_feature_map: Callable, build: Callable
) -> None:
    keys = {"din_target_field": target, "din_sequence_field": sequence}
    with pytest.raises(InputError, match=message):
        build(DIN, make_feature_map(pooled=False), **keys)
