"""Does the self-supervised part cost more when histories are longer?

    python benchmarks/long_histories.py

Both losses of MISS (cnn extractor, J = 2, 128 rows), forward and backward, on synthetic histories
of 1 to L behaviors, L = 50 and 2,000, in turns in one process. Limit: 2,000 at most 1.3 times 50.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch
from fuxictr.pytorch.models import BaseModel
from made_up import CDS, MadeUp, seconds
from torch import Tensor

from fuxictr_miss.errors import run_command

LENGTHS = (50, 2000)
ROWS = 128
WARM_UP = 5  # rounds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(1)
    cases = []
    for length in LENGTHS:
        data = MadeUp(CDS, length)
        cases.append((data.model("DIN_MISS"), data.batch(ROWS, draw)))
    times = [
        [seconds(lambda: _losses(model, batch)) for model, batch in cases]  # noqa: B023
        for _ in range(options.rounds + WARM_UP)
    ][WARM_UP:]
    print("| L | ms | times L = 50 |")
    print("|---:|---:|---:|")
    for column, length in enumerate(LENGTHS):
        ms = 1e3 * median(each[column] for each in times)
        print(f"| {length:,} | {ms:.2f} | {median(each[column] / each[0] for each in times):.2f} |")


def _losses(model: BaseModel, batch: dict[str, Tensor]) -> None:
    model._self_supervision.weighted(model._self_supervision.losses(model, batch)).backward()
    model.zero_grad()


if __name__ == "__main__":
    run_command(main)
