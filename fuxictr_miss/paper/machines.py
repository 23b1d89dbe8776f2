"""Experiments on the machines of a Ray cluster: each needs the same code and the same data.

A machine that has not got the encoded data is sent it. What differs otherwise is an error before an
experiment runs.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

import fuxictr_miss
from fuxictr_miss import model_zoo
from fuxictr_miss.config import Config
from fuxictr_miss.data import build_dataset, data_digest
from fuxictr_miss.data.column_files import column_files
from fuxictr_miss.data.digest import stamped_digest
from fuxictr_miss.data.encoded import encoded_folder, is_encoded
from fuxictr_miss.data.folder import FEATURE_MAP, read_stamp
from fuxictr_miss.errors import InputError, explained
from fuxictr_miss.files import file_digest
from fuxictr_miss.outputs.run_files import versions
from fuxictr_miss.paper import worker
from fuxictr_miss.paper.plan import Experiment

_AT_ONCE = 1 << 26  # bytes of a file that are sent as one object


class DataIsMissingError(Exception):
    """A machine has not got the data of an experiment, and was not sent it."""


@dataclasses.dataclass(frozen=True)
class Code:
    """What runs an experiment."""

    versions: Mapping[str, str]
    sources: str  # digest of our own files

    def check(self) -> None:
        """Refuse to run an experiment that another code has started.

        Raises:
            InputError: names what differs on this machine.
        """
        here = code_here()
        has = [
            f"{name} {here.versions[name]} instead of {version}"
            for name, version in self.versions.items()
            if here.versions[name] != version
        ]
        if not has and here.sources != self.sources:
            has = [f"other source files in {package()} (or they were edited since the start)"]
        if has:
            raise InputError(
                f"{socket.gethostname()} has {', '.join(has)}: install there what is installed "
                "here, and give the same command again."
            )


@functools.cache
def code_here() -> Code:
    """The code of this process."""
    digest = hashlib.sha256()
    for folder in (package(), Path(model_zoo.__path__[0])):
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return Code(versions(), digest.hexdigest()[:12])


def package() -> Path:
    """The folder of our code."""
    return Path(fuxictr_miss.__file__).parent


@dataclasses.dataclass(frozen=True)
class Data:
    """The data of an experiment, as the machine that starts it has it.

    `row_digest` stands in the row. `files` are what another machine is sent, in pieces in Ray's
    object store: none as long as no machine has asked, or if FuxiCTR encoded the data.
    """

    dataset: str
    digest: str
    row_digest: str
    files: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Data | None:
        """The data here; None if it cannot be built, as the experiment will say."""
        with suppress(InputError):
            digest = _built(params)
            return cls(params["dataset_id"], digest, stamped_digest(params))
        return None

    def packed(self, ray: Any, params: Mapping[str, Any]) -> Data:
        """The same with its files in the object store."""
        folder = encoded_folder(Config.of(params))
        files = {name: _pieces(ray, folder / name) for name in read_stamp(folder)["written"]}
        return dataclasses.replace(self, files=files)

    def root(self, params: Mapping[str, Any]) -> str:
        """The `data_root` on this machine with this data, which is received if need be.

        Raises:
            DataIsMissingError: it is not here and has to be sent.
            InputError: it is not here and cannot be sent, or other data is here.
        """
        folder, machine = encoded_folder(Config.of(params)).absolute(), socket.gethostname()
        try:
            digest = _built(params)
        except InputError as error:
            if not self.row_digest:  # not encoded by us, and its files may be anywhere
                raise InputError(
                    f"{machine} cannot read the data set {self.dataset} ({error}): mount its files "
                    f"and {folder} there under the same path."
                ) from error
            return str(self._received())
        if digest != self.digest:
            raise InputError(
                f"{folder} on {machine} holds other data than here: mount the same folder there, "
                "or move it away there, and the encoded data will be sent."
            )
        return str(params["data_root"])

    def _received(self) -> Path:
        root = own_folder() / "data" / self.digest
        home, building = root / self.dataset, root / f".{self.dataset}.building"
        with _written_here():
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / ".lock"):
                if not home.is_dir():
                    self._write(building)
                    os.replace(building, home)
        return root

    def _write(self, folder: Path) -> None:
        if not self.files:
            raise DataIsMissingError(self.dataset)
        import ray

        shutil.rmtree(folder, ignore_errors=True)  # of a machine that was switched off
        folder.mkdir()
        for name, pieces in self.files.items():
            with open(folder / name, "wb") as file:
                for piece in pieces:
                    file.write(ray.get(piece))


def _built(params: Mapping[str, Any]) -> str:
    """Build the data of an experiment here, if it is not, and return its digest."""
    config, splits = Config.of(params), build_dataset(params)
    folder = encoded_folder(config)
    if not is_encoded(config):
        return data_digest(folder)
    # to read all of it before each experiment would take too long
    files = [file for path in splits if path for file in column_files(path)]
    return f"{file_digest(folder / FEATURE_MAP)} {[Path(file).stat().st_size for file in files]}"


def _pieces(ray: Any, file: Path) -> list[Any]:
    with open(file, "rb") as opened:
        return [ray.put(piece) for piece in iter(lambda: opened.read(_AT_ONCE), b"")]


def own_folder() -> Path:
    """Where a machine keeps what it was sent, and works if it has not got the working folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fuxictr_miss"


def _written_here() -> AbstractContextManager[None]:
    what = f"{socket.gethostname()} cannot write to {own_folder()}"
    return explained(OSError, what, "free some space there, or mount the working folder")


def run(
    job: Experiment,
    gpu: int,
    folder: str,
    options: worker.Options,
    code: Code,
    data: Data | None,
    zoo: str | None,
) -> dict[str, Any]:
    """Run one experiment on a machine of a cluster.

    Args:
        job: the experiment.
        gpu: -1 for the CPU.
        folder: the working folder of the machine that starts it. Where it is not mounted, log,
            curves and checkpoint stay in `own_folder`.
        options: as in `worker.run`.
        code: what has to be here.
        data: what has to be here; None: there is none.
        zoo: the folder with the class of the model, if it comes from one.

    Returns:
        The row of `worker.run`.

    Raises:
        DataIsMissingError: the data has to be sent.
        InputError: no experiment, or none on this data, can run here.
    """
    code.check()
    place = Path(folder)
    if not place.is_dir():
        place = own_folder() / hashlib.sha256(folder.encode()).hexdigest()[:12]
        with _written_here():
            place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    if zoo is not None and not Path(zoo).is_dir():
        raise InputError(
            f"{socket.gethostname()} has no {Path(folder, zoo)}, from which the class of "
            f"{job.model} comes: mount it there under the same path, with {folder}."
        )
    if data is None:
        return worker.run(job, gpu, str(place), options)
    params = {**job.params, "data_root": data.root(job.params)}
    row = worker.run(dataclasses.replace(job, params=params), gpu, str(place), options)
    return {**row, "data": data.row_digest}
