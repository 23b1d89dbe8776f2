"""PPMI-SVD against plain loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fuxictr_miss import experiment
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods import ppmi
from fuxictr_miss.methods.ppmi import information, ppmi_svd
from fuxictr_miss.training import fit

VOCABULARY = 9
LOGS = st.lists(
    st.lists(st.integers(1, VOCABULARY - 1), max_size=6), min_size=1, max_size=8
)  # an id may be twice in a history
RULES = settings(deadline=None, derandomize=True, max_examples=60)


def as_rows(logs: list[list[int]]) -> torch.Tensor:
    return torch.tensor([log + [0] * (6 - len(log)) for log in logs])


def counts_by_loops(logs: list[list[int]], far: int = 6) -> np.ndarray:
    """n_ij: each pair of two places, `far` apart or less, counts 1 / min(length, far)."""
    n = np.zeros((VOCABULARY, VOCABULARY))
    for log in logs:
        for a, i in enumerate(log):
            for b, j in enumerate(log):
                if 0 < abs(a - b) <= far:
                    n[i, j] += 1 / min(len(log), far)
    return n


def ppmi_by_loops(n: np.ndarray) -> np.ndarray:
    ppmi = np.zeros_like(n)
    for i in range(VOCABULARY):
        for j in range(VOCABULARY):
            if n[i, j] > 1e-9:
                pmi = math.log(n[i, j] * n.sum() / (n[i].sum() * n[:, j].sum()))
                ppmi[i, j] = max(0.0, pmi)
    return ppmi


@given(LOGS)
@RULES
def test_the_information_is_the_mutual_one_of_two_behaviors_of_a_history(logs):
    """Σ p log( p / (p_i p_j) ) over all pairs, whatever numbers the ids have."""
    n = counts_by_loops(logs)
    expected = 0.0
    for i in range(VOCABULARY):
        for j in range(VOCABULARY):
            if n[i, j] > 1e-9:
                pmi = math.log(n[i, j] * n.sum() / (n[i].sum() * n[:, j].sum()))
                expected += n[i, j] / n.sum() * pmi
    rows = as_rows(logs)
    assert information(rows) == pytest.approx(expected, abs=1e-9)
    assert information(rows * 1_000_003) == pytest.approx(expected, abs=1e-9)
    assert information(rows.flip(1)) == pytest.approx(expected, abs=1e-9)  # padded before


def test_ids_that_halve_the_log_tell_one_bit_of_each_other():
    pairs = torch.tensor([[1, 3], [2, 4], [1, 4], [2, 3]] * 50)  # 1 or 2 with 3 or 4; no padding
    assert information(pairs) == pytest.approx(math.log(2))


@given(LOGS)
@RULES
def test_the_table_is_the_best_approximation_of_ppmi_but_for_a_rotation(logs):
    ppmi = ppmi_by_loops(counts_by_loops(logs))
    u, s, _ = np.linalg.svd(ppmi)
    rank = 3
    table = ppmi_svd(as_rows(logs), VOCABULARY, rank, row_norm="svd").double().numpy()
    assert table.shape == (VOCABULARY, rank)
    found = np.linalg.svd(table, compute_uv=False) ** 2  # power 0.5
    assert found == pytest.approx(s[:rank], abs=1e-4)
    if s[rank - 1] - s[rank] > 1e-3 or not s.any():  # else the approximation is not unique
        best = u[:, :rank] * s[:rank] @ u[:, :rank].T
        assert table @ table.T == pytest.approx(best, abs=1e-4)


@given(LOGS, st.integers(1, 7))
@RULES
def test_only_pairs_at_most_so_far_apart_count(logs, far):
    ppmi = ppmi_by_loops(counts_by_loops(logs, far))
    all_ids = VOCABULARY  # no dimension is lost
    for rows in (as_rows(logs), as_rows([log[::-1] for log in logs]).flip(1)):  # padded before
        table = ppmi_svd(rows, VOCABULARY, all_ids, 0.5, "svd", far).double().numpy()
        found = np.linalg.svd(table, compute_uv=False) ** 2
        assert found == pytest.approx(np.linalg.svd(ppmi, compute_uv=False), abs=1e-4)


def test_a_distance_as_long_as_the_histories_is_any():
    rows = random_rows(40)
    far = ppmi_svd(rows, 40, 10, row_norm="svd", max_distance=rows.shape[1])
    any_distance = ppmi_svd(rows, 40, 10, row_norm="svd", max_distance=None)
    torch.testing.assert_close(far @ far.T, any_distance @ any_distance.T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_power_is_that_of_the_singular_values(power):
    logs = [[1, 2, 3], [1, 2, 4], [5, 6, 7, 8], [5, 7]]
    s = np.linalg.svd(ppmi_by_loops(counts_by_loops(logs)), compute_uv=False)
    table = ppmi_svd(as_rows(logs), VOCABULARY, 2, power, "svd").double().numpy()
    assert np.linalg.svd(table, compute_uv=False) == pytest.approx(s[:2] ** power, abs=1e-5)


@given(LOGS)
@RULES
def test_norms_are_log_counts_of_ids_that_occur_with_others_and_zero_for_all_others(logs):
    ids = [i for log in logs for i in log]
    table = ppmi_svd(as_rows(logs), VOCABULARY, 4)
    unit = ppmi_svd(as_rows(logs), VOCABULARY, 4, row_norm="unit")
    assert table.dtype == torch.float32
    mean = sum(math.log(1 + ids.count(i)) for i in set(ids)) / max(len(set(ids)), 1)
    for i in range(VOCABULARY):
        norms = {0.0} if i not in ids else {0.0, math.log(1 + ids.count(i)) / mean}
        assert min(abs(float(table[i].norm()) - norm) for norm in norms) < 1e-5
        assert float(unit[i].norm()) == pytest.approx(float(table[i].any()), abs=1e-5)
    assert not table[0].any()


def test_a_dimension_beyond_the_rank_of_the_vocabulary_is_zero():
    table = ppmi_svd(torch.tensor([[1, 2], [1, 2]]), 3, 6)
    assert table.shape == (3, 6)
    assert not table[:, 2:].any()


def test_histories_without_any_pair_give_a_table_of_zeros():
    assert not ppmi_svd(torch.tensor([[1, 0], [0, 0]]), 4, 2).any()


def random_rows(ids: int) -> torch.Tensor:
    return torch.randint(0, ids, (60, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("ids", "vocab_size"),
    [(3, 5), (8, 9), (8, 400), (40, 40), (2000, 2000)],  # fewer ids than dimensions, or more
)
def test_the_same_histories_give_the_same_bits(ids, vocab_size):
    once, *again = (ppmi_svd(random_rows(ids), vocab_size, 10) for _ in range(5))
    assert all(torch.equal(once, table) for table in again)


@pytest.mark.parametrize("dim", [3, 10])
def test_many_ids_and_few_are_decomposed_alike(monkeypatch, dim):
    many = random_rows(40)
    full = ppmi_svd(many, 40, dim, row_norm="svd")
    monkeypatch.setattr(ppmi, "FEW_IDS", 0)
    lanczos = ppmi_svd(many, 40, dim, row_norm="svd")
    torch.testing.assert_close(lanczos @ lanczos.T, full @ full.T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_a_dimension_beyond_the_rank_of_the_matrix_is_zero(power):
    logs = [[1, 3], [2, 3], [4, 6], [5, 6]]  # 1 and 2 have the same neighbors, so have 4 and 5
    rank = np.linalg.matrix_rank(ppmi_by_loops(counts_by_loops(logs)))
    assert rank == 4
    assert not ppmi_svd(as_rows(logs), VOCABULARY, 6, power)[:, rank:].any()


def test_the_loss_is_nothing_and_the_tables_are_the_formulas(params):
    model, loaders = experiment.build({**params, "model": "DIN_PPMI", "ssl_label_gradient": 0})
    model._self_supervision.watched = True
    losses = model._self_supervision.losses(model, next(iter(loaders["train"])))
    assert [loss.item() for loss in losses[:3]] == [0, 0, 0]
    assert losses.negative_similarity is None  # there are no pairs
    rows = fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert [row["phase"] for row in rows] == ["closed_form", "label"]
    shared = model.embedding_layer.embedding_layers["item_id"].weight
    assert shared is model.embedding_layer.embedding_layers["item_history"].weight
    assert shared.any()
    assert not shared[0].any()


def test_a_table_behind_a_projection_is_refused_in_one_sentence(params, tmp_path):
    vectors = tmp_path / "items.npz"
    ids = np.array([f"i{i}" for i in range(40)])
    np.savez(vectors, key=ids, value=np.random.default_rng(0).normal(size=(40, 6)))
    for column in params["feature_cols"][1:2]:
        column.update(pretrained_emb=str(vectors), pretrain_dim=6, freeze_emb=True,
                      pretrain_usage="init")  # fmt: skip
        column.pop("share_embedding")
    model, loaders = experiment.build({**params, "model": "DIN_PPMI"})
    with pytest.raises(InputError, match="item_history is embedded by pretrained") as error:
        fit(model, loaders["train"], epochs=1, validation_data=loaders["valid"])
    assert "\n" not in str(error.value)
    assert "ssl_sequences" in str(error.value)
