"""DMR against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fuxictr.features import FeatureMap
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from model_zoo.DMR import DMR

KEYS = {
    "target_field": [["item_id", "cate_id"]],
    "sequence_field": [["item_history", "cate_history"]],
    "dnn_hidden_units": [6],
    "attention_hidden_units": [3],
    "batch_norm": False,
}
LENGTHS = [5, 2, 1, 0, 3]


def with_types(feature_map: FeatureMap) -> FeatureMap:
    """The type of each behavior (a click, a purchase) as a further sequence."""
    feature_map.features["type_history"] = dict(feature_map.features["cate_history"])
    del feature_map.features["type_history"]["share_embedding"]
    return feature_map


def vectors(tables: nn.ModuleDict, batch: dict[str, Tensor], names: list[str], row: int) -> list:
    """One vector a behavior, in time order."""
    columns = [batch[name][row].tolist() for name in names]
    real = [each for each in zip(*columns, strict=True) if each[0] != 0]
    return [
        torch.cat([tables[name].weight[i] for name, i in zip(names, ids, strict=True)])
        for ids in real
    ]


def scores(net: nn.Module, queries: list[Tensor], behaviors: list[Tensor], run: Callable) -> list:
    result = []
    for query, e in zip(queries, behaviors, strict=True):
        q = (net.W_q[0].weight @ query + net.W_q[0].bias).clamp(min=0)
        result.append(run(net.attn_mlp, torch.cat([q, e, q - e, q * e])))  # a_t
    return result


def weighted_sum(a: list[Tensor], behaviors: list[Tensor]) -> Tensor:
    """sum_t alpha_t e_t, alpha = softmax(a) (Eq. 3, 4 and 12, 13)."""
    total = torch.zeros(8, dtype=torch.float64)
    for each, behavior in zip(a, behaviors, strict=True):
        total = total + torch.exp(each) / sum(torch.exp(other) for other in a) * behavior
    return total


def user(model: nn.Module, batch: dict, row: int, seen: int | None, run: Callable) -> Tensor:
    """u of Eq. 4 after the first `seen` behaviors (None: all)."""
    net = model.u2i_net[0]
    names = ["item_history", "cate_history"]
    behaviors = vectors(model.embedding_layer.embedding_layers, batch, names, row)
    positions = net.pos_emb[5 - len(behaviors) :]  # the newest behavior has the last position
    contexts = [torch.zeros(0, dtype=torch.float64)] * len(behaviors)
    if model.contexts:
        contexts = vectors(model.context_emb_layer, batch, ["type_history"], row)
    queries = [torch.cat(pair) for pair in zip(positions, contexts, strict=True)]
    a = scores(net, queries, behaviors, run)
    pooled = weighted_sum(a[:seen], behaviors[:seen])
    return (net.W_o[0].weight @ pooled + net.W_o[0].bias).clamp(min=0)


def output(model: nn.Module, batch: dict, names: tuple[str, str], row: int, at: object) -> Tensor:
    """v' of the candidate, or of a behavior."""
    tables = model.output_emb_layer
    ids = [batch[name][row] if at is None else batch[name][row][at] for name in names]
    return torch.cat([tables["item_id"].weight[ids[0]], tables["cate_id"].weight[ids[1]]])


@pytest.mark.parametrize("padding", ["post", "pre"])
@pytest.mark.parametrize("context", [None, "type_history"])
def test_both_relevances_and_the_interest_are_fed(
    context: str | None,
    padding: str,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    run_tower: Callable,
) -> None:
    feature_map = make_feature_map(pooled=False)
    batch = make_batch(LENGTHS, padding)
    if context:
        feature_map = with_types(feature_map)
        batch["type_history"] = make_batch(LENGTHS, padding, seed=1)["cate_history"]
    model = build_exact(DMR, feature_map, context_field=context, enable_i2i_rel=True, **KEYS)
    tables = model.embedding_layer.embedding_layers
    for row in range(len(LENGTHS)):
        names = ("user_id", "item_id", "cate_id")
        profile, item, cate = (tables[name].weight[batch[name][row]] for name in names)
        behaviors = vectors(tables, batch, ["item_history", "cate_history"], row)
        net = model.i2i_net[0]
        positions = net.pos_emb[5 - len(behaviors) :]
        contexts = vectors(tables, batch, ["type_history"], row) if context else []
        queries = [
            torch.cat([item, cate, *contexts[t : t + 1], positions[t]])
            for t in range(len(behaviors))
        ]
        a = scores(net, queries, behaviors, run_tower)  # Eq. 10
        interest = weighted_sum(a, behaviors)  # Eq. 13
        rel_i2i = sum(a, torch.zeros(1, dtype=torch.float64))  # Eq. 11
        u = user(model, batch, row, None, run_tower)
        rel_u2i = u @ output(model, batch, ("item_id", "cate_id"), row, None)  # Eq. 5
        seen = torch.cat([interest, rel_i2i, rel_u2i.view(1), profile, item, cate])
        expected = torch.sigmoid(run_tower(model.dnn, seen))
        torch.testing.assert_close(model(batch)["y_pred"][row], expected)


@pytest.mark.parametrize("padding", ["post", "pre"])
@pytest.mark.parametrize("k", [1, 3, 99])
def test_match_loss_tells_the_newest_behavior_from_those_of_other_rows(
    k: int,
    padding: str,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    run_tower: Callable,
) -> None:
    model = build_exact(
        DMR, make_feature_map(pooled=False), aux_loss_beta=0.5, match_negatives=k, **KEYS
    ).train()
    batch = make_batch(LENGTHS, padding)
    for name in ("item_history", "cate_history"):  # rows 0 and 4 end on the same behavior
        newest = LENGTHS[0] - 1 if padding == "post" else -1
        batch[name][4, 2 if padding == "post" else -1] = batch[name][0, newest]
    names = ("item_history", "cate_history")

    def newest_output(row: int) -> Tensor:
        return output(model, batch, names, row, LENGTHS[row] - 1 if padding == "post" else -1)

    losses = []
    for row, length in enumerate(LENGTHS):
        if length < 2:
            continue
        u = user(model, batch, row, length - 1, run_tower)
        loss = -torch.log(torch.sigmoid(u @ newest_output(row)))
        for shift in range(1, min(k, len(LENGTHS) - 1) + 1):
            other = (row - shift) % len(LENGTHS)
            if LENGTHS[other] == 0 or {row, other} == {0, 4}:
                continue
            loss = loss - torch.log(torch.sigmoid(-u @ newest_output(other)))
        losses.append(loss)
    torch.testing.assert_close(model(batch)["aux_loss"], torch.stack(losses).mean())  # Eq. 8


def test_match_loss_takes_negatives_from_the_data_if_named(
    make_feature_map: Callable, make_batch: Callable, build_exact: Callable, run_tower: Callable
) -> None:
    feature_map = make_feature_map(pooled=False)
    for name in ("item_id", "cate_id"):
        feature_map.features[f"neg_{name}"] = feature_map.features[name] | {"share_embedding": name}
    model = build_exact(
        DMR, feature_map, neg_seq_field=[["neg_item_id", "neg_cate_id"]], aux_loss_beta=0.5, **KEYS
    ).train()
    batch, other = make_batch([5, 3]), make_batch([5, 3], seed=1)
    batch |= {f"neg_{name}": other[name] for name in ("item_id", "cate_id")}
    losses = []
    for row, length in enumerate([5, 3]):
        u = user(model, batch, row, length - 1, run_tower)
        positive = u @ output(model, batch, ("item_history", "cate_history"), row, length - 1)
        negative = u @ output(model, batch, ("neg_item_id", "neg_cate_id"), row, None)
        losses.append(-torch.log(torch.sigmoid(positive)) - torch.log(torch.sigmoid(-negative)))
    torch.testing.assert_close(model(batch)["aux_loss"], torch.stack(losses).mean())


def test_match_loss_is_zero_without_two_behaviors_and_absent_in_eval(
    make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    model = build(DMR, make_feature_map(pooled=False), aux_loss_beta=0.5, **KEYS).train()
    assert model(make_batch([1, 0, 1]))["aux_loss"].item() == 0
    assert "aux_loss" not in model.eval()(make_batch([3, 2]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"aux_loss_beta": 0.1, "enable_u2i_rel": False}, "aux_loss_beta"),
        ({"neg_seq_field": "item_id"}, "neg_seq_field"),
        ({"context_field": ["item_history", "cate_history"]}, "context_field"),
    ],
)
def test_keys_that_contradict_each_other_are_explained(
    keys: dict, message: str, make_feature_map: Callable, build: Callable
) -> None:
    with pytest.raises(InputError, match=message):
        build(DMR, make_feature_map(pooled=False), **KEYS | keys)
