"""Any log of interactions or impressions -> train, validation and test instances, and a config.

    fuxictr-miss preprocess --input log.csv.gz --user user_id --item item_id \\
        --time timestamp --attributes cate_id --name mylog
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.preprocess.csv_tables import CsvForm
from fuxictr_miss.preprocess.event_labels import EventLabels, Positive
from fuxictr_miss.preprocess.event_times import EventTimes
from fuxictr_miss.preprocess.instances import history_name
from fuxictr_miss.preprocess.labels import LabelsProtocol, make_labelled_splits
from fuxictr_miss.preprocess.left_out import LeftOut
from fuxictr_miss.preprocess.missing_words import MissingWords
from fuxictr_miss.preprocess.options import add_common_options, option, protocol_of
from fuxictr_miss.preprocess.own_config import OwnConfig
from fuxictr_miss.preprocess.protocol import LAST_THREE, PROTOCOLS, Protocol, check_number
from fuxictr_miss.preprocess.splits import make_splits, splits_folder
from fuxictr_miss.preprocess.table_files import find_files, read_tables

LABELS = "labels"  # the protocol of a log of impressions


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    options.protocol = options.protocol or _default_protocol(options)
    _refuse_options_of_another_protocol(parser, options)
    protocol, labels = _protocol(options), _labels(options)
    columns = _columns(options, labels)
    form = CsvForm(options.separator.replace("\\t", "\t"), options.quoting, options.encoding)
    times = EventTimes(options.time_format)
    if options.output is None and options.name is None:
        raise InputError("Give --name, of the data set, or --output, the folder of its splits.")
    splits = options.output or Path("data", "splits", options.name)
    config = _own_config(options, splits)
    files = find_files(options.input)
    output = splits_folder(splits, files)
    left_out = LeftOut(options.skip_malformed)
    missing = MissingWords()
    log = missing.watch(
        read_tables(
            files,
            columns,
            form=form,
            times=times,
            labels=labels,
            left_out=left_out,
            allow_truncated=options.allow_truncated,
        )
    )
    name, attributes = options.name or splits.name, options.attributes
    context: Mapping[str, Mapping[str, Any]] = {}
    if isinstance(protocol, Protocol):
        make_splits(name, log, output, protocol, options, left_out, attributes=attributes)
    else:
        context = make_labelled_splits(
            name,
            log,
            output,
            protocol,
            left_out,
            attributes=attributes,
            context=options.context,
            source={"label": columns["label"], "positive": options.positive},
        )
    missing.report()
    if config:
        config.write(context)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Any log of interactions or impressions (CSV or Parquet) -> train, valid and "
        "test splits, and with --name a config to train on them.",
        epilog="example: fuxictr-miss preprocess --input log.csv.gz --user user_id --item item_id "
        "--time timestamp --attributes cate_id --name mylog",
    )
    group = parser.add_argument_group("the log")
    group.add_argument(
        "--input",
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="CSV with a header (plain, .gz, .bz2, .xz, .zst or .zip) or Parquet; several, or a "
        "quoted glob, are read in order",
    )
    group.add_argument("--user", required=True, metavar="COLUMN")
    group.add_argument("--item", required=True, metavar="COLUMN")
    group.add_argument(
        "--time",
        required=True,
        metavar="COLUMN",
        help="integers, decimals, or ISO 8601 dates such as 2015-07-01 12:30:00; all of one kind",
    )
    group.add_argument(
        "--time-format",
        metavar="FORMAT",
        help="how other dates are written, such as '%%m/%%d/%%Y %%H:%%M'",
    )
    group.add_argument(
        "--attributes",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN",
        help="of the item, such as cate_id,brand; each gets a history, such as cate_history",
    )
    option(group, "--separator", "SIGN", ",", "of a CSV's columns")
    about = "csv: fields may stand in double quotes (RFC 4180, without line ends in them); none: "
    option(group, "--quoting", "HOW", "csv", f"{about}a double quote is a letter like any other")
    group = parser.add_argument_group(
        f"impressions (--protocol {LABELS}, which --label or --positive choose)"
    )
    group.add_argument("--label", metavar="COLUMN", help="of 0 and 1")
    group.add_argument(
        "--positive",
        metavar="COMPARISON",
        help="instead: which rows are label 1, such as 'rating >= 4' or 'event == \"click\"'",
    )
    group.add_argument(
        "--context",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN",
        help="of a row, such as hour,device,price; numeric if all values are numbers",
    )
    group.add_argument(
        "--split-by",
        metavar="HOW",
        help="time (default): the newest rows test; user: the newest rows of each user",
    )
    group.add_argument(
        "--split-shares",
        nargs=3,
        type=float,
        metavar="SHARE",
        help="of the rows, for train, valid and test (default 0.8 0.1 0.1)",
    )
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--name",
        metavar="NAME",
        help="of the data set: also write a config with DIN_NAME, DIN_MISS_NAME and others",
    )
    group.add_argument(
        "--config-folder",
        type=Path,
        metavar="DIR",
        help="of that config; entries that stand there stay (default config_NAME)",
    )
    group.add_argument(
        "--output", type=Path, metavar="DIR", help="of the splits (default data/splits/NAME)"
    )
    add_common_options(parser, k_core=str(Protocol.k_core))
    parser.set_defaults(protocol=None)
    return parser


def _default_protocol(options: argparse.Namespace) -> str:
    return LABELS if options.label or options.positive else LAST_THREE


def _refuse_options_of_another_protocol(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> None:
    if options.protocol not in (*PROTOCOLS, LABELS):
        raise unknown("--protocol", options.protocol, (*PROTOCOLS, LABELS))
    of_impressions = ("label", "positive", "context", "split_by", "split_shares")
    of_interactions = ("k_core", "negatives", "num_negatives", "seed", "shards")
    labelled = options.protocol == LABELS
    for name in of_interactions if labelled else of_impressions:
        if getattr(options, name) == parser.get_default(name):
            continue
        why = "which has no labels"
        if labelled:
            why = "which takes rows with their own labels (--label, --positive), in memory"
        given = f"--{name.replace('_', '-')}"
        raise InputError(f"{given} means nothing to --protocol {options.protocol}, {why}.")
    if labelled and (options.label is None) == (options.positive is None):
        raise InputError(
            f"--protocol {LABELS} needs either --label, a column of 0 and 1, or --positive, such "
            "as 'rating >= 4'."
        )


def _protocol(options: argparse.Namespace) -> Protocol | LabelsProtocol:
    if options.protocol != LABELS:
        return protocol_of(options, Protocol.k_core)
    check_number("--max-len", options.max_len, 1, 2**31)
    chosen = {name: getattr(options, name) for name in ("max_len", "split_by", "split_shares")}
    return LabelsProtocol(**{name: value for name, value in chosen.items() if value is not None})


def _labels(options: argparse.Namespace) -> EventLabels | None:
    if options.protocol != LABELS:
        return None
    if options.label is not None:
        return EventLabels(options.label)
    positive = Positive.of(options.positive)
    return EventLabels(positive.column, positive)


def _columns(options: argparse.Namespace, labels: EventLabels | None) -> dict[str, str]:
    """Name in the splits -> name in the log."""
    columns = {"user_id": options.user, "item_id": options.item, "time": options.time}
    if labels:
        columns["label"] = labels.column
    if len(set(columns.values())) < len(columns):
        label = "--label" if options.label is not None else "--positive"
        named = ", ".join(["--user", "--item", "--time", *([label] if labels else [])])
        raise InputError(f"{named} must name different columns.")
    taken = {"label", "user_id", "item_id", "time", "item_history"}
    options.attributes, options.context = _listed(options.attributes), _listed(options.context)
    for name in options.attributes:
        history = history_name(name)
        _refuse_taken("--attributes", name, {name, history} & taken)
        taken |= {name, history}
    for name in options.context:
        _refuse_taken("--context", name, {name} & taken)
        taken.add(name)
    more = [*options.attributes, *options.context]
    if labels and labels.column in more:
        raise InputError(f"{labels.column!r} is the label; a model that sees it learns nothing.")
    return columns | {name: name for name in more}


def _listed(texts: Sequence[str]) -> list[str]:
    """Names behind each other, separated by commas or spaces; one with a comma is in quotes."""
    rows = chain.from_iterable(
        csv.reader(text.splitlines(), skipinitialspace=True) for text in texts
    )
    return list(chain.from_iterable(rows))


def _own_config(options: argparse.Namespace, splits: Path) -> OwnConfig | None:
    """The config to write, checked before the log is read."""
    if options.name is None:
        if options.config_folder:
            raise InputError("--config-folder needs --name, which names the entries written there.")
        return None
    config = OwnConfig(
        folder=options.config_folder or Path(f"config_{options.name}"),
        name=options.name,
        splits=splits,
        attributes=options.attributes,
        max_len=options.max_len,
        in_parts=options.shards > 1,
    )
    config.check(options.context)
    return config


def _refuse_taken(given: str, name: str, twice: set[str]) -> None:
    if twice:
        raise InputError(
            f"{given} {name}: the splits have a column {' and '.join(sorted(twice))} already. "
            f"Rename the column in the log."
        )
