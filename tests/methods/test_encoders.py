"""Encoders against loops over single vectors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fuxictr_miss.methods.encoders import mean_similarity, mlp, similarities


def test_an_mlp_ends_linear(encode_mlp):
    encoder = mlp(3, [5, 4]).double()
    assert [type(layer) for layer in encoder] == [nn.Linear, nn.ReLU, nn.Linear]
    views = torch.randn(2, 4, 3, dtype=torch.float64)
    expected = torch.stack([encode_mlp(encoder, x) for x in views.flatten(0, 1)])
    torch.testing.assert_close(encoder(views).flatten(0, 1), expected)


def test_similarity_is_the_mean_over_the_pairs_there_are():
    first = torch.tensor([[1.0, 0], [0, 2], [1, 1]])
    second = torch.tensor([[3.0, 0], [5, 0], [-1, -1]])  # cosines 1, 0, -1
    for mask, mean in (([1, 1, 0], 0.5), ([0, 1, 1], -0.5), ([0, 0, 0], 0)):
        found = mean_similarity(first, second, torch.tensor(mask).bool())
        assert found.item() == pytest.approx(mean)


def test_negatives_are_the_second_views_of_other_users():
    """Against loops over pairs of rows, in sets of pairs with masks of their own."""
    first, second = torch.randn(2, 6, 2, 3, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 1, 1], [1, 0, 0, 1, 1, 0]]).bool().T
    group = torch.tensor([5, -3, 5, 5, 9, -3])
    cosines = [
        torch.cosine_similarity(first[x, p], second[y, p], dim=0)
        for p in range(2)
        for x in range(6)
        for y in range(6)
        if mask[x, p] and mask[y, p] and group[x] != group[y]
    ]
    positive, negative = similarities(first, second, mask, group, watched=True)
    torch.testing.assert_close(negative, torch.stack(cosines).mean())
    assert torch.equal(positive, mean_similarity(first, second, mask))
    assert similarities(first, second, mask, group, watched=False) == (positive, None)
    alone = similarities(first, second, mask, group.new_zeros(6), watched=True)
    assert alone[1].item() == pytest.approx(0, abs=1e-12)
