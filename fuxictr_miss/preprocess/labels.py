"""A log of impressions with labels of their own -> train, validation and test rows.

Each line from its user's first positive on is an instance. Its history is what the user chose
before: the items of the rows of label 1 that are strictly older.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.preprocess.coded_log import CodedLog, Codes
from fuxictr_miss.preprocess.instances import chunks, histories, item_tokens, write_parquet
from fuxictr_miss.preprocess.left_out import LeftOut
from fuxictr_miss.preprocess.output_folder import OutputFolder
from fuxictr_miss.preprocess.protocol import SPLITS
from fuxictr_miss.text.id_text import EXACT

SPLIT_BY = ("time", "user")


@dataclass(frozen=True)
class LabelsProtocol:
    """How instances are made from impressions."""

    max_len: int = 50  # the newest ones of a history that are kept
    split_by: str = "time"  # of all rows; or "user": of each user's own
    split_shares: tuple[float, ...] = (0.8, 0.1, 0.1)  # of the rows, in the order of time

    def __post_init__(self) -> None:
        if self.split_by not in SPLIT_BY:
            raise unknown("--split-by", self.split_by, SPLIT_BY)
        shares = self.split_shares
        positive = all(math.isfinite(share) and share > 0 for share in shares)
        if not positive or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            shown = " ".join(map(str, shares))
            raise InputError(f"--split-shares {shown} must be three positive shares of sum 1.")


class Context(NamedTuple):
    """A column that says something about a row, not about its item."""

    values: pl.Series  # the distinct ones: Float64 if all are numbers, else String; null is missing
    codes: np.ndarray  # (n,) place in `values`

    @property
    def is_numeric(self) -> bool:
        return self.values.dtype == pl.Float64


class Impressions(NamedTuple):
    """The instances of a log in the order of time, ties in that of the file."""

    user: np.ndarray  # (n,) rows in `users`
    item: np.ndarray  # (n,) rows in `items`
    time: np.ndarray  # (n,)
    label: np.ndarray  # (n,) 0 or 1
    context: dict[str, Context]
    users: pl.Series  # ids
    items: pl.DataFrame  # item_id and attributes
    before_first_positive: int  # rows of the log that are no instance


def read_impressions(
    log: Generator[pl.DataFrame], attributes: Sequence[str], context: Sequence[str]
) -> Impressions:
    """The rows of a log from each user's first positive on, in time.

    Args:
        log: blocks as `read_tables` yields them, with `label`; closed at the end.

    Raises:
        InputError: a number is an id in two forms, 4 and 4.0; no row is of label 1; a context
            column is empty.
    """
    coded = CodedLog(attributes)
    texts = {name: Codes() for name in context}
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in ("label", *context)}
    with closing(log):
        for frame in log:
            coded.add(frame)
            blocks["label"].append(frame["label"].to_numpy())
            for name, codes in texts.items():
                blocks[name].append(codes.encode(frame[name].fill_null("")))
    coded.refuse_values_in_two_forms()
    ((rows, _),) = coded.shards()
    label = np.concatenate(blocks.pop("label"))
    if not label.any():
        raise InputError(
            f"No one of {len(label):,} rows is of label 1, so that there is no history and nothing "
            "to learn. Check --label or --positive."
        )
    kept = _from_first_positive_on(rows["user"], rows["time"], label, len(coded.users))
    order = kept[np.argsort(rows["time"][kept], kind="stable")]
    users, user = _present(rows["user"][order], len(coded.users))
    items, item = _present(rows["item"][order], len(coded.items))
    about = {}
    for name, codes in texts.items():
        present, code = _present(np.concatenate(blocks.pop(name))[order], len(codes))
        about[name] = Context(_numbers_or_text(codes.names(present)), code)
        if about[name].values.null_count() == len(present):
            raise InputError(f"--context {name} has no value in any instance. Leave it out.")
    return Impressions(
        user=user,
        item=item,
        time=rows["time"][order],
        label=label[order],
        context=about,
        users=coded.users.names(users),
        items=coded.item_table(items),
        before_first_positive=len(label) - len(order),
    )


def _from_first_positive_on(
    user: np.ndarray, time: np.ndarray, label: np.ndarray, n_users: int
) -> np.ndarray:
    """Rows that are as late as the first row of label 1 of their user, or later."""
    positive = np.flatnonzero(label)
    first = np.full(n_users, time.max(), time.dtype)
    np.minimum.at(first, user[positive], time[positive])
    has_one = np.zeros(n_users, bool)
    has_one[user[positive]] = True
    return np.flatnonzero(has_one[user] & (time >= first[user]))


def _present(codes: np.ndarray, n_codes: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes that occur, ascending, and of each one its place among them."""
    occurs = np.zeros(n_codes, bool)
    occurs[codes] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs, dtype=np.int32) - 1)[codes]


def _numbers_or_text(texts: pl.Series) -> pl.Series:
    """Float64 if every value is a number; an empty text, and NaN among numbers, is missing."""
    texts = texts.replace("", None)
    numbers = texts.str.strip_chars().cast(pl.Float64, strict=False)
    if _names(texts).any() or not numbers.is_finite().any():
        return texts
    return numbers.fill_nan(None)


def _names(texts: pl.Series) -> pl.Series:
    """Whether a text is no number, or one like 007 or of more digits than a Float64 holds."""
    bare = texts.str.strip_chars()
    numbers = bare.cast(pl.Float64, strict=False)
    large = numbers.is_not_nan() & (numbers.abs() > EXACT)
    return texts.is_not_null() & (numbers.is_null() | large | bare.str.contains(r"^[+-]?0[0-9]"))


class _Grouped(NamedTuple):
    """Rows by group, then time, then place; and where each one stands there."""

    order: np.ndarray  # (n,) rows
    group_starts: np.ndarray  # (n,) of each of `order`, the place where its group begins
    group_sizes: np.ndarray  # (n,)
    time_starts: np.ndarray  # (n,) likewise of its group's rows of that time
    time_sizes: np.ndarray  # (n,)

    @classmethod
    def of(cls, group: np.ndarray, time: np.ndarray) -> _Grouped:
        """Args: `group` and `time` (n,) of rows in the order of time."""
        order = np.argsort(group, kind="stable")
        group, time = group[order], time[order]
        new_group = np.append(True, group[1:] != group[:-1])
        new_time = new_group | np.append(True, time[1:] != time[:-1])
        return cls(order, *_runs(new_group), *_runs(new_time))


def _runs(begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each place, where its run begins and how long it is."""
    starts = np.flatnonzero(begins)
    sizes = np.diff(starts, append=len(begins))
    return np.repeat(starts, sizes), np.repeat(sizes, sizes)


def split_rows(log: Impressions, protocol: LabelsProtocol) -> dict[str, np.ndarray]:
    """The rows of each split: the shares of all rows, or of each user's; in the order of time.

    Rows of one time (of one user) stay together, in the later split, so that no row of a split is
    as old as one of the split before.

    Raises:
        InputError: a split lacks a label, or has no row at all.
    """
    by_user = protocol.split_by == "user"
    rows = _Grouped.of(log.user if by_user else np.zeros_like(log.user), log.time)
    newest = rows.time_starts + rows.time_sizes - 1 - rows.group_starts  # of the rows of its time
    number = np.zeros(len(newest), np.int8)
    for share in np.cumsum(protocol.split_shares[:-1]):
        number[rows.order] += newest >= np.rint(share * rows.group_sizes)
    splits = {name: np.flatnonzero(number == place) for place, name in enumerate(SPLITS)}
    for name, places in splits.items():
        for label in (0, 1):
            if label not in log.label[places]:
                of_whom = "each user's rows" if by_user else "all rows"
                raise InputError(
                    f"The {name} split, {len(places):,} of {len(number):,} rows by the time of "
                    f"{of_whom}, has no row of label {label}. Choose other --split-shares, or "
                    "check the labels."
                )
    return splits


def labelled_frames(
    log: Impressions, rows: np.ndarray, first: np.ndarray, lengths: np.ndarray, chosen: np.ndarray
) -> Iterator[pl.DataFrame]:
    """The instances of some rows of the log: canonical columns, `context` behind the attributes.

    Args:
        first, lengths, chosen: as `earlier_choices` gives them.
    """
    tokens = item_tokens(log.items)
    for chunk in chunks(lengths[rows]):
        mine = rows[chunk]
        yield pl.DataFrame(
            [
                pl.Series("label", log.label[mine].astype(np.int64)),
                log.users.gather(log.user[mine]).alias("user_id"),
                *(column.gather(log.item[mine]) for column in tokens),
                *(c.values.gather(c.codes[mine]).alias(n) for n, c in log.context.items()),
                *histories(tokens, chosen, first[mine], lengths[mine]),
            ]
        )


def earlier_choices(log: Impressions, max_len: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The history of each row: the newest `max_len` items that its user chose at an earlier time.

    Returns:
        first, lengths: (n,) of each row, where its history lies in `chosen`.
        chosen: items of label 1, by user, then time, then place in the file.
    """
    rows = _Grouped.of(log.user, log.time)
    label = log.label[rows.order]
    before = np.cumsum(label, dtype=np.int64) - label  # choices of all rows above
    first, ends = np.empty_like(before), np.empty_like(before)
    ends[rows.order] = before[rows.time_starts]
    first[rows.order] = np.maximum(before[rows.group_starts], before[rows.time_starts] - max_len)
    return first, ends - first, log.item[rows.order][label == 1]


def make_labelled_splits(
    name: str,
    log: Generator[pl.DataFrame],
    output: OutputFolder,
    protocol: LabelsProtocol,
    left_out: LeftOut,
    *,
    attributes: Sequence[str] = (),
    context: Sequence[str] = (),
    source: dict[str, object],
) -> dict[str, dict[str, object]]:
    """Read a log, print its statistics and write its splits.

    Args:
        name: of the data set.
        log: as `read_impressions` takes it.
        left_out: takes the malformed lines of `log`.
        source: what else the statistics should say.

    Returns:
        Of each context column what the statistics say of it.
    """
    with output.work():
        impressions = read_impressions(log, attributes, context)
        left_out.report()
        splits = split_rows(impressions, protocol)
        about = _statistics(impressions, splits, protocol)
        _print_statistics(name, about)
        first, lengths, chosen = earlier_choices(impressions, protocol.max_len)
        new = output.new()
        for split, rows in splits.items():
            frames = labelled_frames(impressions, rows, first, lengths, chosen)
            write_parquet(frames, new / f"{split}.parquet")
        write_parquet([item_tokens(impressions.items)], new / "items.parquet")
        output.replace(
            {
                **about,
                "protocol": "labels",
                "skipped_lines": len(left_out),
                **asdict(protocol),
                **source,
            }
        )
    print(f"written to {output.path}")
    return about["context"]


def _statistics(
    log: Impressions, splits: dict[str, np.ndarray], protocol: LabelsProtocol
) -> dict[str, Any]:
    context = {name: _about(column, splits["train"]) for name, column in log.context.items()}
    values = sum(column.n_unique() for column in log.items)
    of_rows = sum(1 if c.is_numeric else len(c.values) for c in log.context.values())
    about = {
        "users": len(log.users),
        "items": log.items.height,
        "instances": len(splits["train"]),
        "features": len(log.users) + values + of_rows,
        "fields": 1 + 2 * log.items.width + len(context),
        "rows": {name: len(rows) for name, rows in splits.items()},
        "positives": {name: int(log.label[rows].sum()) for name, rows in splits.items()},
        "before_first_positive": log.before_first_positive,
        "context": context,
    }
    if protocol.split_by == "time":
        about["first_time"] = {name: log.time[rows[0]].item() for name, rows in splits.items()}
    return about


def _about(column: Context, train: np.ndarray) -> dict[str, object]:
    """Of a context column: its type, how many rows lack a value, and what else a config needs."""
    values, codes = column
    missing = {"missing": int(values.is_null().gather(codes).sum())}
    if column.is_numeric:
        median = values.gather(codes[train]).median()
        return {"type": "numeric", **missing, "median_of_train": median or 0.0}
    number = values.drop_nulls().len()
    names = values.filter(_names(values))
    odd = {"no_number": names[0]} if 0 < len(names) < number else {}
    return {"type": "categorical", **missing, "values": number, **odd}


def _print_statistics(name: str, about: Mapping[str, Any]) -> None:
    print(f"{name}: {about['users']:,} users, {about['items']:,} items")
    if about["before_first_positive"]:
        print(
            f"{about['before_first_positive']:,} rows before their user's first of label 1 left "
            "out: there is no history yet"
        )
    for split, rows in about["rows"].items():
        share = about["positives"][split] / rows
        since = f", from time {about['first_time'][split]} on" if "first_time" in about else ""
        print(f"{split:<6}{rows:>12,} rows, {share:.1%} of label 1{since}")
    for column, known in about["context"].items():
        values = f" of {known['values']:,} values" if known["type"] == "categorical" else ""
        missing = f", missing in {known['missing']:,} rows" if known["missing"] else ""
        odd = f"; {known['no_number']!r} is no number" if "no_number" in known else ""
        print(f"context {column}: {known['type']}{values}{missing}{odd}")
