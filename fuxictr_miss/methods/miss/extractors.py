"""From behaviors to interests: MIE (Eq. 9, 19, 20) and MIMFE (Eq. 10, 22, 23).

The axis order is that of `fuxictr_miss.behavior`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuxictr_miss.behavior import Behavior


class HorizontalConvolution(nn.Module):
    """MIE as a CNN: G_m = ReLU(C ∘ g_m), a kernel g_m ∈ R^{1×m×1} per width m ∈ [1, M] (Eq. 19).

    The windows of all widths cover T = 1 + 2 + ... + M behaviors, and the kernels have as many
    scalars, so one look-up and one product serve all branches.

    Args:
        max_width: M.
        relu: whether G_m is rectified; without it an interest keeps its negative dimensions.
    """

    _width: Tensor  # (T,) m - 1 of the kernel that a scalar belongs to
    _step: Tensor  # (T,) its place in that kernel
    _own: Tensor  # (M, T) whether a scalar belongs to a kernel

    def __init__(self, max_width: int, relu: bool = True) -> None:
        super().__init__()
        width, step = torch.tril_indices(max_width, max_width)
        self.register_buffer("_width", width, persistent=False)
        self.register_buffer("_step", step, persistent=False)
        own = width == torch.arange(max_width)[:, None]
        self.register_buffer("_own", own, persistent=False)
        # each kernel starts near the mean of its behaviors: positive, so that no view starts dead
        self.g = nn.Parameter((1.0 + 0.1 * torch.randn(len(width))) / (width + 1))
        self.relu = relu

    def kernels(self) -> Tensor:
        """(M, T): row m - 1 holds the m scalars of g_m and zeros elsewhere."""
        return self.g * self._own

    def forward(self, behavior: Behavior, windows: Tensor) -> Tensor:
        """Interests of chosen windows.

        Args:
            behavior: the batch.
            windows: (B, M, S) starts l of S windows of each branch m.

        Returns:
            (B, M, S, J, K): G_m^{:,l,:} of Eq. 19; flattened, the interests t of Eq. 20.
        """
        covered = windows[:, self._width] + self._step[:, None]  # (B, T, S)
        c = behavior.embed(covered)  # (B, T, S, J, K)
        kernels = self.kernels().expand(len(c), -1, -1)  # one product per row: einsum would copy c
        g = kernels @ c.flatten(2)  # Eq. 19
        return (g.relu_() if self.relu else g).unflatten(2, c.shape[2:])


class VerticalConvolution(nn.Module):
    """MIMFE: Ĝ_{m,n} = ReLU(G_m ∘ ĝ_{m,n}), a kernel ĝ_{m,n} ∈ R^{n×1×1} per height n (Eq. 22).

    Args:
        max_width: M.
        max_height: N', the heights that leave two rows.
    """

    _height: Tensor  # (N'(N'+1)/2,) n - 1 of the kernel that a scalar belongs to
    _step: Tensor  # (N'(N'+1)/2,) its place in that kernel

    def __init__(self, max_width: int, max_height: int) -> None:
        super().__init__()
        self.max_height = max_height
        height, step = torch.tril_indices(max_height, max_height)
        self.register_buffer("_height", height, persistent=False)
        self.register_buffer("_step", step, persistent=False)
        # after the ReLU G is 0 or more, so positive kernels let no view start dead
        start = (1.0 + 0.1 * torch.randn(max_width, len(height))) / (height + 1)
        self.g_hat = nn.Parameter(start)

    def kernels(self) -> Tensor:
        """(M, N', N'): row n - 1 of matrix m - 1 holds the n scalars of ĝ_{m,n}, then zeros."""
        kernels = self.g_hat.new_zeros(len(self.g_hat), self.max_height, self.max_height)
        kernels[:, self._height, self._step] = self.g_hat
        return kernels

    def forward(self, interests: Tensor) -> Tensor:
        """All rows of Ĝ_{m,n} for chosen windows.

        Args:
            interests: (B, M, N', Q, J, K) the window's G_m for each height n and pair q.

        Returns:
            (B, M, N', Q, J, K): row j spans the features j to j + n - 1 and is an r of Eq. 23; of
            height n only the first J - n + 1 rows exist.
        """
        features = interests.shape[-2]  # J
        below = F.pad(interests, (0, 0, 0, self.max_height - 1))
        steps = enumerate(self.kernels().unbind(-1))  # place i in a kernel, (M, N') scalars
        terms = [g[..., None, None, None] * below.narrow(-2, i, features) for i, g in steps]
        return sum(terms[1:], terms[0]).relu()  # Eq. 22


class SelfAttentionExtractor(nn.Module):
    """MISS-SA of Table VII: one self-attention layer over the history; t_l is its output at l.

    It has one branch (M = 1), whose windows are single positions.
    """

    def __init__(self, num_sequences: int, dim: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(num_sequences * dim, 1, batch_first=True)

    def forward(self, behavior: Behavior, windows: Tensor) -> Tensor:
        """As `HorizontalConvolution.forward` with M = 1; computes the whole history."""
        x = behavior.tensor.flatten(2)  # (B, L, JK)
        padding = behavior.indices >= behavior.length[:, None]
        padding[:, 0] = False  # an empty row attends to one zero: attending to nothing gives NaN
        states, _ = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)
        return _at_windows(states, windows, behavior)


class LSTMExtractor(nn.Module):
    """MISS-LSTM of Table VII: t_l is the hidden state after behavior l; one branch, as above."""

    def __init__(self, num_sequences: int, dim: int) -> None:
        super().__init__()
        width = num_sequences * dim
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, behavior: Behavior, windows: Tensor) -> Tensor:
        """As `HorizontalConvolution.forward` with M = 1; computes the whole history."""
        x = behavior.tensor.flatten(2)  # (B, L, JK); padding comes last, no earlier state sees it
        states, _ = self.lstm(x)
        return _at_windows(states, windows, behavior)


def _at_windows(states: Tensor, windows: Tensor, behavior: Behavior) -> Tensor:
    """(B, 1, S, J, K): the states (B, L, JK) at windows (B, 1, S) of one position each."""
    # a row without a pair has windows 0 and 1 even if L = 1
    place = windows.transpose(1, 2).clamp(max=behavior.max_len - 1)  # (B, S, 1)
    chosen = states.take_along_dim(place, dim=1)
    return chosen.unflatten(-1, (len(behavior.columns), -1)).unsqueeze(1)
