"""`fuxictr-miss <command>`: one door to all commands."""

from __future__ import annotations

import importlib
import sys

from fuxictr_miss.errors import run_command, unknown

COMMANDS = {
    "train": "one experiment of a config folder: data, training, test metrics",
    "benchmark": "the tables and figures of the paper",
    "tune": "every combination of a search space",
    "preprocess": "a raw log into train, validation and test splits",
    "export": "the plain backbone or the embeddings of a trained experiment",
}
HELP = "\n".join(
    [
        "usage: fuxictr-miss <command> [options]",
        "",
        *(f"  {name:<12}{about}" for name, about in COMMANDS.items()),
        "",
        "`fuxictr-miss <command> --help` says more. The first thing to try:",
        "",
        "  fuxictr-miss preprocess demo && fuxictr-miss preprocess amazon --dataset demo",
        "  fuxictr-miss train --expid DIN_MISS_demo",
    ]
)


def main() -> None:
    """The console script, and `python -m fuxictr_miss`."""
    run_command(lambda: dispatch("fuxictr-miss", "fuxictr_miss.commands", COMMANDS, HELP))


def dispatch(name: str, package: str, commands: dict[str, str], text: str) -> None:
    """Hand the rest of the command line to the module of `package` that its next word names.

    Raises:
        InputError: there is no command of this name; names the closest.
    """
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(text)
        return
    if arguments[0] not in commands:
        raise unknown("command", arguments[0], commands)
    sys.argv = [f"{name} {arguments[0]}", *arguments[1:]]
    importlib.import_module(f"{package}.{arguments[0]}").main()
