"""How fast is an exported model, and what does the encoding of raw rows cost?

    python benchmarks/serving.py [--expid PNN_amazonbeauty DIN_amazonbeauty] [--server 20]

Exports each model, untrained, and scores rows of its test split on one thread: PyTorch, the
exported program (model.pt2) and ONNX Runtime with encoded rows, `Scorer` with raw ones, in turn, by
processor time, which other programs on the machine disturb least. Neighbours in a split share a
history, which `Scorer` looks up once; "shuffled" is without that. --server starts
examples/serving/app.py and asks it that many seconds, 50 times a second, ten rows each. Limits, for
PNN and batches of 1,000: 100,000 raw rows a second, encoding at most half of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["POLARS_MAX_THREADS"] = "1"

import numpy as np
import polars as pl
import torch

import fuxictr_miss as fm
from fuxictr_miss.config import load_config
from fuxictr_miss.errors import run_command

BATCH = 2000  # rows, of all but Scorer, which has its own
RATE, ROWS_A_REQUEST = 50, 10
APP = Path(__file__).resolve().parents[1] / "examples" / "serving"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--expid", nargs="+", default=["PNN_amazonbeauty", "DIN_amazonbeauty"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 100, 1000, 100_000])
    parser.add_argument("--seconds", type=float, default=10, help="for each line of the table")
    parser.add_argument("--server", type=float, default=0, metavar="SECONDS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        artefacts = {expid: _export(expid, Path(folder) / expid) for expid in options.expid}
        print(
            "| ms | rows | PyTorch | model.pt2 | ONNX Runtime | Scorer | shuffled | rows/s |",
            end="",
        )
        print(" encoding |")
        print(f"|---|{'---:|' * 8}")
        for expid, (model, artefact, raw) in artefacts.items():
            for rows in options.rows:
                print(
                    f"| {expid} | {rows:,} | {_line(model, artefact, raw, rows, options.seconds)} |"
                )
        if options.server:
            expid, (_, artefact, raw) = next(iter(artefacts.items()))
            print(f"\n{expid}: {_server(artefact, raw, options.server)}")


def _export(expid: str, folder: Path) -> tuple[torch.nn.Module, Path, pl.DataFrame]:
    """An untrained model, its artefact and its raw test rows."""
    from fuxictr_miss import experiment

    config = load_config("config", expid)
    model, _ = experiment.build(config)
    fm.serving.export(model, folder)
    return model.eval(), folder, pl.read_parquet(config.test_data)


def _line(
    model: torch.nn.Module, artefact: Path, raw: pl.DataFrame, rows: int, seconds: float
) -> str:
    """The best time of each way, in turn."""
    raw = pl.concat([raw] * -(-2 * rows // len(raw)))[rows : 2 * rows]
    mixed = raw.sample(fraction=1.0, shuffle=True, seed=1)
    scorer = fm.serving.Scorer(artefact)
    program = torch.export.load(artefact / "model.pt2").module()
    encoded = scorer.encode(raw)
    parts = [
        {name: each[start : start + BATCH] for name, each in encoded.items()}
        for start in range(0, rows, BATCH)
    ]
    tensors = [{name: torch.from_numpy(each) for name, each in part.items()} for part in parts]
    ways: list[Callable[[], Any]] = [
        lambda: [model(part) for part in tensors],
        lambda: [program(part) for part in tensors],
        lambda: [scorer.run(part) for part in parts],
        lambda: scorer.score(raw),
        lambda: scorer.score(mixed),
        lambda: [scorer.encode(raw[start : start + BATCH]) for start in range(0, rows, BATCH)],
    ]
    times: list[list[float]] = [[] for _ in ways]
    until = time.perf_counter() + seconds
    with torch.no_grad():
        while time.perf_counter() < until or len(times[0]) < 2:
            for way, taken in zip(ways, times, strict=True):
                for _ in range(5 if rows <= 1000 else 1):  # a process that does one thing
                    started = time.process_time()
                    way()
                    taken.append(time.process_time() - started)
    *best, encoding = (min(taken) for taken in times)
    share = encoding / (encoding + best[2])
    columns = [f"{1000 * each:,.2f}" for each in best]
    return " | ".join([*columns, f"{rows / best[3]:,.0f}", f"{share:.0%}"])


def _server(artefact: Path, raw: pl.DataFrame, seconds: float) -> str:
    import httpx

    rows = raw.head(10 * ROWS_A_REQUEST * RATE).to_dicts()
    requests = [rows[n : n + ROWS_A_REQUEST] for n in range(0, len(rows), ROWS_A_REQUEST)]
    taken: list[float] = []

    async def ask(client: httpx.AsyncClient, number: int, start: float) -> None:
        due = start + number / RATE
        await asyncio.sleep(due - time.perf_counter())
        answer = await client.post("/score", json={"rows": requests[number % len(requests)]})
        answer.raise_for_status()
        taken.append(time.perf_counter() - due)

    async def together(address: str) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=address, timeout=None, limits=limits) as client:
            start = time.perf_counter() + 0.5
            await asyncio.gather(*(ask(client, n, start) for n in range(int(RATE * seconds))))

    with _started(artefact) as address:
        asyncio.run(together(address))
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return (
        f"{len(taken):,} requests of {ROWS_A_REQUEST} rows, {RATE} a second: p50 {p50:.1f} ms, "
        f"p99 {p99:.1f} ms"
    )


@contextmanager
def _started(artefact: Path) -> Iterator[str]:
    """The server's address."""
    command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(APP), "--port", "0"]
    environment = {**os.environ, "MODEL": str(artefact)}
    server = subprocess.Popen(
        [*command, "--no-access-log"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        lines = iter(server.stderr or [])
        yield next(found[1] for line in lines if (found := re.search(r"on (http://\S+)", line)))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    run_command(main)
