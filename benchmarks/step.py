"""What does MISS add to a training step?

    python benchmarks/step.py

A backbone and its variant take turns on the same batches, in one process: joint training (Eq. 17)
with the paper's M = 3, N = 2, H = 3 and one pair per branch, on synthetic data of Amazon-Cds' size,
J = 2, histories of 1 to 50 behaviors, with our fused Adam for both. Limits: DIN_MISS 1.25 times
DIN, IPNN_MISS (PNN_MISS) 1.5 times IPNN.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch
from made_up import CDS, MadeUp, seconds

from fuxictr_miss.errors import run_command
from fuxictr_miss.training.optimizers import set_optimizer

LIMITS = {"DIN": 1.25, "PNN": 1.5}
WARM_UP = 3  # steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 4096], help="batch sizes")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2], help="values of ssl_every")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = MadeUp(CDS, length=50)
    print("| backbone | batch | `ssl_every` | ms a step | with MISS | ratio | limit |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for rows in options.rows:
        draw = torch.Generator().manual_seed(1)
        batches = [data.batch(rows, draw) for _ in range(8)]
        rounds = max(2, 40 * 128 // rows)
        for backbone, limit in LIMITS.items():
            plain = data.model(backbone)
            set_optimizer(plain, "adam")
            for every in options.every:
                miss = data.model(f"{backbone}_MISS", ssl_every=every)
                set_optimizer(miss, "adam")
                miss._total_steps = 0
                times: list[tuple[float, float]] = []
                for number in range(rounds):
                    for batch in batches:
                        miss._total_steps += 1  # as fit() counts
                        pair = [seconds(lambda: m.train_step(batch)) for m in (plain, miss)]  # noqa: B023
                        if number or rows > 1024:
                            times.append((pair[0], pair[1]))
                # the mean of steps with and without contrast, the median of such means
                means = [
                    [sum(t[k] for t in times[i : i + every]) / every for k in (0, 1)]
                    for i in range(WARM_UP, len(times) - every + 1, every)
                ]
                first, second = (1e3 * median(m[k] for m in means) for k in (0, 1))
                ratio = median(m[1] / m[0] for m in means)
                print(
                    f"| {backbone} | {rows} | {every} | {first:.2f} | {second:.2f} | {ratio:.2f} "
                    f"| {limit} |",
                    flush=True,
                )


if __name__ == "__main__":
    run_command(main)
