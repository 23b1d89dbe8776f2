"""An interaction log -> train, validation and test instances; by default the paper's (VI.A).

    fuxictr-miss preprocess --input log.csv.gz --user user_id --item item_id \\
        --time timestamp --attributes cate_id --name mylog

The one place where the protocol of the paper lives; `amazon.py` and `alipay.py` only read their
raw form and hand over a table (user, item, attributes, time).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from tqdm import tqdm

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.preprocess.coded_log import UNKNOWN, CodedLog
from fuxictr_miss.preprocess.csv_tables import CsvForm
from fuxictr_miss.preprocess.event_labels import EventLabels, Positive
from fuxictr_miss.preprocess.event_times import EventTimes
from fuxictr_miss.preprocess.instances import (
    chunks,
    histories,
    history_name,
    item_tokens,
    ranges,
    write_parquet,
)
from fuxictr_miss.preprocess.labels import LabelsProtocol, make_labelled_splits
from fuxictr_miss.preprocess.left_out import LeftOut
from fuxictr_miss.preprocess.output_folder import OutputFolder
from fuxictr_miss.preprocess.own_config import OwnConfig
from fuxictr_miss.preprocess.raw_lines import check_encoding
from fuxictr_miss.preprocess.table_files import find_files, read_tables

SPLITS = ("train", "valid", "test")
LAST_THREE, EVERY_PREFIX, LABELS = "leave-last-three", "every-prefix", "labels"
PROTOCOLS = (LAST_THREE, EVERY_PREFIX)  # of a log of interactions
LARGEST_SEED = 2**32 - 1
SHORTEST = 4  # three targets, and one interaction before the first of them
NEGATIVES = ("uniform", "popularity")


@dataclass(frozen=True)
class Protocol:
    """How instances are made from a log. The defaults are the paper's, where it says (VI.A)."""

    protocol: str = LAST_THREE  # or "every-prefix", DIN's own
    k_core: int = 5  # users and items with fewer interactions go, until none is left
    max_len: int = 50  # the newest ones of a history that are kept; the paper gives no number
    negatives: str = "uniform"  # or "popularity": as often as the item occurs in the filtered log
    num_negatives: int = 1  # a positive
    seed: int = 2021

    def __post_init__(self) -> None:
        for name, largest in (("k_core", 2**31), ("max_len", 2**31), ("num_negatives", 10_000)):
            check_number(f"--{name.replace('_', '-')}", getattr(self, name), 1, largest)
        check_number("--seed", self.seed, 0, LARGEST_SEED)
        if self.protocol not in PROTOCOLS:
            raise unknown("--protocol", self.protocol, PROTOCOLS)
        if self.negatives not in NEGATIVES:
            raise unknown("kind of --negatives", self.negatives, NEGATIVES)

    def targets(self, lengths: np.ndarray) -> np.ndarray:
        """How many of each user's interactions are targets, the newest ones; from their number."""
        return np.full_like(lengths, 3) if self.protocol == LAST_THREE else lengths - 1


def check_number(option: str, value: int, smallest: int, largest: int) -> None:
    if not smallest <= value <= largest:
        raise InputError(f"{option} is {value}; it must be from {smallest} to {largest:,}.")


class Record(NamedTuple):
    """The k-core of a log: users and items in order of first appearance."""

    users: pl.Series  # (U,) ids
    items: pl.DataFrame  # (I, 1 + A): item_id and attributes
    user_counts: np.ndarray  # (U,) interactions
    item_counts: np.ndarray  # (I,) interactions
    short_users: int  # left out: `k` interactions, but fewer than `SHORTEST`
    parts: Callable[[], Iterator[Part]]  # reads the users' interactions, one shard after another


class Part(NamedTuple):
    """What the users of one shard did."""

    users: np.ndarray  # (u,) rows in `Record.users`, ascending
    item_of: np.ndarray  # (n,) rows in `Record.items`; one user after another, each in time order
    starts: np.ndarray  # (u + 1,) where each user begins in `item_of`
    touched: np.ndarray  # sorted, distinct: place in `users` * I + row in `Record.items`


def filter_log(log: CodedLog, k: int) -> Record:
    """The iterated k-core of a log, in each user's time order. The log keeps nothing else.

    Users and items with fewer than `k` interactions are removed until none is left. A user needs
    `SHORTEST` of them in any case, or there is no history before the first target. Interactions at
    the same time keep their order in the log.

    Raises:
        InputError: nothing is left; a number is an id in two forms, 4 and 4.0.
    """
    log.refuse_values_in_two_forms()
    before = f"{log.interactions:,} interactions of {len(log.users):,} users"
    core = log.keep_core(k, SHORTEST)
    if len(core.users) == 0:
        raise InputError(
            f"Nothing is left of {before}: no group of users with at least {max(k, SHORTEST)} "
            f"interactions each, with items of at least {k} each. Lower --k-core, or give a larger "
            f"log."
        )
    user_row, item_row = _rows_of(core.users, len(log.users)), _rows_of(core.items, len(log.items))

    def parts() -> Iterator[Part]:
        for interactions, touched in log.shards():
            if len(interactions.get("user", ())):
                yield _part(interactions, touched, user_row, item_row, len(core.items))

    return Record(
        users=log.users.names(core.users),
        items=log.item_table(core.items),
        user_counts=core.user_counts,
        item_counts=core.item_counts,
        short_users=core.short_users,
        parts=parts,
    )


def with_attribute(record: Record, name: str, values: Sequence[str | None]) -> Record:
    """The record with one more attribute: a value for each item in order; None is `UNKNOWN`."""
    column = pl.Series(name, values, dtype=pl.String).replace("", None).fill_null(UNKNOWN)
    return record._replace(items=record.items.with_columns(column))


def split_frames(
    record: Record, part: Part, protocol: Protocol
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield ("train" | "valid" | "test", some of its instances); one split after the other.

    A user's last interaction is the target in the test, the last but one in the validation. Before
    these, number L-2 of L trains (`leave-last-three`: VI.A, "Data Processing"), or all that
    have a history (`every-prefix`). The history is everything before the target, cut to the newest
    `max_len`. The negatives are drawn, each by itself, from the items that the user never touched,
    before the target or after it. What is drawn for a user does not depend on the shards.

    Columns: `label` (1 or 0), `user_id`, `item_id`, the attributes, `item_history` and one history
    an attribute (`x_id` or `x` -> `x_history`): the ids in time order, joined by `^`. In an item's
    id or attribute, `^` stands as `%5E` and `%` as `%25`. Rows: users in order of first appearance,
    each one's targets in time order, each positive before its negatives.

    Raises:
        InputError: a user has touched every item, so that no negative exists.
    """
    starts, ends = part.starts[:-1], part.starts[1:]
    counts = protocol.targets(record.user_counts)  # of all users, for what a seed draws
    each = 1 + protocol.num_negatives
    mine = counts[part.users]
    target, owner = ranges(ends - mine, mine), np.repeat(np.arange(len(mine)), mine)
    draws = np.random.default_rng(protocol.seed).random((counts.sum(), protocol.num_negatives))
    draws = draws[ranges((np.cumsum(counts) - counts)[part.users], mine)]
    negatives = _untouched_items(record, part, owner, draws, protocol.negatives)
    candidates = np.column_stack((part.item_of[target], negatives))
    first = np.maximum(starts[owner], target - protocol.max_len)
    left = ends[owner] - target  # to the user's newest, that included
    users, tokens = record.users.gather(part.users), item_tokens(record.items)
    for split, chosen in zip(SPLITS, (left >= 3, left == 2, left == 1), strict=True):
        places = np.flatnonzero(chosen)
        for chunk in chunks((target - first)[places] * each):
            rows = places[chunk]
            row = np.repeat(np.arange(len(rows)), each)
            label = np.tile(np.arange(each) == 0, len(rows)).astype(np.int64)
            columns = [pl.Series("label", label), users.gather(owner[rows][row]).alias("user_id")]
            columns += [column.gather(candidates[rows].ravel()) for column in tokens]
            texts = histories(tokens, part.item_of, first[rows], (target - first)[rows])
            columns += [text.gather(row) for text in texts]
            yield split, pl.DataFrame(columns)


class Statistics(NamedTuple):
    """The columns of Table II."""

    users: int
    items: int
    instances: int  # in training: each positive and its negatives
    features: int  # users, items and attribute values, together
    fields: int  # user, item, attributes, and a history of all but the user


def statistics(record: Record, protocol: Protocol) -> Statistics:
    attributes = record.items.columns[1:]
    values = sum(record.items[name].n_unique() for name in attributes)
    users, items = len(record.users), record.items.height
    return Statistics(
        users=users,
        items=items,
        instances=int(protocol.targets(record.user_counts).sum() - 2 * users)
        * (1 + protocol.num_negatives),
        features=users + items + values,
        fields=1 + 2 * (1 + len(attributes)),
    )


def splits_folder(output: Path, inputs: Sequence[Path]) -> OutputFolder:
    """The folder that splits of these files are written into; `work` it before a log is read."""
    return OutputFolder(
        output,
        names=(*SPLITS, *(f"{name}.parquet" for name in (*SPLITS, "items"))),
        stamp="statistics.json",
        legacy=frozenset({"users", "instances", "interactions", "k_core"}),
        inputs=inputs,
    )


def write_splits(
    record: Record,
    protocol: Protocol,
    output: OutputFolder,
    source: Mapping[str, object],
    shards: int = 1,
) -> None:
    """Write `train`, `valid`, `test` and `items` (.parquet) and `statistics.json` into `output`.

    With several shards a split is a folder `train/part-000000.parquet`, ..: what FuxiCTR's block
    loader and Ray Data read. `items.parquet` has one row for each item of the filtered log with its
    attributes: the vocabulary that Table II counts, of which cut histories may lack some.

    The statistics come last, so that a folder with them is complete. The same log, protocol, shards
    and versions give the same bytes.

    Args:
        output: as `work` yields its working folder.
        source: what else the statistics should say about where the record comes from.
    """
    new = output.new()
    with tqdm(total=len(SPLITS) * shards, desc="splits", unit=" files") as bar:
        for number, part in enumerate(record.parts()):
            parts = groupby(split_frames(record, part, protocol), itemgetter(0))
            for split, frames in parts:
                name = f"{split}.parquet" if shards == 1 else f"{split}/part-{number:06d}.parquet"
                write_parquet(map(itemgetter(1), frames), new / name)
                bar.update()
    write_parquet([item_tokens(record.items)], new / "items.parquet")
    output.replace(
        {
            **statistics(record, protocol)._asdict(),
            "interactions": int(record.item_counts.sum()),
            "short_users": record.short_users,
            **asdict(protocol),
            **source,
        }
    )


def make_splits(
    name: str,
    log: Generator[pl.DataFrame],
    output: OutputFolder,
    protocol: Protocol,
    options: argparse.Namespace,
    left_out: LeftOut,
    *,
    attributes: Sequence[str] = (),
    complete: Callable[[Record], tuple[Record, dict[str, object]]] | None = None,
    paper: Statistics | None = None,
) -> None:
    """Read a log, filter it, print its statistics and write its splits.

    Args:
        name: of the data set.
        log: blocks as `CodedLog.add` takes them; closed at the end.
        options: of `add_common_options`.
        left_out: takes the malformed lines of `log`.
        complete: adds what a second file says of the items, and what the statistics say of that.
        paper: the row of Table II.
    """
    with output.work() as folder:
        coded = CodedLog(attributes, options.shards, folder if options.shards > 1 else None)
        with closing(log):
            for frame in log:
                coded.add(frame)
        record = filter_log(coded, protocol.k_core)
        more: dict[str, object] = {}
        if complete:
            record, more = complete(record)
        left_out.report()
        report(name, record, protocol, paper, getattr(options, "expect_paper", False))
        source = {
            "raw_rows": coded.rows,
            "raw_interactions": coded.interactions,
            "skipped_lines": len(left_out),
        }
        write_splits(record, protocol, output, source | more, options.shards)
    print(f"written to {output.path}")


def report(
    name: str,
    record: Record,
    protocol: Protocol,
    paper: Statistics | None = None,
    expect_paper: bool = False,
) -> None:
    """Print the statistics in the columns of Table II, beside the paper's row.

    Raises:
        InputError: with `expect_paper`, where a number differs from the paper's or there is none.
    """
    if record.short_users:
        print(
            f"{record.short_users:,} users with fewer than {SHORTEST} interactions left out: "
            f"no history before their first target"
        )
    ours = statistics(record, protocol)
    rows = {name: ours}
    if paper:
        rows["paper, Table II"] = paper
        rows["difference"] = Statistics(*(a - b for a, b in zip(ours, paper, strict=True)))
    width = max(map(len, rows))
    print(" " * width + "".join(f"{column:>12}" for column in Statistics._fields))
    for title, row in rows.items():
        sign = "+" if title == "difference" else ""
        print(f"{title:<{width}}" + "".join(f"{value:>{sign}12,}" for value in row))
    if not expect_paper:
        return
    if paper is None:
        raise InputError(f"--expect-paper: the paper's Table II has no row for {name}.")
    if ours != paper:
        raise InputError(
            f"--expect-paper: {name} differs from the paper's Table II, see above. Nothing was "
            f"written; check the raw files and options, or leave --expect-paper out."
        )


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
        type=_protocol_name,
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


def _protocol_name(text: str) -> str:
    """The paper's longer name is taken, too."""
    return LAST_THREE if text == f"{LAST_THREE}-out" else text


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


def _rows_of(codes: np.ndarray, n_codes: int) -> np.ndarray:
    """code -> its place in `codes`, -1 for one that is not there."""
    rows = np.full(n_codes, -1, np.int64)
    rows[codes] = np.arange(len(codes))
    return rows


def _part(
    interactions: Mapping[str, np.ndarray],
    touched: Mapping[str, np.ndarray],
    user_row: np.ndarray,
    item_row: np.ndarray,
    n_items: int,
) -> Part:
    user, item = user_row[interactions["user"]], item_row[interactions["item"]]
    order = _stable_order(user, interactions["time"])
    sizes = np.bincount(user)
    users = np.flatnonzero(sizes)
    place_of = _rows_of(users, len(user_row))
    keys = place_of[user] * n_items + item
    if touched:
        place, other = place_of[user_row[touched["user"]]], item_row[touched["item"]]
        known = (user_row[touched["user"]] >= 0) & (place >= 0) & (other >= 0)
        keys = np.append(keys, (place * n_items + other)[known])
    keys.sort()
    return Part(
        users=users,
        item_of=item[order],
        starts=np.append(0, np.cumsum(sizes[users])),
        touched=keys[np.append(True, np.diff(keys) > 0)],
    )


def _stable_order(user: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Rows by user, then time, then place: `np.lexsort((when, user))`.

    Where time and place fit into one integer, two plain sorts do it several times as fast.
    """
    place = np.arange(len(user))
    if when.dtype.kind != "i" or (int(when.max()) - int(when.min())) * len(place) > 1 << 62:
        return np.lexsort((when, user))
    by_time = np.sort((when - when.min()) * len(place) + place) % len(place)
    return by_time[np.sort(user[by_time] * len(place) + place) % len(place)]


def _untouched_items(
    record: Record, part: Part, owner: np.ndarray, draws: np.ndarray, negatives: str
) -> np.ndarray:
    """An item that the user `owner` (n,) never touched, for each draw from [0, 1): (n, q) both.

    Item i has a weight: 1, or its number of interactions. Were the user's untouched items laid
    side by side, each as wide as its weight, a draw would fall into one of them. `before` says how
    much of that line lies before each touched item, so the search jumps over these at once:
    no draw is ever rejected.
    """
    n_users, n_items = len(part.users), record.items.height
    user, item = np.divmod(part.touched, n_items)
    weight = record.item_counts if negatives == "popularity" else np.ones(n_items, np.int64)
    upto = np.cumsum(weight)  # the weight of all items up to and with this one
    total = int(upto[-1])
    starts = np.searchsorted(user, np.arange(n_users))
    sums = np.append(0, np.cumsum(weight[item]))  # touched weight, of all users in a row
    before = upto[item] - weight[item] - (sums[:-1] - sums[starts][user])
    free = total - np.diff(np.append(sums[starts], sums[-1]))
    if not free.all():
        busy = np.flatnonzero(free == 0)
        raise InputError(
            f"User {record.users[int(part.users[busy[0]])]!r} has touched all {n_items} items, so "
            f"no negative exists ({len(busy)} such users). Lower --k-core to keep more items, or "
            f"leave these users out."
        )
    owner = owner[:, None]
    place = np.minimum((draws * free[owner]).astype(np.int64), free[owner] - 1)
    # how many touched items of this user lie before the place: the keys ascend through all users
    passed = np.searchsorted(user * (total + 1) + before, owner * (total + 1) + place, "right")
    skipped = sums[passed] - sums[starts][owner]
    return np.searchsorted(upto, place + skipped, "right")


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
    log = read_tables(
        files,
        columns,
        form=form,
        times=times,
        labels=labels,
        left_out=left_out,
        allow_truncated=options.allow_truncated,
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
        option = f"--{name.replace('_', '-')}"
        why = "which has no labels"
        if labelled:
            why = "which takes rows with their own labels (--label, --positive), in memory"
        raise InputError(f"{option} means nothing to --protocol {options.protocol}, {why}.")
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


def _refuse_taken(option: str, name: str, twice: set[str]) -> None:
    if twice:
        raise InputError(
            f"{option} {name}: the splits have a column {' and '.join(sorted(twice))} already. "
            f"Rename the column in the log."
        )
