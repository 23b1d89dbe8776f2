"""Run every combination of a search space, enumerated by FuxiCTR's tuner, with run_expid.py."""

from __future__ import annotations

import argparse
import itertools
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict

from fuxictr_miss.config import Config, load_config, read_experiment
from fuxictr_miss.config.values import Checked, described
from fuxictr_miss.config.yaml_files import read_entries, read_values
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.files import atomic_write
from fuxictr_miss.result_table import check_result_table

EXAMPLES = """examples:
  python run_param_tuner.py --config config/tuner_config/DIN_MISS_demo.yaml
  python run_param_tuner.py --config config/tuner_config/DIN_MISS_amazoncds.yaml --gpu 0 1

A tuner YAML has base_config, base_expid, dataset_id and tuner_space, a list of values per key. The
combinations are written to checkpoints/tuner/<name>/ and run one at a time on each of --gpu (-1 -1:
two on the CPU). Each adds a row with its metrics to <name>.csv; choose by the valid_ columns. The
exit code is 1 if a run failed."""
FOLDER = Path("checkpoints") / "tuner"
FIRST_LINE = "# Written by run_param_tuner.py, and written again when it is started again.\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE.yaml", help="the tuner's config")
    parser.add_argument("--tag", help="run only expids that contain this text, e.g. 001")
    parser.add_argument(
        "--gpu", nargs="+", type=int, default=[-1], help="GPU indices, -1 for the CPU (default)"
    )
    arguments = parser.parse_args()
    for gpu in arguments.gpu:
        Config.of({"gpu": gpu}, {"": "--gpu"})
    config = Path(arguments.config)
    folder = FOLDER / config.stem
    check_result_table(Path(f"{config.stem}.csv"))
    _write_trials(folder, _read(config))
    expids = sorted(read_entries(folder / "model_config.yaml"))
    chosen = [expid for expid in expids if arguments.tag is None or arguments.tag in expid]
    if not chosen:
        raise unknown("tag", arguments.tag, expids)
    failed = _run_all(folder, chosen, arguments.gpu)
    if failed:
        sys.exit(f"{len(failed)} of {len(chosen)} runs failed: {', '.join(failed)}.")


class _Tuner(Checked):
    """The keys of a tuner config."""

    model_config = ConfigDict(extra="forbid")

    base_config: str
    base_expid: str
    dataset_id: str | None = None
    tuner_space: dict[str, Any] = described("lines of the form key: [value, value]", min_length=1)


def _read(path: Path) -> dict[str, Any]:
    """Read a tuner config and check every combination.

    Returns:
        The content that FuxiCTR's tuner expects.

    Raises:
        InputError: a key is missing or unknown, or a combination is invalid.
    """
    content = read_values(path)
    beside = [key for key in content if key not in _Tuner.model_fields]
    if beside and beside == [content.get("dataset_id")]:  # as in FuxiCTR's own files
        print(f"{path}: {beside[0]} is ignored: base_config has the data set.", file=sys.stderr)
        del content[beside[0]]
    tuner = _Tuner.read(content, {"": str(path)})
    place = tuner.base_config, tuner.base_expid, tuner.dataset_id
    config = load_config(*place)
    space = {k: v if isinstance(v, list) else [v] for k, v in tuner.tuner_space.items()}
    if "ssl_recipe" in space:
        raise InputError(
            f"{path}: ssl_recipe cannot be in tuner_space, as it stands for many keys: search over "
            "those, or set ssl_recipe in the entry of base_expid."
        )
    for key, values in space.items():
        if key not in config.params:
            raise unknown(f"key in the tuner_space of {path}:", key, config.params)
        if not values:
            raise InputError(f"{path}: {key} in tuner_space has no value to try.")
    for trial in itertools.product(*space.values()):
        config.replace(dict(zip(space, trial, strict=True)), f"{path}, tuner_space")
    model, data, _ = read_experiment(*place)  # FuxiCTR's tuner merges them itself
    return {
        "base_expid": tuner.base_expid,
        "dataset_id": data["dataset_id"],
        "tuner_space": space,
        "model_config": {tuner.base_expid: {"debug_mode": False, **model}},
        "dataset_config": {data["dataset_id"]: data},
    }


def _write_trials(folder: Path, content: dict[str, Any]) -> None:
    """Let FuxiCTR's tuner enumerate the combinations, and save its configs in `folder`.

    Raises:
        InputError: `folder` has files of these names that this command did not write.
    """
    from fuxictr import autotuner

    names = ("model_config.yaml", "dataset_config.yaml")
    for name in names:
        path = folder / name
        if path.exists() and not path.read_bytes().startswith(FIRST_LINE.encode()):
            raise InputError(f"{path} was not written by run_param_tuner.py: move it away.")
    with tempfile.TemporaryDirectory() as temporary:
        space = Path(temporary) / "space.yaml"
        space.write_text(yaml.safe_dump(content), encoding="utf-8")
        made = Path(autotuner.enumerate_params(str(space)))
        for name in names:
            with atomic_write(folder / name) as unfinished:
                unfinished.write_text(FIRST_LINE + (made / name).read_text(), encoding="utf-8")


def _run_all(folder: Path, expids: Sequence[str], gpus: Sequence[int]) -> list[str]:
    """Run each expid on the next free GPU; return those that failed."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for gpu in gpus:
        free.put(gpu)

    def run(expid: str) -> int:
        gpu = free.get()
        command = [sys.executable, "-m", "fuxictr_miss", "train"]
        command += ["--config", str(folder), "--expid", expid]
        try:
            return subprocess.run(
                [*command, "--gpu", str(gpu)], env={**os.environ, "PYTHONPATH": path}, check=False
            ).returncode
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(len(gpus)) as pool:
        try:
            codes = list(pool.map(run, expids))
        except KeyboardInterrupt:  # Ctrl-C also reaches the running trials
            pool.shutdown(cancel_futures=True)
            raise
    return [expid for expid, code in zip(expids, codes, strict=True) if code]
