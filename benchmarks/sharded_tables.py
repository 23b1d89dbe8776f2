"""What memory does a process need for a large table, whole and spread over the processes?

    python -m torch.distributed.run --standalone --nproc-per-node 2 \
        benchmarks/sharded_tables.py [--whole]

Joint steps of PNN_MISS (Eq. 17) at a global batch of 4,096 on a table of 10 million items of 10
dimensions, with one thread a process. The peak is the most resident memory that the process of
rank 0 ever had, of which Python and PyTorch take 0.4 GB; the table is built whole before it is
spread.
"""

from __future__ import annotations

import argparse
import resource
import time
from statistics import median

import torch
from made_up import MadeUp

from fuxictr_miss.distributed import processes
from fuxictr_miss.distributed.sharded_tables import own_rows, shard_tables
from fuxictr_miss.errors import run_command
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.optimizers import set_optimizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, default=4096, help="of a global batch")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--whole", action="store_true", help="every process holds the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with processes.session():
        measure(options)


def measure(options: argparse.Namespace) -> None:
    data = MadeUp({"user_id": 1000, "item_id": options.items}, length=50)
    batch = data.batch(options.rows, torch.Generator().manual_seed(1))
    model = data.model("PNN_MISS", ssl_block_size=128)
    set_optimizer(model, "adam")
    if not options.whole:
        shard_tables(model)
    model._total_steps, model._max_gradient_norm = 0, 10.0
    loop = FuxiCTRLoop(model, None, "")
    share = loop.share_of(options.rows)
    own = batch if share is None else {n: column[share.own] for n, column in batch.items()}
    times = []
    for _ in range(options.steps):
        started = time.perf_counter()
        with processes.sharing(share):
            loop.step(own, 0, 0)
        times.append(time.perf_counter() - started)
    table = model.embedding_layer.embedding_layer.embedding_layers["item_id"].weight
    tensors = [table, table.grad, *model.optimizer.state[table].values()]
    held = sum(own_rows(each)[0].nbytes for each in tensors if each.dim())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if processes.rank() == 0:
        print("| processes | table, gradient and Adam, MB | peak, MB | ms a step |")
        print("|---:|---:|---:|---:|")
        values = held / 1e6, peak / 1e6, 1e3 * median(times)
        print(f"| {processes.world_size()}", *(f"| {each:,.0f}" for each in values), "|")


if __name__ == "__main__":
    run_command(main)
