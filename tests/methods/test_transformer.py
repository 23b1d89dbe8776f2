"""The Transformer over a history against loops over single vectors."""

from __future__ import annotations

import pytest
import torch

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods import transformer
from fuxictr_miss.methods.base import get_method
from fuxictr_miss.methods.transformer import (
    SequenceEncoder,
    TransformerBlock,
    TransformerSettings,
)

WIDTH = 6


def sequence_encoder(**changes) -> SequenceEncoder:
    width, causal = changes.pop("width", WIDTH), changes.pop("causal", False)
    settings = TransformerSettings(**{"dropout": 0.5, "max_len": 4, **changes})
    return SequenceEncoder(width, settings, causal, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 2), (3, 3)])
def test_the_newest_state_equals_the_loops_whatever_lies_past_the_end(
    causal, layers, heads, exact, encode_sequence
):
    """Histories longer than `max_len`, too: their oldest behaviors share a position."""
    encoder = exact(sequence_encoder(layers=layers, heads=heads, causal=causal)).eval()
    x = torch.randn(4, 7, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    length = torch.tensor([7, 1, 3, 5])
    found = encoder(x, length)
    for b, n in enumerate(length.tolist()):
        torch.testing.assert_close(found[b], encode_sequence(encoder, list(x[b, :n])))


def test_the_states_of_all_behaviors_are_those_of_the_loops(exact, encode_sequence):
    """Each as if newer behaviors were there, but not seen."""
    encoder = exact(sequence_encoder(causal=True)).eval()
    x = torch.randn(3, 7, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    length = torch.tensor([7, 0, 4])
    found = encoder.states(x, length)
    assert found.isfinite().all()
    for b, n in enumerate(length.tolist()):
        for place in range(n):
            state = encode_sequence(encoder, list(x[b, : place + 1]), newer=n - 1 - place)
            torch.testing.assert_close(found[b, place], state)
    torch.testing.assert_close(found[[0, 2], length[[0, 2]] - 1], encoder(x, length)[[0, 2]])


def test_an_empty_row_is_finite_and_disturbs_no_other(exact):
    encoder = exact(sequence_encoder()).eval()
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    found = encoder(x, torch.tensor([0, 3]))
    assert found.isfinite().all()
    torch.testing.assert_close(found[1:], encoder(x[1:], torch.tensor([3])))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("parts", [2, 4, 99])
def test_short_histories_read_by_themselves_change_nothing(exact, monkeypatch, parts, causal):
    encoder = exact(sequence_encoder(causal=causal, dropout=0.0))
    x = torch.randn(7, 6, WIDTH, dtype=torch.float64, requires_grad=True)
    length = torch.tensor([2, 6, 0, 1, 2, 5, 1])
    found = []
    for number in (1, parts):
        monkeypatch.setattr(transformer, "_PARTS", number)
        newest, states = encoder(x, length), encoder.states(x, length)
        assert states.shape == x.shape
        states = states[torch.arange(6) < length[:, None]]
        gradient = torch.autograd.grad(newest[length > 0].sum() + (states**2).sum(), x)
        found.append((newest[length > 0], states, *gradient))
    torch.testing.assert_close(*found)


def test_several_batches_have_the_states_that_each_has_by_itself(exact):
    encoder = exact(sequence_encoder(dropout=0.0))
    batches = [
        (torch.randn(3, longest, WIDTH, dtype=torch.float64), torch.tensor(length))
        for longest, length in ((4, [4, 1, 2]), (5, [3, 3, 4]))
    ]
    for states, batch in zip(encoder.each(*batches), batches, strict=True):
        torch.testing.assert_close(states, encoder(*batch))


def test_dropout_is_drawn_from_the_generator_and_in_training_only(exact):
    encoder = exact(sequence_encoder())
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    length = torch.tensor([3, 2])
    before = torch.get_rng_state()
    first, second = encoder(x, length), encoder(x, length)
    encoder.generator.manual_seed(1)
    again = encoder(x, length)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    encoder.eval()
    assert torch.equal(encoder(x, length), encoder(x, length))


def test_every_parameter_learns(exact):
    encoder = exact(sequence_encoder(causal=True))
    encoder(torch.randn(3, 5, WIDTH, dtype=torch.float64), torch.tensor([5, 4, 2])).sum().backward()
    for name, parameter in encoder.named_parameters():
        if not name.endswith("key.bias"):  # a shift of all keys cancels in the softmax
            assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("name", "causal"),
    [("CL4SRec", True), ("DuoRec", True), ("ICSRec", True), ("NextItem", True), ("S3Rec", False)],
)
def test_behaviors_see_older_ones_only_except_where_both_sides_tell_a_segment(name, causal):
    """As in SASRec, which the papers build on. The methods' loops follow what the encoder is."""
    kind = get_method(name)
    method = kind(SSLSettings(), kind.Settings(), 2, 4, torch.Generator())
    assert method.encoder.causal == causal


@pytest.mark.parametrize("heads", [4, 5, 7])
def test_heads_that_do_not_divide_the_width_are_refused_with_those_that_do(heads):
    with pytest.raises(InputError, match=r"_heads to one of 1, 2, 3, 6\."):
        sequence_encoder(heads=heads)


def test_a_block_without_a_mask_looks_at_everything(exact):
    block = exact(TransformerBlock(WIDTH, 2, 0.0, torch.Generator()))
    h = torch.randn(2, 4, WIDTH, dtype=torch.float64)
    everything = torch.ones(1, 4, 4, dtype=torch.bool)
    torch.testing.assert_close(block(h, h), block(h, h, everything))
