"""`fuxictr-miss <command>`: the entry point of all commands."""

from __future__ import annotations

import importlib
import sys

from fuxictr_miss.errors import run_command, unknown

COMMANDS = {
    "train": "run one experiment: data, training, test metrics",
    "benchmark": "reproduce the tables and figures of the paper",
    "tune": "search hyper-parameters by validation",
    "preprocess": "turn a raw log into train, validation and test splits",
    "export": "write the plain backbone or the embeddings of a trained experiment",
    "score": "score raw rows with an exported model",
}
HELP = "\n".join(
    [
        "usage: fuxictr-miss <command> [options]",
        "",
        *(f"  {name:<12}{about}" for name, about in COMMANDS.items()),
        "",
        "See `fuxictr-miss <command> --help`. To start:",
        "",
        "  fuxictr-miss preprocess demo && fuxictr-miss preprocess amazon --dataset demo",
        "  fuxictr-miss train --expid DIN_MISS_demo",
    ]
)


def main() -> None:
    """The console script, and `python -m fuxictr_miss`."""
    run_command(lambda: dispatch("fuxictr-miss", "fuxictr_miss.commands", COMMANDS, HELP))


def dispatch(name: str, package: str, commands: dict[str, str], text: str) -> None:
    """Run the command that the first argument names, with the remaining arguments.

    Args:
        name: the program so far, for its usage line.
        package: has one module per command, each with a `main`.
        commands: the command names and descriptions.
        text: printed for --help, or without a command.

    Raises:
        InputError: there is no such command; names the closest.
    """
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(text)
        return
    if arguments[0] not in commands:
        raise unknown("command", arguments[0], commands)
    sys.argv = [f"{name} {arguments[0]}", *arguments[1:]]
    importlib.import_module(f"{package}.{arguments[0]}").main()
