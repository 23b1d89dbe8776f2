"""From behaviors to interests: MIE (Eq. 9, 19, 20) and MIMFE (Eq. 10, 22, 23)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior


class HorizontalConvolution(nn.Module):
    """MIE as a CNN: G_m = ReLU(C ∘ g_m), one kernel g_m ∈ R^{1×m×1} a width m ∈ [1, M] (Eq. 19).

    The M kernels are the rows of a lower triangular matrix: M(M+1)/2 learnable scalars.
    """

    _index: Tensor  # (2, M(M+1)/2) places of the scalars in the matrix

    def __init__(self, max_width: int) -> None:
        super().__init__()
        self.max_width = max_width  # M
        rows, columns = torch.tril_indices(max_width, max_width)
        self.register_buffer("_index", torch.stack([rows, columns]), persistent=False)
        # a kernel starts near the mean of its behaviors, so that no view starts dead in the ReLU
        self.g = nn.Parameter((1.0 + 0.1 * torch.randn(len(rows))) / (rows + 1))

    def kernels(self) -> Tensor:
        """(M, M): row m-1 holds the m scalars of g_m, then zeros."""
        empty = self.g.new_zeros(self.max_width, self.max_width)
        return empty.index_put(tuple(self._index), self.g)

    def forward(self, behavior: Behavior, windows: Tensor) -> Tensor:
        """Interests of chosen windows.

        Args:
            behavior: the batch.
            windows: (B, M, S) starts l of S windows of each branch m.

        Returns:
            (B, M, S, J, K): G_m^{:,l,:} of Eq. 19; its flattening is the interest t of Eq. 20.
        """
        b, m, s = windows.shape
        steps = torch.arange(self.max_width, device=windows.device)
        past_end = behavior.ids.shape[2]
        touched = windows.unsqueeze(-1) + steps  # (B, M, S, M)
        # a branch narrower than M looks up padding (zero) for the rest: no needless gradient
        touched = touched.where(steps <= steps[:, None, None], past_end)
        c = behavior.embed(touched.view(b, -1)).unflatten(2, (m, s, self.max_width))
        return torch.einsum("bjmswk,mw->bmsjk", c, self.kernels()).relu()


class VerticalConvolution(nn.Module):
    """MIMFE: Ĝ_{m,n} = ReLU(G_m ∘ ĝ_{m,n}), one kernel ĝ_{m,n} ∈ R^{n×1×1} a height n (Eq. 22).

    For each m the N kernels are the rows of a lower triangular matrix: N(N+1)/2 scalars.
    """

    _index: Tensor  # (2, N(N+1)/2) places of the scalars in each matrix

    def __init__(self, max_width: int, max_height: int) -> None:
        super().__init__()
        self.max_height = max_height  # N
        rows, columns = torch.tril_indices(max_height, max_height)
        self.register_buffer("_index", torch.stack([rows, columns]), persistent=False)
        # ReLU has been through G already: a positive start keeps every view alive
        start = (1.0 + 0.1 * torch.randn(max_width, len(rows))) / (rows + 1)
        self.g_hat = nn.Parameter(start)

    def kernels(self) -> Tensor:
        """(M, N, N): row n-1 of matrix m-1 holds the n scalars of ĝ_{m,n}, then zeros."""
        empty = self.g_hat.new_zeros(len(self.g_hat), self.max_height, self.max_height)
        branch = torch.arange(len(self.g_hat), device=self.g_hat.device)[:, None]
        return empty.index_put((branch, *self._index), self.g_hat)

    def forward(self, interests: Tensor, rows: Tensor) -> Tensor:
        """Feature-level views of chosen rows.

        Args:
            interests: (B, M, N', Q, J, K) the window's G_m for each height n and pair q.
            rows: (B, M, N', Q, 2) rows j of Ĝ_{m,n}, each spanning features j..j+n-1.

        Returns:
            (B, M, N', Q, 2, K): r of Eq. 23.
        """
        heights, dim = rows.shape[2], interests.shape[-1]
        steps = torch.arange(heights, device=rows.device)
        kernels = self.kernels()[:, :heights, :heights]  # (M, N', N'), zero past height n
        features = (rows.unsqueeze(-1) + steps).clamp(max=interests.shape[-2] - 1)
        index = features.flatten(-2).unsqueeze(-1).expand(*features.shape[:4], -1, dim)
        spans = interests.gather(-2, index).unflatten(-2, features.shape[-2:])
        return torch.einsum("bmnqvhk,mnh->bmnqvk", spans, kernels).relu()


class SelfAttentionExtractor(nn.Module):
    """MISS-SA of Table VII: one self-attention layer over the history; t_l is its output at l.

    It has one branch (M = 1), whose windows are single positions.
    """

    def __init__(self, num_sequences: int, dim: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(num_sequences * dim, 1, batch_first=True)

    def forward(self, behavior: Behavior, windows: Tensor) -> Tensor:
        """As `HorizontalConvolution.forward`, with M = 1; the whole history is computed."""
        x, past_end = _flat_history(behavior)
        past_end[:, 0] = False  # an empty row attends to its own zero instead of to nothing
        out, _ = self.attention(x, x, x, key_padding_mask=past_end, need_weights=False)
        return _take(out, windows, behavior)


class LSTMExtractor(nn.Module):
    """MISS-LSTM of Table VII: t_l is the hidden state after behavior l; one branch, as above."""

    def __init__(self, num_sequences: int, dim: int) -> None:
        super().__init__()
        width = num_sequences * dim
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, behavior: Behavior, windows: Tensor) -> Tensor:
        """As `HorizontalConvolution.forward`, with M = 1; the whole history is computed."""
        x, _ = _flat_history(behavior)
        out, _ = self.lstm(x)  # behaviors come first: padding cannot reach an earlier state
        return _take(out, windows, behavior)


def _flat_history(behavior: Behavior) -> tuple[Tensor, Tensor]:
    """(B, L, J*K) and the (B, L) places past the end of each history."""
    c = behavior.tensor
    places = torch.arange(c.shape[2], device=c.device)
    return c.transpose(1, 2).flatten(2), places >= behavior.length[:, None]


def _take(states: Tensor, windows: Tensor, behavior: Behavior) -> Tensor:
    """The (B, 1, S, J, K) states at single-position windows (B, 1, S)."""
    places = windows[:, 0].clamp(max=states.shape[1] - 1)  # the second of no pair is past the end
    index = places.unsqueeze(-1).expand(-1, -1, states.shape[-1])
    sequences = behavior.ids.shape[1]
    return states.gather(1, index).unflatten(-1, (sequences, -1)).unsqueeze(1)
