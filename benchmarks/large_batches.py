"""How much memory and time does InfoNCE take?

    python benchmarks/large_batches.py

`info_nce` forward and backward, with a group and a mask, against the plain form: cross entropy over
one masked matrix of similarities per set. 36 sets of 128 rows and D = 20 are a pretraining step of
DIN_MISS. Limits: 0.75 times the plain form's time from a dozen sets on; 500 MB of extra memory at
B = 65,536 (the plain matrix is 17 GB). The memory is the peak of a separate process, less
what it used before the call.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from made_up import seconds
from torch import Tensor

from fuxictr_miss.errors import run_command
from fuxictr_miss.losses import info_nce

TEMPERATURE = 0.1
SHAPES = ((1, 128, 20), (12, 128, 10), (36, 128, 20), (12, 512, 20), (1, 4096, 20))  # P, B, D
LARGE = 65_536


class Case(NamedTuple):
    z1: Tensor
    z2: Tensor
    group: Tensor
    mask: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--memory", type=int, metavar="B", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(_memory(options.memory))
        return
    print("| sets x rows x D | plain, ms | info_nce, ms | ratio |")
    print("|---:|---:|---:|---:|")
    for shape in SHAPES:
        case = _case(*shape)
        pairs = [
            [seconds(lambda: form(case).backward()) for form in (_plain, _ours)]  # noqa: B023
            for _ in range(options.rounds + 2)
        ][2:]
        plain, ours = (1e3 * median(pair[k] for pair in pairs) for k in (0, 1))
        ratio = median(pair[1] / pair[0] for pair in pairs)
        name = " x ".join(f"{size:,}" for size in shape)
        print(f"| {name} | {plain:.2f} | {ours:.2f} | {ratio:.2f} |", flush=True)
    case = _case(1, LARGE, 20)
    took = seconds(lambda: _ours(case).backward())
    command = [sys.executable, __file__, "--memory", str(LARGE)]
    peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    print(f"\nB = {LARGE:,}: {took:.1f} s, {peak} MB of extra memory, forward and backward")


def _ours(case: Case) -> Tensor:
    return info_nce(case.z1, case.z2, TEMPERATURE, case.group, mask=case.mask)


def _plain(case: Case) -> Tensor:
    row = torch.arange(case.z1.shape[1])
    excluded = ~case.mask.unsqueeze(1) | (case.group[:, None] == case.group)
    excluded = excluded & (row[:, None] != row)
    logits = F.normalize(case.z1, dim=-1) @ F.normalize(case.z2, dim=-1).mT / TEMPERATURE
    logits = logits.masked_fill(excluded, -torch.inf).flatten(0, 1)
    return F.cross_entropy(logits, row.where(case.mask, -100).flatten())


def _case(sets: int, rows: int, dim: int) -> Case:
    draw = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, sets, rows, dim, generator=draw)
    group = torch.randint(rows, (rows,), generator=draw)
    mask = torch.rand(sets, rows, generator=draw) < 0.9
    return Case(first.requires_grad_(), second.requires_grad_(), group, mask)


def _memory(rows: int) -> int:
    """MB that one forward and backward pass adds to this process's peak."""
    _ours(_case(1, 64, 20)).backward()  # the first call also loads libraries
    case = _case(1, rows, 20)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    before = _kilobytes("VmRSS")
    _ours(case).backward()
    return round((_kilobytes("VmHWM") - before) / 1024)


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    run_command(main)
