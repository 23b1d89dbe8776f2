"""MISS as a whole against Eq. 15, 16 and 18 to 24 written out as loops, in float64."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.losses import fused
from fuxictr_miss.methods.base import SSLLosses, get_method
from fuxictr_miss.methods.miss import MISS, MISSSettings
from fuxictr_miss.methods.miss.augmentation import draw_feature_pairs, draw_interest_pairs

EXACT = {"rtol": 1e-10, "atol": 1e-10}
TAU = 0.2
K = 3
LENGTHS = [5, 8, 0, 1, 3, 2, 5, 4]
TWINS = (0, 6)  # rows that share one history

Views = list[tuple[Tensor, Tensor] | None]  # of one pair number, row by row; None: no pair


def build(sequences: int, *, seed: int = 0, **keys: Any) -> MISS:
    """MISS in float64, every weight drawn wide and of both signs."""
    keys = {"interest_encoder": [6, 5], "feature_encoder": [4]} | keys
    generator = torch.Generator().manual_seed(seed)
    method = MISS(SSLSettings(temperature=TAU), MISSSettings(**keys), sequences, K, generator)
    draw = torch.Generator().manual_seed(30)
    for parameter in method.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return method


def encode(encoder: nn.Sequential, h: Tensor) -> Tensor:
    """Enc of Eq. 13, 14: an MLP, ReLU between its layers."""
    linear = [layer for layer in encoder if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(linear):
        h = layer.weight @ h + layer.bias
        if number < len(linear) - 1:
            h = torch.relu(h)
    return h


def contrast(pairs: list[Views], groups: list, tau: float = TAU) -> Tensor:
    """Eq. 15 and 16; 0 where there is no pair. Rows of one group are no negatives."""
    terms = []
    for views in pairs:
        present = [x for x, view in enumerate(views) if view is not None]
        for x in present:
            z1, z2 = views[x]
            negatives = [views[other][1] for other in present if groups[other] != groups[x]]
            own = torch.cosine_similarity(z1, z2, dim=0)
            total = torch.exp(own / tau)
            for negative in negatives:
                total = total + torch.exp(torch.cosine_similarity(z1, negative, dim=0) / tau)
            terms.append(torch.log(torch.exp(own / tau) / total))
    return -sum(terms) / len(terms) if terms else torch.zeros((), dtype=torch.float64)


class Paper(NamedTuple):
    """What the variant and the extractor leave of M and H, and whether there is a feature level."""

    branches: int  # M
    max_distance: int  # H
    heights: int  # N, as far as there are two rows: J - n + 1 >= 2


def interests_by_loops(method: MISS, c: list[list[Tensor]], branches: int) -> list[list[Tensor]]:
    """[m-1][l]: G_m^{:,l,:} (J, K) of one row, by the extractor of Table VII or Eq. 19."""
    length = len(c[0])
    if length == 0:
        return [[] for _ in range(branches)]
    steps = [torch.stack([sequence[l] for sequence in c]) for l in range(length)]  # noqa: E741
    flat = torch.stack([step.flatten() for step in steps])[None]  # (1, n, JK), no padding at all
    if method.settings.extractor == "lstm":
        states, _ = method.extractor.lstm(flat)
        return [[state.view(-1, K) for state in states[0]]]
    if method.settings.extractor == "self_attention":
        states, _ = method.extractor.attention(flat, flat, flat)
        return [[state.view(-1, K) for state in states[0]]]
    scalars = iter(method.extractor.g)
    rectify = torch.relu if method.settings.activation == "relu" else torch.clone
    interests = []
    for m in range(1, branches + 1):
        kernel = [next(scalars) for _ in range(m)]
        interests.append(
            [
                rectify(sum(kernel[i] * steps[l + i] for i in range(m)))
                for l in range(length - m + 1)  # noqa: E741
            ]
        )
    return interests


def by_loops(method: MISS, behavior: Behavior, c: list, paper: Paper, draws: Tensor) -> SSLLosses:
    """MISS on a batch whose C is `c`, with the pairs that the generator state `draws` gives."""
    replay = torch.Generator()
    replay.set_state(draws)
    keys = method.settings
    lengths = torch.tensor([len(row[0]) for row in c])
    sequences = len(c[0])
    histories = [
        [step for step in zip(*row, strict=True) if all(step)]
        for row in torch.stack(behavior.columns, dim=1).tolist()
    ]
    g = [interests_by_loops(method, row, paper.branches) for row in c]  # [b][m-1][l]

    drawn = draw_interest_pairs(lengths, paper.branches, paper.max_distance, keys.num_pairs, replay)
    interest_pairs: list[Views] = []
    similarities = [torch.zeros((), dtype=torch.float64)]  # of the pairs of interests (Fig. 5)
    for m in range(1, paper.branches + 1):
        for p in range(keys.num_pairs):
            views: Views = []
            for b in range(len(c)):
                if len(g[b][m - 1]) < 2:
                    views.append(None)
                    continue
                windows = drawn.windows[b, m - 1, p].tolist()
                t1, t2 = (g[b][m - 1][place].flatten() for place in windows)  # Eq. 20, 21
                similarities.append(torch.cosine_similarity(t1, t2, dim=0))
                encoder = method.interest_encoder
                views.append((encode(encoder, t1), encode(encoder, t2)))  # Eq. 13
            interest_pairs.append(views)
    loss = contrast(interest_pairs, histories)
    similarity = sum(similarities) / max(1, len(similarities) - 1)
    if paper.heights == 0:
        return SSLLosses(loss, torch.zeros((), dtype=torch.float64), similarity)

    chosen = draw_feature_pairs(
        lengths, sequences, paper.branches, paper.heights, keys.num_feature_pairs, replay
    )
    feature_pairs: list[Views] = []
    for m in range(1, paper.branches + 1):
        scalars = iter(method.vertical.g_hat[m - 1])
        for n in range(1, paper.heights + 1):
            kernel = [next(scalars) for _ in range(n)]
            for q in range(keys.num_feature_pairs):
                views = []
                for b in range(len(c)):
                    if not g[b][m - 1]:
                        views.append(None)
                        continue
                    window = g[b][m - 1][int(chosen.window[b, m - 1, n - 1, q])]
                    g_hat = [
                        torch.relu(sum(kernel[i] * window[j + i] for i in range(n)))  # Eq. 22
                        for j in range(sequences - n + 1)
                    ]
                    j1, j2 = chosen.rows[b, m - 1, n - 1, q].tolist()  # Eq. 24
                    encoder = method.feature_encoder
                    views.append((encode(encoder, g_hat[j1]), encode(encoder, g_hat[j2])))
                feature_pairs.append(views)
    return SSLLosses(loss, contrast(feature_pairs, histories), similarity)


CASES = {
    "J=1": (1, {}, Paper(3, 3, 0)),
    "J=2": (2, {}, Paper(3, 3, 1)),
    "J=3": (3, {}, Paper(3, 3, 2)),
    "M=1": (2, {"max_width": 1}, Paper(1, 3, 1)),
    "M=5": (2, {"max_width": 5}, Paper(5, 3, 1)),
    "H=1": (2, {"max_distance": 1}, Paper(3, 1, 1)),
    "H=9, longer than any history": (2, {"max_distance": 9}, Paper(3, 9, 1)),
    "N=1": (3, {"max_height": 1}, Paper(3, 3, 1)),
    "N=4, higher than J": (3, {"max_height": 4}, Paper(3, 3, 2)),
    "P=2, Q=3": (3, {"num_pairs": 2, "num_feature_pairs": 3}, Paper(3, 3, 2)),
    "deeper encoders": (
        2,
        {"interest_encoder": [5, 4, 4], "feature_encoder": [4, 3]},
        Paper(3, 3, 1),
    ),
    "no ReLU in Eq. 19": (3, {"activation": "identity"}, Paper(3, 3, 2)),
    "/F": (3, {"variant": "/F"}, Paper(3, 3, 0)),
    "/F/U": (2, {"variant": "/F/U"}, Paper(1, 3, 0)),
    "/F/L": (2, {"variant": "/F/L"}, Paper(3, 1, 0)),
    "/F/U/L": (2, {"variant": "/F/U/L", "num_pairs": 3}, Paper(1, 1, 0)),
    "self-attention": (2, {"extractor": "self_attention", "num_pairs": 2}, Paper(1, 3, 1)),
    "lstm": (3, {"extractor": "lstm", "num_feature_pairs": 2}, Paper(1, 3, 2)),
}


def check_against_loops(
    method: MISS, behavior: Behavior, c: list, paper: Paper, parameters: list[Tensor]
) -> None:
    """Values, and gradients of both losses by every parameter and table."""
    draws = method.generator.get_state()
    losses = method(behavior)
    expected = by_loops(method, behavior, c, paper, draws)
    for value, right in zip(losses[:3], expected[:3], strict=True):
        torch.testing.assert_close(value.double(), right, **EXACT)
    for value, right in ((losses.ssl, expected.ssl), (losses.feature, expected.feature)):
        torch.testing.assert_close(
            gradients(value, parameters), gradients(right, parameters), **EXACT
        )


def gradients(loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """With zeros for what the loss does not depend on."""
    if not loss.requires_grad:
        return [torch.zeros_like(each) for each in parameters]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    pairs = zip(found, parameters, strict=True)
    return [torch.zeros_like(each) if grad is None else grad for grad, each in pairs]


def trainable(method: MISS, tables: list[nn.Embedding]) -> list[Tensor]:
    return [*method.parameters(), *(table.weight for table in tables)]


@pytest.mark.parametrize(("sequences", "keys", "paper"), CASES.values(), ids=CASES)
def test_both_losses_and_their_gradients_equal_the_equations(
    sequences: int,
    keys: dict[str, Any],
    paper: Paper,
    make_ids: Callable,
    make_tables: Callable,
    look_up: Callable,
) -> None:
    ids = make_ids(LENGTHS, sequences)
    ids[TWINS[1]] = ids[TWINS[0]]
    tables = make_tables(sequences, K)
    behavior = Behavior(ids.unbind(1), tables)
    method = build(sequences, **keys)
    check_against_loops(method, behavior, look_up(behavior), paper, trainable(method, tables))


@pytest.mark.parametrize("padding", ["pre", "holes", "trimmed"])
@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize(
    "lengths",
    [LENGTHS, [4], [1], [0], [0, 0, 0], [1, 1, 1], [2, 0, 1]],
    ids=lambda lengths: " ".join(map(str, lengths)),
)
def test_equations_hold_for_every_padding_and_degenerate_batch(
    lengths: list[int],
    sequences: int,
    padding: str,
    make_ids: Callable,
    make_tables: Callable,
    look_up: Callable,
) -> None:
    tables = make_tables(sequences, K)
    behavior = Behavior(make_ids(lengths, sequences, padding).unbind(1), tables)
    method = build(sequences, max_width=2)
    paper = Paper(2, 3, min(2, sequences - 1))
    check_against_loops(method, behavior, look_up(behavior), paper, trainable(method, tables))


@pytest.mark.parametrize("extractor", ["cnn", "self_attention", "lstm"])
def test_padding_changes_nothing(extractor: str, make_ids: Callable, make_tables: Callable) -> None:
    tables = make_tables(2, K)
    found = []
    for padding in ("post", "pre", "trimmed"):
        method = build(2, extractor=extractor)
        found.append(method(Behavior(make_ids([3, 5, 0, 1, 2], 2, padding).unbind(1), tables)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], **EXACT)


@pytest.mark.parametrize("extractor", ["cnn", "self_attention", "lstm"])
@pytest.mark.parametrize("length", [1, 4])
def test_a_batch_of_empty_histories_costs_and_teaches_exactly_nothing(
    length: int, extractor: str, make_tables: Callable
) -> None:
    tables = make_tables(2, K)
    behavior = Behavior(torch.zeros(2, 3, length, dtype=torch.long), tables, watched=True)
    method = build(2, extractor=extractor)
    losses = method(behavior)
    assert [loss.item() for loss in losses] == [0, 0, 0, 0]
    assert not any(grad.any() for grad in gradients(losses.ssl, trainable(method, tables)))
    assert not any(grad.any() for grad in gradients(losses.feature, trainable(method, tables)))


@pytest.mark.parametrize("extractor", ["cnn", "self_attention", "lstm"])
def test_histories_of_length_one_have_feature_pairs_but_no_interest_pairs(
    extractor: str, make_ids: Callable, make_tables: Callable
) -> None:
    method = build(2, extractor=extractor)
    losses = method(Behavior(make_ids([1, 1, 1, 0], 2, "trimmed").unbind(1), make_tables(2, K)))
    assert losses.ssl.item() == losses.similarity.item() == 0
    assert losses.feature.item() > 0


def test_one_row_is_its_own_and_only_choice(make_ids: Callable, make_tables: Callable) -> None:
    losses = build(2)(Behavior(make_ids([6], 2).unbind(1), make_tables(2, K)))
    assert losses.ssl.item() == losses.feature.item() == 0
    assert losses.similarity.item() != 0


def test_a_batch_of_one_user_alone_has_nothing_to_push_apart(
    make_ids: Callable, make_tables: Callable
) -> None:
    """The positive and the negative instance of a user share the history."""
    ids = make_ids([6], 2).repeat(4, 1, 1)
    losses = build(2)(Behavior(ids.unbind(1), make_tables(2, K)))
    assert losses.ssl.item() == losses.feature.item() == 0


def test_gradient_reaches_every_parameter_and_table_but_no_padding_row(
    make_ids: Callable, make_tables: Callable
) -> None:
    tables = make_tables(3, K)
    ids = make_ids([6, 8, 7, 5, 8, 0, 1, 2], 3)
    method = build(3, num_pairs=4, num_feature_pairs=4)
    for kernels in (method.extractor.g, method.vertical.g_hat):
        kernels.data.abs_()  # a negative one may die in the ReLU
    losses = method(Behavior(ids.unbind(1), tables))
    names = [name for name, _ in method.named_parameters()]
    assert {name.split(".")[0] for name in names} == {
        "extractor",
        "vertical",
        "interest_encoder",
        "feature_encoder",
    }
    found = gradients(losses.ssl + losses.feature, list(method.parameters()))
    for name, gradient in zip(names, found, strict=True):
        assert gradient.any(), name
        if name in ("extractor.g", "vertical.g_hat"):
            assert gradient.all(), name  # every scalar of every kernel
    for loss in (losses.ssl, losses.feature):
        for j, gradient in enumerate(gradients(loss, [table.weight for table in tables])):
            assert not gradient[0].any()
            learned = set(gradient.any(dim=1).nonzero().flatten().tolist())
            assert learned
            assert learned <= set(ids[:, j].unique().tolist())


def test_values_stay_finite_for_large_and_for_zero_embeddings(
    make_ids: Callable, make_tables: Callable
) -> None:
    for scale in (0.0, 1e-30, 1e6):
        tables = [table.float() for table in make_tables(2, K)]
        for table in tables:
            table.weight.data *= scale
        method = build(2).float()
        losses = method(Behavior(make_ids(LENGTHS, 2).unbind(1), tables, watched=True))
        assert all(loss.isfinite() for loss in losses)
        found = gradients(losses.ssl + losses.feature, trainable(method, tables))
        assert all(gradient.isfinite().all() for gradient in found)


def test_similarity_carries_no_gradient(make_ids: Callable, make_tables: Callable) -> None:
    losses = build(2)(Behavior(make_ids(LENGTHS, 2).unbind(1), make_tables(2, K)))
    assert not losses.similarity.requires_grad
    assert -1 <= losses.similarity.item() <= 1


def test_all_draws_come_from_the_generator_of_the_method(
    make_ids: Callable, make_tables: Callable
) -> None:
    behavior = Behavior(make_ids(LENGTHS, 2).unbind(1), make_tables(2, K), watched=True)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    method = build(2, seed=5)
    first, second = method(behavior), method(behavior)
    torch.manual_seed(2)
    again = build(2, seed=5)(behavior)
    assert torch.equal(torch.stack(again), torch.stack(first))
    assert not torch.equal(torch.stack(second), torch.stack(first))
    torch.manual_seed(1)
    method(behavior)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("sequences", "variant", "notices"), [(1, "", 1), (1, "/F", 0), (2, "", 0), (2, "/F", 0)]
)
def test_one_sequence_is_noticed_once_unless_no_feature_pairs_are_asked_for(
    sequences: int,
    variant: str,
    notices: int,
    make_ids: Callable,
    make_tables: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        method = build(sequences, variant=variant)
        for _ in range(3):
            method(Behavior(make_ids(LENGTHS, sequences).unbind(1), make_tables(sequences, K)))
    messages = [record.message for record in caplog.records]
    assert len(messages) == notices
    assert all("J = 1" in message for message in messages)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        # J = 3, K = 3: M(M+1)/2 + M N(N+1)/2 and the encoders' weights and biases
        ({}, 6 + 3 * 3 + (9 * 6 + 6 + 6 * 5 + 5) + (3 * 4 + 4)),
        ({"max_width": 2, "max_height": 1}, 3 + 2 * 1 + (9 * 6 + 6 + 6 * 5 + 5) + (3 * 4 + 4)),
        ({"variant": "/F"}, 6 + (9 * 6 + 6 + 6 * 5 + 5)),
        ({"variant": "/F/U"}, 1 + (9 * 6 + 6 + 6 * 5 + 5)),
        ({"interest_encoder": [7], "variant": "/F"}, 6 + (9 * 7 + 7)),
    ],
)
def test_parameters_are_those_of_section_v_e(keys: dict[str, Any], expected: int) -> None:
    assert sum(parameter.numel() for parameter in build(3, **keys).parameters()) == expected


class _Operations(TorchDispatchMode):
    """Counts what the dispatcher is asked to do."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("extractor", ["cnn", "self_attention"])
def test_no_loop_runs_over_users_positions_pairs_or_widths(
    extractor: str, make_ids: Callable, make_tables: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "SIMILARITIES_PER_PART", 2**30)  # memory is not cut into parts
    counts = []
    for rows, max_len, more in ((2, 6, 1), (50, 30, 4)):
        tables = make_tables(3, K)
        ids = make_ids([max_len, 3] * rows, 3, max_len=max_len)
        method = build(
            3, extractor=extractor, max_width=1 + more, num_pairs=more, num_feature_pairs=more
        )
        with _Operations() as operations:
            found = method(Behavior(ids.unbind(1), tables))
            (found.ssl + found.feature).backward()
        counts.append(operations.count)
    # a loop adds an operation a turn, 24 at least; a view may become a copy, as sizes permit
    assert counts[1] - counts[0] < 10


class _Floats(TorchDispatchMode):
    """Adds up the floating-point numbers that are written."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.count += result.numel()
        return result


def test_a_long_history_costs_no_more_arithmetic_than_a_short_one(
    make_ids: Callable, make_tables: Callable
) -> None:
    counts = []
    for max_len in (50, 500):
        with _Floats() as floats:
            losses = build(2)(
                Behavior(
                    make_ids([max_len, 9, 50], 2, max_len=max_len).unbind(1), make_tables(2, K)
                )
            )
            (losses.ssl + losses.feature).backward()
        counts.append(floats.count)
    assert counts[0] == counts[1] > 0


def test_only_behaviors_under_a_kernel_of_a_drawn_window_are_looked_up(make_ids: Callable) -> None:
    asked = []

    class Counting(nn.Embedding):
        def forward(self, ids: Tensor) -> Tensor:
            asked.append(int((ids != 0).sum()))
            return super().forward(ids)

    tables = [Counting(12, K, padding_idx=0, dtype=torch.float64) for _ in range(3)]
    ids = make_ids([40] * 5, 3, max_len=40)
    build(3, max_width=2, num_pairs=2, num_feature_pairs=3)(Behavior(ids.unbind(1), tables))
    widths = 1 + 2  # of the M = 2 kernels
    interest, feature = 5 * widths * (2 * 2), 5 * widths * (2 * 3)  # B, 2 P; B, N' Q
    assert asked == [interest + feature] * 3


def test_the_method_is_known_by_its_name_and_settings() -> None:
    assert get_method("MISS") is MISS
    assert MISS.Settings is MISSSettings


def test_loss_of_alike_users_is_log_b(make_ids: Callable) -> None:
    """A table that gives every item one vector leaves nothing to tell users apart by."""
    table = nn.Embedding.from_pretrained(torch.ones(12, K, dtype=torch.float64))
    losses = build(2)(Behavior(make_ids([6, 7, 8, 5], 2, seed=9).unbind(1), [table, table]))
    assert losses.ssl.item() == pytest.approx(math.log(4), abs=1e-9)
    assert losses.feature.item() == pytest.approx(math.log(4), abs=1e-9)


# Options beyond the paper: far pairs, each feature by itself, no encoder, users.
POINTS = {"variant": "/F", "max_width": 1, "activation": "identity"}


def views_of_features(method: MISS, behavior: Behavior, c: list) -> list[list[Views]]:
    """[j][p]: the views of feature j alone, under `POINTS`, that the next forward pass draws."""
    replay = torch.Generator()
    replay.set_state(method.generator.get_state())
    num = method.settings.num_pairs
    far = round(method.settings.far_share * num)
    drawn = draw_interest_pairs(
        behavior.length, 1, method.settings.max_distance, num, replay, num_far_pairs=far
    )
    (g,) = method.extractor.g  # Eq. 19 with m = 1 is one factor
    found: list[list[Views]] = []
    for j in range(len(c[0])):
        found.append([])
        for p in range(num):
            views: Views = []
            for b, row in enumerate(c):
                if len(row[j]) < 2:
                    views.append(None)
                    continue
                first, second = drawn.windows[b, 0, p].tolist()
                h1, h2 = g * row[j][first], g * row[j][second]
                views.append((encode(method.interest_encoder, h1),
                              encode(method.interest_encoder, h2)))  # fmt: skip
            found[-1].append(views)
    return found


@pytest.mark.parametrize("taus", [None, [0.05, 0.5, 1.0]], ids=["one τ", "τ of each"])
@pytest.mark.parametrize("encoder", [[], [6, 5]])
@pytest.mark.parametrize(("max_distance", "far_share"), [(2, 0.0), (2, 0.4), (2, 1.0), (None, 0.0)])
@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize("lengths", [LENGTHS, [1, 0, 1]])
def test_features_apart_are_the_mean_of_their_own_infonces(
    lengths: list[int],
    sequences: int,
    max_distance: int | None,
    far_share: float,
    encoder: list[int],
    taus: list[float] | None,
    make_ids: Callable,
    make_tables: Callable,
    look_up: Callable,
) -> None:
    behavior = Behavior(make_ids(lengths, sequences).unbind(1), make_tables(sequences, K))
    keys = {"num_pairs": 3, "max_distance": max_distance, "far_share": far_share}
    method = build(sequences, separate_features=True, interest_encoder=encoder, **keys, **POINTS)
    assert bool(list(method.interest_encoder.parameters())) == bool(encoder)
    if taus is not None:
        method.own_temperatures = taus[:sequences]
    features = views_of_features(method, behavior, look_up(behavior))
    expected = [
        contrast(pairs, behavior.group.tolist(), TAU if taus is None else taus[j])
        for j, pairs in enumerate(features)
    ]
    found = method(behavior).ssl
    torch.testing.assert_close(found, torch.stack(expected).mean(), **EXACT)


def test_rows_of_one_user_are_never_each_others_negatives(
    make_ids: Callable, make_tables: Callable, look_up: Callable
) -> None:
    users = torch.tensor([3, 3, 4, 4, 3, 9, 9, 9])
    behavior = Behavior(make_ids(LENGTHS, 1).unbind(1), make_tables(1, K), users)
    assert torch.equal(behavior.group, users)
    method = build(1, far_share=1.0, interest_encoder=[], **POINTS)
    (pairs,) = views_of_features(method, behavior, look_up(behavior))
    torch.testing.assert_close(method(behavior).ssl, contrast(pairs, users.tolist()), **EXACT)


@pytest.mark.parametrize(("share", "pairs", "far"), [(0.5, 12, 6), (0.0, 3, 0), (1.0, 1, 1)])
def test_the_far_share_is_one_of_the_number_of_pairs(share: float, pairs: int, far: int) -> None:
    assert build(1, far_share=share, num_pairs=pairs).far_pairs == far


def test_without_l_no_pair_is_far() -> None:
    method = build(1, variant="/F/L", far_share=0.5, num_pairs=4)
    assert (method.max_distance, method.far_pairs) == (1, 0)


TOLD = {"items": 3.0, "categories": 0.4, "brands": 0.0}  # nats


@pytest.mark.parametrize(
    ("changes", "tau", "own"),
    [
        ({}, 0.1, [0.1, 0.25, 1.0]),
        ({}, 0.5, [0.5, 1.0, 1.0]),
        ({}, 2.0, [2.0, 2.0, 2.0]),  # never below τ
        ({"separate_features": False}, 0.1, [0.1]),
        ({"scale_temperature": False}, 0.1, [0.1]),
    ],
)
def test_ids_that_say_little_about_each_other_have_a_higher_temperature(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, bool], tau: float, own: list[float]
) -> None:
    """max(τ, min(1, τ / I)), from every row of a small split; a loss for all attributes has one."""
    columns = {name: torch.full((6, 4), number) for number, name in enumerate(TOLD)}

    def told(history: Tensor) -> float:
        assert history.shape == (6, 4)
        return list(TOLD.values())[int(history[0, 0])]

    monkeypatch.setattr("fuxictr_miss.methods.miss.method.information", told)
    keys = {"separate_features": True, "scale_temperature": True, **changes}
    method = MISS(SSLSettings(temperature=tau), MISSSettings(**keys), 3, K, torch.Generator())
    if method.prepares:
        method.prepare(columns)
    assert method.own_temperatures == pytest.approx(own)


def test_concatenated_attributes_tell_what_the_most_telling_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fuxictr_miss.methods.miss.method.information", lambda h: h.sum().item())
    method = build(3, scale_temperature=True)
    method.prepare({str(x): torch.tensor([[x]]) for x in (0.1, 0.4, 0.2)})
    assert method.own_temperatures == pytest.approx([TAU / 0.4])


def test_no_encoder_is_the_identity(make_ids: Callable, make_tables: Callable) -> None:
    h = torch.randn(3, 5, 2, 2, K, dtype=torch.float64)
    together = build(2, interest_encoder=[])
    assert torch.equal(together._encode_interests(h), h.flatten(-2))
    apart = build(2, interest_encoder=[], separate_features=True)
    assert torch.equal(apart._encode_interests(h), h)
    feature = build(2, feature_encoder=[])
    assert torch.equal(feature.feature_encoder(h), h)
    assert feature(Behavior(make_ids(LENGTHS, 2).unbind(1), make_tables(2, K))).feature > 0
