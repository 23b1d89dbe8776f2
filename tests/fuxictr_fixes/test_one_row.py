"""Batch norm on a batch of one row."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row


def test_one_row_uses_the_running_statistics_and_leaves_them_alone() -> None:
    norm = nn.BatchNorm1d(3)
    tolerate_one_row(norm)
    norm(torch.randn(8, 3))
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    row = torch.randn(1, 3)
    result = norm(row)
    assert norm.training
    torch.testing.assert_close(dict(norm.named_buffers()), before)
    torch.testing.assert_close(result, copy.deepcopy(norm).eval()(row))


def test_more_rows_are_normalised_as_ever() -> None:
    plain, norm = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    tolerate_one_row(norm)
    norm(torch.randn(1, 3))
    rows = torch.randn(4, 3)
    torch.testing.assert_close(norm(rows), plain(rows), rtol=0, atol=0)
    assert norm.state_dict().keys() == plain.state_dict().keys()


def test_a_failed_call_does_not_end_training() -> None:
    norm = nn.BatchNorm1d(3)
    tolerate_one_row(norm)
    with pytest.raises(RuntimeError):
        norm(torch.randn(1, 5))
    assert norm.training


def test_a_second_call_changes_nothing() -> None:
    norm = nn.BatchNorm1d(3)
    tolerate_one_row(norm)
    hooks = len(norm._forward_pre_hooks)
    tolerate_one_row(norm)
    assert len(norm._forward_pre_hooks) == hooks
