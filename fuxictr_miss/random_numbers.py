"""Random numbers of one's own, that leave everybody else's where they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """PyTorch's random numbers from `seed` inside, and the caller's untouched after."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
