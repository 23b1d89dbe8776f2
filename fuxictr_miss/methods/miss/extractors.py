"""From behaviors to interests: MIE (Eq. 9, 19, 20) and MIMFE (Eq. 10, 22, 23)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior


class HorizontalConvolution(nn.Module):
    """MIE as a CNN: G_m = ReLU(C ∘ g_m), one kernel g_m ∈ R^{1×m×1} a width m ∈ [1, M] (Eq. 19).

    A window of each width side by side touches T = M(M+1)/2 behaviors, and as many learnable
    scalars are all kernels together: one product with an (M, T) matrix convolves all branches.

    Args:
        max_width: M.
        relu: whether G_m is rectified; without, an interest keeps its negative dimensions.
    """

    _width: Tensor  # (T,) m - 1 of the kernel that a scalar is of
    _step: Tensor  # (T,) the scalar's place in it

    def __init__(self, max_width: int, relu: bool = True) -> None:
        super().__init__()
        width, step = torch.tril_indices(max_width, max_width)
        self.register_buffer("_width", width, persistent=False)
        self.register_buffer("_step", step, persistent=False)
        # a kernel starts near the mean of its behaviors, so that no view starts dead in the ReLU
        self.g = nn.Parameter((1.0 + 0.1 * torch.randn(len(width))) / (width + 1))
        self.max_width = max_width  # M
        self.relu = relu

    def kernels(self) -> Tensor:
        """(M, T): row m-1 holds the m scalars of g_m at its own behaviors, zeros elsewhere."""
        empty = self.g.new_zeros(self.max_width, len(self.g))
        return empty.scatter(0, self._width[None], self.g[None])

    def forward(self, behavior: Behavior, windows: Tensor) -> Tensor:
        """Interests of chosen windows.

        Args:
            behavior: the batch.
            windows: (B, M, S) starts l of S windows of each branch m.

        Returns:
            (B, M, S, J, K): G_m^{:,l,:} of Eq. 19; its flattening is the interest t of Eq. 20.
        """
        start = windows.permute(1, 2, 0)[self._width]  # (T, S, B)
        c = behavior.embed_rows_last(start + self._step[:, None, None])  # (T, S, B, J, K)
        g = self.kernels() @ c.flatten(1)
        g = g.relu() if self.relu else g
        return g.unflatten(1, c.shape[1:]).permute(2, 0, 1, 3, 4)


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
        interests = interests.permute(1, 2, 3, 0, 4, 5)  # as the horizontal product left it
        rows = rows.permute(4, 1, 2, 3, 0)  # (2, M, N', Q, B)
        heights, features = rows.shape[2], interests.shape[-2]
        step = torch.arange(heights, device=rows.device)
        touched = (rows.unsqueeze(-1) + step).clamp(max=features - 1)  # (2, M, N', Q, B, N')
        window = torch.arange(rows[0].numel(), device=rows.device).view(rows.shape[1:])
        touched = touched + (window * features).unsqueeze(-1)
        spans = interests.flatten(0, 4)[touched]  # (2, M, N', Q, B, N', K)
        kernels = self.kernels()[:, :heights, :heights]  # (M, N', N'), zero past height n
        views = (spans * kernels[:, :, None, None, :, None]).sum(dim=-2).relu()
        return views.permute(4, 1, 2, 3, 0, 5)


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
    return states.gather(1, index).unflatten(-1, (len(behavior.columns), -1)).unsqueeze(1)
