"""Runs the commands of data_preprocess in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import pytest

from fuxictr_miss.errors import run_command


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """run(amazon, "--dataset", "demo", ..) -> exit code and what it printed."""

    def run_main(module: ModuleType, *arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        code: object = 0
        try:
            run_command(module.main)
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return Ended(int(str(code)), printed.out, printed.err)

    return run_main
