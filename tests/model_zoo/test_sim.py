"""SIM against plain loops, and against upstream's, whose batches have another form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fuxictr.features import FeatureMap
from torch import Tensor, nn

from fuxictr_miss.errors import InputError
from model_zoo.SIM import SIM

LENGTHS = [5, 2, 1, 0]


def vectors(model: nn.Module, batch: dict[str, Tensor], row: int) -> list[Tensor]:
    tables = model.embedding_layer.embedding_layer.embedding_layers
    columns = (batch[name][row].tolist() for name in ("item_history", "cate_history"))
    return [
        torch.cat([tables["item_id"].weight[i], tables["cate_id"].weight[c]])
        for i, c in zip(*columns, strict=True)
        if i != 0
    ]


def attend(layer: nn.Module, candidate: Tensor, behaviors: list[Tensor]) -> Tensor:
    """Multi-head attention of the candidate to the behaviors; zero where there is none."""
    if not behaviors:
        return torch.zeros_like(candidate)
    heads = []
    for start in range(0, layer.num_heads * layer.head_dim, layer.head_dim):
        head = slice(start, start + layer.head_dim)
        query = layer.W_q.weight[head] @ candidate / layer.head_dim**0.5
        weights = [torch.exp(query @ (layer.W_k.weight[head] @ each)) for each in behaviors]
        values = [layer.W_v.weight[head] @ each for each in behaviors]
        heads.append(sum(w / sum(weights) * v for w, v in zip(weights, values, strict=True)))
    return layer.W_o.weight @ torch.cat(heads)


@pytest.mark.parametrize("padding", ["post", "pre"])
def test_search_keeps_the_most_relevant_behaviors(
    padding: str,
    make_feature_map: Callable,
    make_batch: Callable,
    build_exact: Callable,
    run_tower: Callable,
) -> None:
    model = build_exact(
        SIM,
        make_feature_map(pooled=False),
        dnn_hidden_units=[6],
        attention_dim=6,
        num_heads=2,
        topk=2,
        short_seq_len=4,
    )
    batch = make_batch(LENGTHS, padding)
    tables = model.embedding_layer.embedding_layer.embedding_layers
    for row in range(len(LENGTHS)):
        names = ("user_id", "item_id", "cate_id")
        user, item, cate = (tables[name].weight[batch[name][row]] for name in names)
        candidate = torch.cat([item, cate])
        behaviors = vectors(model, batch, row)
        relevance = [  # r_i = (W_b e_i) (W_a e_a)'
            (model.W_b.weight @ each) @ (model.W_a.weight @ candidate) for each in behaviors
        ]
        pooled = torch.zeros(8, dtype=torch.float64)
        for r, each in zip(relevance, behaviors, strict=True):
            pooled = pooled + r * each  # U_r
        ranked = sorted(zip(relevance, behaviors, strict=True), key=lambda pair: -pair[0].item())
        found = [behavior for _, behavior in ranked[:2]]
        short_term = attend(model.short_attention, candidate, behaviors[-3:])
        long_term = attend(model.long_attention, candidate, found)
        y_aux = run_tower(model.dnn_aux, torch.cat([user, candidate, pooled]))
        y_pred = run_tower(model.dnn, torch.cat([user, candidate, short_term, long_term]))
        result = model(batch)
        torch.testing.assert_close(result["y_aux"][row], torch.sigmoid(y_aux))
        torch.testing.assert_close(result["y_pred"][row], torch.sigmoid(y_pred))


def test_both_units_are_trained(
    make_feature_map: Callable, make_batch: Callable, build: Callable
) -> None:
    model = build(SIM, make_feature_map(pooled=False), alpha=0.25, beta=0.5)
    result = {"y_pred": torch.tensor([[0.5]]), "y_aux": torch.tensor([[0.25]])}
    expected = 0.25 * torch.tensor(0.25).log() + 0.5 * torch.tensor(0.5).log()
    torch.testing.assert_close(model.add_loss(result, torch.ones(1, 1)), -expected)


def test_what_is_not_there_is_refused(make_feature_map: Callable, build: Callable) -> None:
    for keys in ({"gsu_type": "hard"}, {"accumulation_steps": 2}):
        with pytest.raises(InputError, match=next(iter(keys))):
            build(SIM, make_feature_map(pooled=False), **keys)


@pytest.fixture
def flat_map(make_feature_map: Callable) -> FeatureMap:
    """Upstream's: histories ride in the batch as more rows of the item columns."""
    feature_map = make_feature_map(pooled=False)
    for name in ("item_history", "cate_history"):
        del feature_map.features[name]
    for name in ("item_id", "cate_id"):
        feature_map.features[name]["source"] = "item"
    return feature_map


def test_checkpoints_move_between_here_and_upstream(
    make_feature_map: Callable,
    make_batch: Callable,
    build: Callable,
    load_upstream: Callable,
    flat_map: FeatureMap,
) -> None:
    upstream = load_upstream("LongCTR/SIM/SIM.py", "SIM")
    # upstream's short-term mask is one position off, which shows in histories below short_seq_len
    keys = {"dnn_hidden_units": [6], "num_heads": 2, "short_seq_len": 3}
    ours = build(SIM, make_feature_map(pooled=False), **keys)
    theirs = build(upstream, flat_map, **keys)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, weight in theirs.state_dict().items():  # one seed, one start
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=0, atol=0, msg=name)
    batch = make_batch([5, 3, 4, 5], padding="pre")
    for _ in range(3):
        ours.train().train_step(batch)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    rows = {
        item: torch.cat([batch[history], batch[item].unsqueeze(1)], dim=1).flatten()
        for item, history in (("item_id", "item_history"), ("cate_id", "cate_history"))
    }
    users = {"user_id": batch["user_id"], "label": batch["label"]}
    expected = theirs.eval()((users, rows, (batch["item_history"] != 0).float()))
    result = ours.eval()(batch)
    for name in ("y_pred", "y_aux"):
        torch.testing.assert_close(result[name], expected[name], rtol=1e-5, atol=1e-6)
