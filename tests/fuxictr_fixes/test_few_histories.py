"""FuxiCTR's DIEN on a batch in which hardly a row has a history."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fuxictr_miss as fm
from fuxictr_miss.experiment import build
from fuxictr_miss.fuxictr_fixes.few_histories import tolerate_few_histories


class Theirs(nn.Module):
    """The two steps with FuxiCTR's fault: a single row loses its axis, and no rows are packed."""

    __module__ = "zoo.DIEN.src.DIEN"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.GRU(3, 3, batch_first=True) for _ in range(2))

    def interest_extraction(self, _: int, sequence: Tensor, mask: Tensor) -> tuple:
        lengths = mask.sum(dim=1)
        packed = pack_padded_sequence(sequence, lengths, batch_first=True, enforce_sorted=False)
        packed, _ = self.first(packed)
        return packed, pad_packed_sequence(packed, batch_first=True, total_length=mask.size(1))[0]

    def interest_evolution(self, _: int, packed, interests, target, mask) -> Tensor:
        return self.second(packed)[1].squeeze()

    def forward(self, sequence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        packed, interests = self.interest_extraction(0, sequence, mask)
        return interests, self.interest_evolution(0, packed, interests, sequence[:, 0], mask)


def histories(rows: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 4, 3), torch.ones(rows, 4, dtype=torch.bool)


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_every_number_of_histories_keeps_its_shape(rows: int) -> None:
    model = Theirs()
    tolerate_few_histories(model)
    interests, final = model(*histories(rows))
    assert interests.shape == (rows, 4, 3)
    assert final.shape == (rows, 3)


def test_more_histories_give_the_same_bits_also_in_a_copy() -> None:
    plain, rows = Theirs(), histories(3)
    mended = copy.deepcopy(plain)
    tolerate_few_histories(mended)
    copied = copy.deepcopy(mended)
    with torch.no_grad():
        mended.first.weight_ih_l0.zero_()  # the copy has its own weights
    for theirs, ours in zip(plain(*rows), copied(*rows), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert copied.state_dict().keys() == plain.state_dict().keys()


def test_a_second_call_changes_nothing() -> None:
    model = Theirs()
    tolerate_few_histories(model)
    before = dict(vars(model))
    tolerate_few_histories(model)
    assert vars(model) == before


def test_a_class_that_is_not_of_fuxictrs_zoo_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(Theirs, "__module__", "model_zoo.DIEN.model")
    model = Theirs()
    tolerate_few_histories(model)
    assert "interest_evolution" not in vars(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DIEN", "DIEN_MISS"])
@pytest.mark.parametrize("histories", [0, 1])
def test_fuxictrs_dien_trains_on_such_a_batch(params, name: str, histories: int) -> None:
    zoo = os.environ.get("FUXICTR_ZOO")
    if zoo is None:
        pytest.skip("set FUXICTR_ZOO to the model_zoo folder of a checkout of FuxiCTR")
    assert fm.get_model(name, zoo).__module__ != fm.get_model(name).__module__ or "_" in name
    fields = {"dien_target_field": ["item_id"], "dien_sequence_field": ["item_history"]}
    fields |= {"dien_neg_seq_field": []}
    model, loaders = build({**params, "model": name, "model_zoo_path": zoo, **fields})
    batch = next(iter(loaders["train"]))
    for column in ("item_history", "cate_history"):
        batch[column][histories:] = 0
    model._max_gradient_norm = 10.0
    assert torch.isfinite(model.train().train_step(batch))
