"""The protocol of the paper (Section VI.A) and DIN's: an interaction log -> instances.

The k-core of the log, each user's targets, their histories and negatives. `interactions.py`,
`amazon.py` and `alipay.py` only read their raw form and hand over a table (user, item, attributes,
time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.preprocess.coded_log import UNKNOWN, CodedLog
from fuxictr_miss.preprocess.instances import chunks, histories, item_tokens, ranges

SPLITS = ("train", "valid", "test")
LAST_THREE, EVERY_PREFIX = "leave-last-three", "every-prefix"
PROTOCOLS = (LAST_THREE, EVERY_PREFIX)
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
