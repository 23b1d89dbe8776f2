"""Run code under its own random seed without touching the global random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def isolated_rng(device: torch.device, seed: int) -> Iterator[None]:
    """Seed PyTorch's global RNG with `seed` inside the block and restore its state afterwards.

    Args:
        device: its CUDA generator is restored too; the CPU generator always is.
        seed: the seed inside the block.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
