"""The next trial of a random or TPE search, by Optuna.

Optuna's study is made anew for every trial from what is known then, and its sampler is seeded by
the trial's number. So a search that was interrupted goes on as it would have, and the trials of a
small budget are the first of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fuxictr_miss.tuning.space import Range, Space, Trial

SEARCHES = ("random", "tpe")
_ATTEMPTS = 30  # to draw a trial that is new
_AT_RANDOM = 5  # trials before TPE begins; its default, 10, is the whole budget of a short search
_DIGITS = 4  # of a real number that is drawn


class Known(NamedTuple):
    """A trial that is finished or running, as a sampler sees it."""

    settings: Mapping[str, Any]
    value: float | None = None  # its validation metric
    failed: bool = False  # and so to be kept away from


def next_trial(space: Space, search: str, number: int, known: Mapping[str, Known]) -> Trial | None:
    """The trial with this number, other than those that are known by their keys.

    Returns:
        None if every combination is known, or no new one was drawn.
    """
    for attempt in range(_ATTEMPTS):
        seed = number + attempt * 100_000
        trial = space.trial(number, _draw(space, search, seed, known.values()))
        if trial.key not in known:
            return trial
    if any(isinstance(values, Range) for values in space.values.values()):
        return None
    trials = (space.trial(number, settings) for settings in space.combinations())
    return next((trial for trial in trials if trial.key not in known), None)


def _draw(space: Space, search: str, seed: int, known: Iterable[Known]) -> dict[str, Any]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spaces: dict[str, Any] = {}
    for key, values in space.values.items():
        if isinstance(values, list):
            spaces[key] = optuna.distributions.CategoricalDistribution(range(len(values)))
        elif isinstance(values.low, int):
            spaces[key] = optuna.distributions.IntDistribution(
                values.low, int(values.high), values.log
            )
        else:
            spaces[key] = optuna.distributions.FloatDistribution(
                values.low, values.high, values.log
            )
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed)
        if search == "random"
        else optuna.samplers.TPESampler(n_startup_trials=_AT_RANDOM, seed=seed),
        direction="maximize" if space.config.monitor_mode == "max" else "minimize",
    )
    states = optuna.trial.TrialState
    for each in known:
        state = states.PRUNED if each.failed else states.RUNNING
        study.add_trial(
            optuna.trial.create_trial(
                state=state if each.value is None else states.COMPLETE,
                value=each.value,
                params={
                    key: values.index(each.settings[key])
                    if isinstance(values, list)
                    else each.settings[key]
                    for key, values in space.values.items()
                },
                distributions=spaces,
            )
        )
    drawn = study.ask(spaces).params
    return {key: _value(values, drawn[key]) for key, values in space.values.items()}


def _value(values: list[Any] | Range, drawn: Any) -> Any:
    if isinstance(values, list):
        return values[drawn]
    short = float(f"{drawn:.{_DIGITS}g}") if isinstance(drawn, float) else drawn
    return short if short in values else drawn
