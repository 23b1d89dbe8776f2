"""A Ray cluster of this machine alone, in folders and on ports of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")


class Nodes:
    """Starts nodes with one CPU each; the first is the head."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # short: sockets lie below it
        token = folder / "token"
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        self.env = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # a busy machine would starve the workers
            "XDG_CACHE_HOME": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.address = f"127.0.0.1:{free_port()}"
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, cpus: int = 1, hidden: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a node; it sees an empty folder in the place of `hidden`."""
        number = len(self.running)
        command = [str(RAY), "start", "--block", "--disable-usage-stats", f"--num-cpus={cpus}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--node-ip-address=127.0.0.1"]
        if number == 0:
            port = self.address.rpartition(":")[2]
            command += ["--head", f"--port={port}", f"--ray-client-server-port={free_port()}"]
            command += ["--include-dashboard=false", f"--temp-dir={self.folder}/ray"]
        else:
            command += [f"--address={self.address}"]
        if hidden is not None:
            mount = f"mount -t tmpfs none {shlex.quote(str(hidden))} && exec {shlex.join(command)}"
            command = ["unshare", "--mount", "sh", "-c", mount]
        log = self.folder / f"node_{number}.log"
        with open(log, "wb") as output:
            node = subprocess.Popen(
                command,
                env=self.env,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        self.running.append(node)
        wait_for(lambda: b"Ray runtime started" in log.read_bytes(), log)
        return node

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """What a machine does that is switched off."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def kill_raylet(self, node: subprocess.Popen[bytes]) -> None:
        """End Ray's own process on a node only; the others have to notice."""
        found = subprocess.run(
            ["pgrep", "--parent", str(node.pid), "--exact", "raylet"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        os.kill(int(found.stdout), signal.SIGKILL)


def wait_for(condition, log: Path | None = None, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(log and log.read_text())
        time.sleep(0.2)


def free_port() -> int:
    """A free port outside of those that Ray gives to workers."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory(prefix="rc", ignore_cleanup_errors=True) as folder:
        made = Nodes(Path(folder))
        try:
            yield made
        finally:
            for node in reversed(made.running):
                made.kill(node)
