"""The options that the commands of all data sets share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fuxictr_miss.preprocess.protocol import (
    LAST_THREE,
    NEGATIVES,
    PROTOCOLS,
    Protocol,
    check_number,
)
from fuxictr_miss.preprocess.raw_lines import check_encoding


def add_common_options(
    parser: argparse.ArgumentParser, k_core: str, in_paper: bool = False
) -> None:
    """The options of all data sets; `k_core` says what its default is."""
    if in_paper:
        parser.add_argument(
            "--expect-paper",
            action="store_true",
            help="an error, and nothing written, if the statistics differ from Table II",
        )
    group = parser.add_argument_group("protocol (the paper's choice is the default)")
    group.add_argument(
        "--k-core",
        type=int,
        metavar="K",
        help=f"smallest number of interactions of a user and of an item (default {k_core})",
    )
    default = Protocol()
    about = f"which interactions train and test: {', '.join(PROTOCOLS)}"
    group.add_argument(
        "--protocol",
        metavar="NAME",
        default=default.protocol,
        help=f"{about} (default {LAST_THREE})",
    )
    option(group, "--max-len", "N", default.max_len, "newest interactions kept in a history")
    option(group, "--negatives", "HOW", default.negatives, f"drawn {' or '.join(NEGATIVES)}")
    option(group, "--num-negatives", "N", default.num_negatives, "negatives a positive")
    option(group, "--seed", "N", default.seed, "of the negatives; the same seed, the same bytes")
    group = parser.add_argument_group("reading and writing")
    option(
        group,
        "--shards",
        "N",
        1,
        "for logs larger than the memory: work on disk, on one of N parts of the users at a time, "
        "and write N parts of each split; 1 is in memory, one file each",
    )
    option(group, "--encoding", "NAME", "utf-8", "of the text, such as latin-1, cp1252 or utf-16")
    group.add_argument(
        "--skip-malformed",
        action="store_true",
        help="leave out malformed lines, print how many and why, and name the first (default: the "
        "first is an error)",
    )
    group.add_argument(
        "--allow-truncated",
        action="store_true",
        help="go on with the whole lines of a packed file that is cut off",
    )


def option(group: Any, name: str, metavar: str, default: int | str | Path, about: str) -> None:
    """An option of the type of its default, which its help says."""
    about = f"{about} (default {default})"
    group.add_argument(name, metavar=metavar, type=type(default), default=default, help=about)


def protocol_of(options: argparse.Namespace, k_core: int) -> Protocol:
    """The protocol that a command line asks for; `k_core` where it names none.

    Raises:
        InputError: an option of `add_common_options` has no valid value.
    """
    check_number("--shards", options.shards, 1, 10_000)
    check_encoding(options.encoding)
    chosen = {name: getattr(options, name) for name in Protocol.__dataclass_fields__}
    return Protocol(**chosen | ({"k_core": k_core} if options.k_core is None else {}))
