"""Run the trials of a search that are missing, and rank all of them by validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from filelock import FileLock, Timeout
from fuxictr.utils import Monitor

from fuxictr_miss.data import build_dataset
from fuxictr_miss.data.digest import stamped_digest
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.files import atomic_write
from fuxictr_miss.paper.results import Results
from fuxictr_miss.paper.run import run_each
from fuxictr_miss.paper.search import validation_value
from fuxictr_miss.tuning.sampling import Known, next_trial
from fuxictr_miss.tuning.space import Space, Trial

_RANKING = "ranking.csv"
_COLUMNS = 10  # of the ranking
_CONFIGS = ("model_config.yaml", "dataset_config.yaml")
_FIRST_LINE = "# Written by run_param_tuner.py, and written again when it is started again.\n"
_BASE = "# Trials of "  # the second line, and base_expid
_BEGINNINGS = {**dict.fromkeys(_CONFIGS, _FIRST_LINE), _RANKING: "rank,trial,"}
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@contextmanager
def own_folder(folder: Path, base_expid: str) -> Iterator[None]:
    """Keep the folder of a search for this process.

    Args:
        folder: of the YAML file's name.
        base_expid: what is searched; the trials of another one stay as they are.

    Raises:
        InputError: another process is searching there, a file to be written is not ours, or the
            folder is of another search.
    """
    for name, beginning in _BEGINNINGS.items():
        path = folder / name
        if path.exists() and not path.read_bytes().startswith(beginning.encode()):
            raise InputError(f"{path} was not written by run_param_tuner.py: move it away.")
    if (written := folder / _CONFIGS[0]).exists():
        before = written.read_text(encoding="utf-8").splitlines()[1:2]
        if before and before[0].startswith(_BASE) and before[0] != _BASE + base_expid:
            raise InputError(
                f"{folder} holds the trials of {before[0].removeprefix(_BASE)}, and this search is "
                f"of {base_expid}: rename one of the two YAML files."
            )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock", blocking=False).acquire()
    except Timeout as error:
        raise InputError(
            f"Another tuner is running in {folder}: wait for it; several numbers behind --gpu run "
            "several trials at once."
        ) from error
    with lock:
        yield


class Search:
    """The trials of a search, and the folder with their rows and, as a config folder, their expids.

    Args:
        space: what is searched.
        folder: of this search alone (`own_folder`).

    Raises:
        InputError: the data cannot be encoded, or a file in `folder` is not ours.
    """

    def __init__(self, space: Space, folder: Path) -> None:
        self.space, self.folder = space, folder
        self.results = Results(folder)
        self.ranking_file = folder / _RANKING
        self.trials: dict[str, Trial] = {}  # by key
        self.left = 0  # the number of trials to run
        self._waiting: Iterator[Trial] = iter(())
        self._data: dict[str, str] = {}  # data set -> digest of its encoded data
        if space.has_one_data_set:
            build_dataset(space.config)  # fails before any trial does

    def plan_grid(self, tag: str | None = None) -> None:
        """Plan every combination, or those whose names contain `tag`.

        Raises:
            InputError: a combination is invalid, or no name contains `tag`.
        """
        every = [self.space.trial(n, each) for n, each in enumerate(self.space.combinations(), 1)]
        for trial in every:
            if tag is None or tag in trial.name:
                self.trials.setdefault(trial.key, trial)
        if not self.trials:
            raise unknown("tag", tag, [trial.name for trial in every])
        left = [trial for trial in self.trials.values() if not self._is_done(trial)]
        self.left, self._waiting = len(left), iter(left)
        self._write_configs()

    def plan_samples(self, search: str, number: int) -> None:
        """Plan `number` trials of a "random" or "tpe" search, or as many as there can be.

        Those of this space, config and data that have a result keep their numbers.
        """
        known = set()
        rows = self.results.rows.values()
        for place, row in sorted(((int(row["number"]), row) for row in rows), key=itemgetter(0)):
            if place <= number and row["params"] in self.space:
                trial = self.space.trial(place, row["params"])
                if trial.key == row["key"] and self._is_done(trial):
                    self.trials[trial.key] = trial
                    known.add(place)
        number = int(min(number, self.space.size))
        left = [place for place in range(1, number + 1) if place not in known]
        self.left, self._waiting = len(left), self._drawn(search, left)
        self._write_configs()

    def _drawn(self, search: str, numbers: Sequence[int]) -> Iterator[Trial]:
        """Draw each trial when it is asked for, from what is known then."""
        for number in numbers:
            known = {}
            for key, trial in self.trials.items():
                row = self.row(trial)
                value = self._value(row)
                known[key] = Known(trial.overrides, value, failed=row is not None and value is None)
            drawn = next_trial(self.space, search, number, known)
            if drawn is None:
                return
            self.trials[drawn.key] = drawn
            self._write_configs()
            yield drawn

    def run(self, gpus: Sequence[int], address: str | None) -> None:
        """Run what is left, one trial at a time for each of `gpus`; -1 is the CPU.

        Raises:
            InputError: Ray cannot be started or reached.
        """
        root = str(self.folder / "runs")
        for _ in run_each(self._waiting, self.left, self.results, gpus, address, root):
            self.write_ranking()

    def row(self, trial: Trial) -> dict[str, Any] | None:
        """A trial's row of results on the data as it is now."""
        row = self.results.rows.get(trial.key)
        if row is None:
            return None
        current = self._digest(trial)
        return row if (row.get("data") or current) == current else None

    def _value(self, row: dict[str, Any] | None) -> float | None:
        if row is None or row["status"] != "ok":
            return None
        return validation_value(row, self.space.config)

    def _is_done(self, trial: Trial) -> bool:
        row = self.row(trial)
        return row is not None and row["status"] != "failed"

    def _digest(self, trial: Trial) -> str:
        if trial.dataset not in self._data:
            with suppress(InputError):  # the trial itself fails with it
                build_dataset(trial.params)
            self._data[trial.dataset] = stamped_digest(trial.params)
        return self._data[trial.dataset]

    def _write_configs(self) -> None:
        entries = {trial.name: self.space.entries(trial) for trial in self.trials.values()}
        models = {name: model for name, (model, _) in entries.items()}
        datasets = {model["dataset_id"]: data for model, data in entries.values()}
        for file, content in zip(_CONFIGS, (models, datasets), strict=True):
            parts = [yaml.dump({k: entry}, Dumper=_Dumper) for k, entry in content.items()]
            with atomic_write(self.folder / file) as unfinished:
                head = f"{_FIRST_LINE}{_BASE}{self.space.expid}\n"
                unfinished.write_text(head + "".join(parts), encoding="utf-8")

    def ranked(self) -> list[tuple[Trial, dict[str, Any]]]:
        """The trials that have run, the best by the monitored validation metric first.

        Of equals the earlier is first. Those without a result are at the end.
        """
        sign = -1 if self.space.config.monitor_mode == "max" else 1
        done = [(trial, row) for trial in self.trials.values() if (row := self.row(trial))]

        def place(each: tuple[Trial, dict[str, Any]]) -> tuple[bool, float, int]:
            trial, row = each
            value = self._value(row)
            return value is None, sign * (value or 0.0), trial.number

        return sorted(done, key=place)

    def ranking(self) -> pd.DataFrame:
        """The table of `ranked` in at most ten columns."""
        config = self.space.config
        metrics = list(dict.fromkeys([*Monitor(config.monitor).get_metrics(), *config.metrics]))[:3]
        keys = list(self.space.values)
        room = _COLUMNS - 4 - len(metrics)
        alone = keys if len(keys) <= room else keys[: room - 1]
        records = []
        for rank, (trial, row) in enumerate(self.ranked(), 1):
            record = {"rank": rank if row["status"] == "ok" else "", "trial": trial.name}
            record.update((key, trial.overrides[key]) for key in alone)
            if others := keys[len(alone) :]:
                record["other keys"] = " ".join(f"{k}={trial.overrides[k]}" for k in others)
            values = [f"valid_{name}" for name in metrics]
            record.update((k, round(row[k], 6) if k in row else "") for k in values)
            record |= {"seconds": row.get("seconds", ""), "outcome": row.get("reason", "ok")}
            records.append(record)
        return pd.DataFrame(records, dtype=object)

    def write_ranking(self) -> None:
        """Write `ranking` to the folder."""
        with atomic_write(self.ranking_file) as unfinished:
            self.ranking().to_csv(unfinished, index=False)
