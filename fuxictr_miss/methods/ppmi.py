"""PPMI-SVD: tables in closed form from the co-occurrence of ids in histories, without training."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from scipy.sparse.linalg import svds
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.config.values import Count, NonNegative
from fuxictr_miss.methods.base import SSLLosses, register_method

# Up to here a full SVD is as quick. Lanczos' iteration goes on with random vectors where its own
# span everything, as they do if ids are few or alike.
FEW_IDS = 256
RANK_TOLERANCE = 1e-9  # of the largest singular value; what is smaller is rounding


@dataclasses.dataclass(frozen=True)
class PPMISettings:
    """The keys of PPMI: `ppmi_` and the field's name."""

    power: NonNegative = 0.5  # of the singular values in a row, before its norm is set
    row_norm: Literal["log_count", "unit", "svd"] = "log_count"  # svd: as it comes out
    max_distance: Count | None = 10  # H, of two behaviors that count as a pair; None: any


@register_method("PPMI")
class PPMI(nn.Module):
    """The strongest simple control: factorised co-occurrence, with no gradient at all.

    Each table is the truncated SVD of the positive pointwise mutual information of its ids,

        PPMI(i, j) = max(0, log( n_ij n / (n_i n_j) )),

    where n_ij counts how often i and j occur in one training history, at most H behaviors apart; in
    one of length l, a pair counts 1 / min(l, H), so that a user counts in proportion to their
    behaviors. Skip-gram with negative sampling factorises the same matrix up to a constant (Levy
    and Goldberg 2014), and the optimum of InfoNCE with in-batch negatives is PMI up to a constant
    of the anchor; so what a contrastive method is worth shows beside this one. It takes seconds.
    Each feature has its own matrix.

    Args:
        ssl: keys that all methods share.
        settings: keys of PPMI.
        num_sequences: J.
        dim: K.
        generator: not used; nothing is drawn.
    """

    Settings = PPMISettings

    def __init__(
        self,
        ssl: SSLSettings,
        settings: PPMISettings,
        num_sequences: int,
        dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, behavior: Behavior) -> SSLLosses:
        """No loss: everything has been learned when the training begins."""
        nothing = torch.zeros((), device=behavior.mask.device)
        return SSLLosses(nothing, nothing, nothing)

    def closed_form(self, history: Tensor, vocab_size: int, dim: int) -> Tensor:
        """The table of a feature.

        Args:
            history: (users, L) ids; 0 is padding.
            vocab_size: V.
            dim: K.

        Returns:
            (V, K) float32; zeros for ids without any co-occurrence.
        """
        keys = self.settings
        return ppmi_svd(history, vocab_size, dim, keys.power, keys.row_norm, keys.max_distance)


def ppmi_svd(
    history: Tensor,
    vocab_size: int,
    dim: int,
    power: float = 0.5,
    row_norm: Literal["log_count", "unit", "svd"] = "log_count",
    max_distance: int | None = 10,
) -> Tensor:
    """U S^power of the truncated SVD of PPMI; see `PPMI`.

    Example:
        >>> import torch
        >>> from fuxictr_miss.methods.ppmi import ppmi_svd
        >>> histories = torch.tensor([[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]])
        >>> table = ppmi_svd(histories, vocab_size=7, dim=2, row_norm="unit")
        >>> (table @ table.T)[1, 1:].round().abs()  # 1 is like 2 and 3, unlike 4, 5 and 6
        tensor([1., 1., 1., 0., 0., 0.])
    """
    i, j, _, pmi, occurs = _pmi(history, vocab_size, max_distance)
    positive = pmi > 0
    ppmi = scipy.sparse.csr_array(
        (pmi[positive], (i[positive], j[positive])), shape=(vocab_size, vocab_size)
    )
    some = np.unique(i[positive])  # all other rows are zeros
    table = np.zeros((vocab_size, dim), dtype=np.float32)
    if len(some) > max(FEW_IDS, dim):
        start = np.random.default_rng(0).standard_normal(vocab_size)  # of Lanczos' iteration
        u, s, _ = svds(ppmi, k=dim, v0=start)
        table[:] = u * s**power
    elif len(some):
        u, s, _ = scipy.linalg.svd(ppmi[some][:, some].toarray())
        rank = min(dim, int((s > RANK_TOLERANCE * s[0]).sum()))
        table[some, :rank] = u[:, :rank] * s[:rank] ** power
    if row_norm != "svd":
        norm = np.log1p(occurs) if row_norm == "log_count" else np.ones(vocab_size)
        norm /= norm[occurs > 0].mean() if occurs.any() else 1
        lengths = np.linalg.norm(table, axis=1)
        table *= np.divide(norm, lengths, out=np.zeros(vocab_size), where=lengths > 1e-6)[:, None]
    return torch.from_numpy(table)


def information(history: Tensor) -> float:
    """What a behavior's id says about that of another one in the history: Σ p_ij PMI(i, j).

    Args:
        history: (users, L) ids; 0 is padding.

    Returns:
        The mutual information in nats, 0 or more; 0 if no history has two ids.
    """
    known, place = history.unique(return_inverse=True)
    padding = int(known[0] != 0)  # then no place is one
    *_, together, pmi, _ = _pmi(place + padding, len(known) + padding)
    some = together > 0  # float cancellation leaves some pairs of an id with itself at 0
    share = together[some] / max(together[some].sum(), 1e-12)
    return max(0.0, float((share * pmi[some]).sum()))


def _pmi(
    history: Tensor, vocab_size: int, max_distance: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """i, j, n_ij and PMI(i, j) of all pairs that occur together, and (V,) how often ids occur."""
    user, position = history.nonzero(as_tuple=True)
    ids = history[user, position].numpy()
    shape = len(history), vocab_size
    counts = scipy.sparse.csr_array((np.ones(len(ids)), (user.numpy(), ids)), shape=shape)
    occurs, length = counts.sum(axis=0), counts.sum(axis=1)  # (V,), (users,)
    share = 1 / length.clip(min=1, max=max_distance)  # what a pair counts
    if max_distance is None:
        weighted = scipy.sparse.diags_array(share) @ counts
        itself = scipy.sparse.diags_array(weighted.sum(axis=0))
        together = (weighted.T @ counts - itself).tocoo()  # n_ij
    else:
        together = _near(history, vocab_size, max_distance, share)
    i, j = together.coords
    total = together.sum(axis=1)  # n_i
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(together.data * together.data.sum() / (total[i] * total[j]))
    return i, j, together.data, pmi, occurs


def _near(
    history: Tensor, vocab_size: int, max_distance: int, share: np.ndarray
) -> scipy.sparse.coo_array:
    """n_ij of pairs at most `max_distance` places apart; each counts its user's `share`."""
    later = scipy.sparse.csr_array((vocab_size, vocab_size))
    for distance in range(1, min(max_distance, history.shape[1] - 1) + 1):
        first, second = history[:, :-distance], history[:, distance:]
        user, place = (first.bool() & second.bool()).nonzero(as_tuple=True)
        pair = first[user, place].numpy(), second[user, place].numpy()
        later += scipy.sparse.csr_array((share[user.numpy()], pair), shape=later.shape)
    return (later + later.T).tocoo()
