"""How much memory and time does InfoNCE take for large batches?

    python benchmarks/large_batches.py

`info_nce` forward and backward at D = 20 against the plain form, cross entropy over one matrix of
similarities. Limits: 500 MB of extra memory at B = 65,536 (the plain matrix is 17 GB); at most 1.3
times the plain form's time where both fit. Each memory is the peak of a process of its own, less
what it had before the call.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from made_up import seconds
from torch import Tensor

from fuxictr_miss.losses import info_nce

DIM, TEMPERATURE = 20, 0.1
FITS = (128, 512, 4096)
LARGE = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", type=int, metavar="B", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(_memory(options.memory))
        return
    print("| B | plain, ms | info_nce, ms | ratio |")
    print("|---:|---:|---:|---:|")
    for rows in FITS:
        z1, z2 = _views(rows)
        pairs = [
            [seconds(lambda: form(z1, z2).backward()) for form in (_plain, _ours)]  # noqa: B023
            for _ in range(options.rounds + 2)
        ][2:]
        plain, ours = (1e3 * median(pair[k] for pair in pairs) for k in (0, 1))
        ratio = median(pair[1] / pair[0] for pair in pairs)
        print(f"| {rows:,} | {plain:.2f} | {ours:.2f} | {ratio:.2f} |", flush=True)
    z1, z2 = _views(LARGE)
    took = seconds(lambda: _ours(z1, z2).backward())
    command = [sys.executable, __file__, "--memory", str(LARGE)]
    peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    print(f"\nB = {LARGE:,}: {took:.1f} s, {peak} MB of extra memory, forward and backward")


def _ours(z1: Tensor, z2: Tensor) -> Tensor:
    return info_nce(z1, z2, TEMPERATURE)


def _plain(z1: Tensor, z2: Tensor) -> Tensor:
    logits = F.normalize(z1, dim=-1) @ F.normalize(z2, dim=-1).T / TEMPERATURE
    return F.cross_entropy(logits, torch.arange(len(z1)))


def _views(rows: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, rows, DIM, generator=draw)
    return first.requires_grad_(), second.requires_grad_()


def _memory(rows: int) -> int:
    """MB that one forward and backward pass adds to this process's peak."""
    small = _views(64)
    _ours(*small).backward()  # what a first call loads is not the loss's
    z1, z2 = _views(rows)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    before = _kilobytes("VmRSS")
    _ours(z1, z2).backward()
    return round((_kilobytes("VmHWM") - before) / 1024)


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
