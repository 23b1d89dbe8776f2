"""MIE (Eq. 9, 19, 20) and MIMFE (Eq. 10, 22, 23) against explicit loops over the whole C."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.methods.miss.extractors import (
    HorizontalConvolution,
    LSTMExtractor,
    SelfAttentionExtractor,
    VerticalConvolution,
)

EXACT = {"rtol": 1e-10, "atol": 1e-10}
LENGTHS = [5, 8, 0, 1, 3, 2]
PADDINGS = ["post", "pre", "holes", "trimmed"]


def random_kernels(module: nn.Module, seed: int = 2) -> nn.Module:
    """Kernels of both signs, so that the ReLU has something to do."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return module


def every_window(lengths: list[int], max_width: int, max_len: int) -> Tensor:
    """(B, M, L): all starts 0..L-1, whether there is a window or not."""
    return torch.arange(max_len).expand(len(lengths), max_width, max_len)


@pytest.mark.parametrize("max_width", [1, 2, 3, 5])
def test_horizontal_kernels_count_m_m_plus_1_over_2(max_width: int) -> None:
    kernels = list(HorizontalConvolution(max_width).parameters())
    assert sum(kernel.numel() for kernel in kernels) == max_width * (max_width + 1) // 2


@pytest.mark.parametrize("max_width", [1, 3])
@pytest.mark.parametrize("max_height", [1, 2, 4])
def test_vertical_kernels_count_n_n_plus_1_over_2_a_branch(max_width: int, max_height: int) -> None:
    kernels = list(VerticalConvolution(max_width, max_height).parameters())
    expected = max_width * max_height * (max_height + 1) // 2
    assert sum(kernel.numel() for kernel in kernels) == expected


def test_every_kernel_has_scalars_of_its_own() -> None:
    horizontal = HorizontalConvolution(3)
    horizontal.g.data = torch.arange(1.0, 7.0)
    assert horizontal.kernels().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 2, 3, 0, 0, 0],
        [0, 0, 0, 4, 5, 6],
    ]
    vertical = VerticalConvolution(2, 2)
    vertical.g_hat.data = torch.arange(1.0, 7.0).view(2, 3)
    assert vertical.kernels().tolist() == [[[1, 0], [2, 3]], [[4, 0], [5, 6]]]


def test_no_view_starts_dead_in_the_relu() -> None:
    """Kernels start positive: what is positive in C is positive in G_m and in Ĝ_{m,n}."""
    for seed in range(20):
        torch.manual_seed(seed)
        assert (HorizontalConvolution(6).g > 0).all()
        assert (VerticalConvolution(6, 4).g_hat > 0).all()


def convolve_along_time(
    c: list[list[Tensor]], kernels: dict[int, list[Tensor]]
) -> dict[tuple[int, int, int, int], Tensor]:
    """G_m^{j,l,k} for all j, l and k (Eq. 19)."""
    g = {}
    for m, kernel in kernels.items():
        for j, sequence in enumerate(c):
            for l in range(len(sequence) - m + 1):  # noqa: E741
                for k in range(len(sequence[0])):
                    total = sum(kernel[i] * sequence[l + i][k] for i in range(m))
                    g[m, j, l, k] = torch.relu(total)
    return g


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize("max_width", [1, 3])
def test_horizontal_convolution_equals_loops_at_every_window(
    max_width: int,
    sequences: int,
    padding: str,
    make_ids: Callable,
    make_tables: Callable,
    look_up: Callable,
) -> None:
    behavior = Behavior(make_ids(LENGTHS, sequences, padding).unbind(1), make_tables(sequences, 2))
    module = random_kernels(HorizontalConvolution(max_width))
    scalars = iter(module.g)
    kernels = {m: [next(scalars) for _ in range(m)] for m in range(1, max_width + 1)}
    interests = module(behavior, every_window(LENGTHS, max_width, 8))
    assert interests.shape == (len(LENGTHS), max_width, 8, sequences, 2)
    for b, c in enumerate(look_up(behavior)):
        g = convolve_along_time(c, kernels)
        assert len(g) == sum(max(0, LENGTHS[b] - m + 1) * sequences * 2 for m in kernels)
        for (m, j, l, k), expected in g.items():  # noqa: E741
            torch.testing.assert_close(interests[b, m - 1, l, j, k], expected, **EXACT)


def test_a_branch_reads_and_teaches_only_the_behaviors_under_its_kernel(
    make_tables: Callable,
) -> None:
    tables = make_tables(1, 2)
    tables[0].weight.data.abs_()
    behavior = Behavior(torch.tensor([[[1, 2, 3, 4, 5]]]), tables)
    module = HorizontalConvolution(3).double()
    windows = torch.tensor([[[1], [1], [1]]])
    interests = module(behavior, windows)
    for m in (1, 2, 3):
        (gradient,) = torch.autograd.grad(
            interests[0, m - 1].sum(), tables[0].weight, retain_graph=True
        )
        assert gradient.any(dim=1).nonzero().flatten().tolist() == list(range(2, 2 + m))


@pytest.mark.parametrize(("sequences", "max_height"), [(2, 1), (3, 1), (3, 2), (4, 3), (5, 2)])
def test_vertical_convolution_equals_loops_at_every_row(sequences: int, max_height: int) -> None:
    rows, branches, pairs, dim = 3, 2, 2, 3
    module = random_kernels(VerticalConvolution(branches, max_height))
    draw = torch.Generator().manual_seed(3)
    shape = (rows, branches, max_height, pairs, sequences, dim)
    interests = torch.randn(shape, generator=draw, dtype=torch.float64)
    found = module(interests)
    assert found.shape == shape
    for branch in range(branches):
        scalars = iter(module.g_hat[branch])
        for n in range(1, max_height + 1):
            kernel = [next(scalars) for _ in range(n)]
            g = interests[:, branch, n - 1]  # (B, Q, J, K)
            for j in range(sequences - n + 1):
                total = sum(kernel[i] * g[:, :, j + i] for i in range(n))  # Eq. 22
                torch.testing.assert_close(
                    found[:, branch, n - 1, :, j], torch.relu(total), **EXACT
                )


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sequences", [1, 2])
def test_lstm_state_is_that_of_the_history_alone(
    sequences: int, padding: str, make_ids: Callable, make_tables: Callable, look_up: Callable
) -> None:
    behavior = Behavior(make_ids(LENGTHS, sequences, padding).unbind(1), make_tables(sequences, 2))
    module = random_kernels(LSTMExtractor(sequences, 2))
    interests = module(behavior, every_window(LENGTHS, 1, 8)[:, :, : max(LENGTHS)])
    for b, c in enumerate(look_up(behavior)):
        hidden, cell = (torch.zeros(sequences * 2, dtype=torch.float64) for _ in range(2))
        for l in range(LENGTHS[b]):  # noqa: E741
            x = torch.cat([sequence[l] for sequence in c])
            gates = module.lstm.weight_ih_l0 @ x + module.lstm.bias_ih_l0
            gates = gates + module.lstm.weight_hh_l0 @ hidden + module.lstm.bias_hh_l0
            i, f, g, o = gates.chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            torch.testing.assert_close(interests[b, 0, l], hidden.view(sequences, 2), **EXACT)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sequences", [1, 2])
def test_self_attention_looks_at_the_history_alone(
    sequences: int, padding: str, make_ids: Callable, make_tables: Callable, look_up: Callable
) -> None:
    behavior = Behavior(make_ids(LENGTHS, sequences, padding).unbind(1), make_tables(sequences, 2))
    module = random_kernels(SelfAttentionExtractor(sequences, 2))
    interests = module(behavior, every_window(LENGTHS, 1, 8)[:, :, : max(LENGTHS)])
    attention = module.attention
    to_q, to_k, to_v = attention.in_proj_weight.chunk(3)
    q0, k0, v0 = attention.in_proj_bias.chunk(3)
    for b, c in enumerate(look_up(behavior)):
        x = [torch.cat([sequence[l] for sequence in c]) for l in range(LENGTHS[b])]  # noqa: E741
        for l in range(LENGTHS[b]):  # noqa: E741
            query = to_q @ x[l] + q0
            scores = [query @ (to_k @ each + k0) / math.sqrt(len(query)) for each in x]
            total = sum(torch.exp(score) for score in scores)
            mixed = sum(
                torch.exp(score) / total * (to_v @ each + v0)
                for score, each in zip(scores, x, strict=True)
            )
            expected = attention.out_proj.weight @ mixed + attention.out_proj.bias
            torch.testing.assert_close(interests[b, 0, l], expected.view(sequences, 2), **EXACT)


EXTRACTORS = {
    "cnn": lambda: HorizontalConvolution(1),
    "self_attention": lambda: SelfAttentionExtractor(2, 3),
    "lstm": lambda: LSTMExtractor(2, 3),
}


@pytest.fixture(params=EXTRACTORS.values(), ids=EXTRACTORS)
def extractor(request: pytest.FixtureRequest) -> nn.Module:
    return random_kernels(request.param())


def test_empty_histories_are_finite_and_teach_the_tables_nothing(
    extractor: nn.Module, make_tables: Callable
) -> None:
    tables = make_tables(2, 3)
    behavior = Behavior(torch.zeros(2, 3, 4, dtype=torch.long), tables)
    windows = torch.tensor([0, 1]).expand(3, 1, 2)  # what is drawn where there is no pair
    interests = extractor(behavior, windows)
    assert interests.isfinite().all()
    parameters = [*extractor.parameters(), *(table.weight for table in tables)]
    gradients = torch.autograd.grad(interests.sum(), parameters)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not any(gradient.any() for gradient in gradients[-2:])


def test_an_empty_history_beside_others_is_finite(
    extractor: nn.Module, make_ids: Callable, make_tables: Callable
) -> None:
    tables = make_tables(2, 3)
    behavior = Behavior(make_ids([4, 0, 1], 2).unbind(1), tables)
    interests = extractor(behavior, torch.tensor([0, 1]).expand(3, 1, 2))
    gradients = torch.autograd.grad(interests.sum(), [table.weight for table in tables])
    assert interests.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_windows_past_the_end_of_a_batch_cut_to_one_position_are_finite(
    extractor: nn.Module, make_tables: Callable
) -> None:
    """Where no pair exists windows 0 and 1 are looked up, and a loader may cut L to 1."""
    behavior = Behavior(torch.tensor([[[1], [0]], [[2], [0]]]), make_tables(2, 3))
    interests = extractor(behavior, torch.tensor([0, 1]).expand(2, 1, 2))
    assert interests.shape == (2, 1, 2, 2, 3)
    assert interests.isfinite().all()


def test_what_stands_in_the_padding_row_of_a_table_changes_nothing(
    extractor: nn.Module, make_ids: Callable, make_tables: Callable
) -> None:
    ids = make_ids([4, 1, 3], 2)
    windows = torch.tensor([[[0, 3]], [[0, 0]], [[1, 2]]])
    tables = make_tables(2, 3)
    expected = extractor(Behavior(ids.unbind(1), tables), windows)
    for frozen in (True, False):
        for table in tables:
            table.weight.data[0] = 50.0
            table.padding_idx = 0 if frozen else None
        torch.testing.assert_close(
            extractor(Behavior(ids.unbind(1), tables), windows), expected, **EXACT
        )
