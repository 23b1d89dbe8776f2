"""A log of impressions with labels of their own -> train, validation and test rows, by time.

Every line of the log is an instance. Its history is what the user liked earlier: the items of the
rows of label 1 that are strictly older, ties in the order of the file.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.coded_log import CodedLog
from fuxictr_miss.preprocess.instances import chunks, histories, item_tokens, write_parquet
from fuxictr_miss.preprocess.left_out import LeftOut
from fuxictr_miss.preprocess.output_folder import OutputFolder

NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class LabelsProtocol:
    """How instances are made from impressions."""

    max_len: int = 50  # the newest ones of a history that are kept
    split_shares: tuple[float, ...] = (0.8, 0.1, 0.1)  # of the rows, in the order of time

    def __post_init__(self) -> None:
        shares = self.split_shares
        positive = all(math.isfinite(share) and share > 0 for share in shares)
        if not positive or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            shown = " ".join(map(str, shares))
            raise InputError(f"--split-shares {shown} must be three positive shares of sum 1.")


class Impressions(NamedTuple):
    """All rows of a log in the order of time, ties in that of the file."""

    user: np.ndarray  # (n,) rows in `users`
    item: np.ndarray  # (n,) rows in `items`
    time: np.ndarray  # (n,)
    label: np.ndarray  # (n,) 0 or 1
    context: pl.DataFrame  # (n, C) what else is known of a row
    users: pl.Series  # ids
    items: pl.DataFrame  # item_id and attributes


def read_impressions(
    log: Generator[pl.DataFrame], attributes: Sequence[str], context: Sequence[str]
) -> Impressions:
    """All rows of a log.

    Args:
        log: blocks as `read_tables` yields them, with `label`; closed at the end.

    Raises:
        InputError: a number is an id in two forms, 4 and 4.0.
    """
    coded = CodedLog(attributes)
    blocks = []
    with closing(log):
        for frame in log:
            coded.add(frame)
            blocks.append(frame.select("label", *context))
    coded.refuse_values_in_two_forms()
    ((rows, _),) = coded.shards()
    order = np.argsort(rows["time"], kind="stable")
    more = pl.concat(blocks)[order]
    return Impressions(
        user=rows["user"][order],
        item=rows["item"][order],
        time=rows["time"][order],
        label=more["label"].to_numpy(),
        context=more.drop("label").select(pl.all().replace("", None)),
        users=coded.users.names(np.arange(len(coded.users))),
        items=coded.item_table(np.arange(len(coded.items))),
    )


def split_by_time(log: Impressions, protocol: LabelsProtocol) -> dict[str, slice]:
    """The rows of each split: the shares of the rows, but rows of one time stay together.

    A split begins with the first row of the time at which its share begins, so that no row of it
    is as old as one of the split before.

    Raises:
        InputError: a split lacks a label, or has no row at all.
    """
    n_rows = len(log.time)
    shares = np.cumsum(protocol.split_shares[:-1])
    places = np.minimum(np.round(shares * n_rows).astype(np.int64), n_rows - 1)
    bounds = [0, *np.searchsorted(log.time, log.time[places], "left").tolist(), n_rows]
    splits = dict(zip(NAMES, map(slice, bounds[:-1], bounds[1:]), strict=True))
    for name, rows in splits.items():
        for label in (0, 1):
            if label not in log.label[rows]:
                raise InputError(
                    f"The {name} split, {rows.stop - rows.start:,} of {n_rows:,} rows by time, has "
                    f"no row of label {label}. Choose other --split-shares, or check --label."
                )
    return splits


def labelled_frames(
    log: Impressions, rows: slice, first: np.ndarray, lengths: np.ndarray, liked: np.ndarray
) -> Iterator[pl.DataFrame]:
    """The instances of some rows of the log: canonical columns, `context` behind the attributes.

    Args:
        first, lengths, liked: as `earlier_likes` gives them.
    """
    tokens = item_tokens(log.items)
    for chunk in chunks(lengths[rows]):
        mine = slice(rows.start + chunk.start, rows.start + chunk.stop)
        yield pl.DataFrame(
            [
                pl.Series("label", log.label[mine]),
                log.users.gather(log.user[mine]).alias("user_id"),
                *(column.gather(log.item[mine]) for column in tokens),
                *log.context[mine],
                *histories(tokens, liked, first[mine], lengths[mine]),
            ]
        )


def earlier_likes(log: Impressions, max_len: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The history of each row: the newest `max_len` items that its user liked at an earlier time.

    Returns:
        first, lengths: (n,) of each row, where its history lies in `liked`.
        liked: items of label 1, by user, then time, then place in the file.
    """
    order = np.argsort(log.user, kind="stable")  # by user, then time, then place
    user, time, label = log.user[order], log.time[order], log.label[order]
    place = np.arange(len(order))
    new_user = np.append(True, user[1:] != user[:-1])
    new_time = new_user | np.append(True, time[1:] != time[:-1])
    before = np.cumsum(label) - label  # likes of all rows above
    ends = before[np.maximum.accumulate(np.where(new_time, place, 0))]
    starts = before[np.maximum.accumulate(np.where(new_user, place, 0))]
    first, lengths = np.empty_like(ends), np.empty_like(ends)
    first[order] = np.maximum(starts, ends - max_len)
    lengths[order] = ends
    return first, lengths - first, log.item[order][label == 1]


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
) -> None:
    """Read a log, print its statistics and write its splits.

    Args:
        name: of the data set.
        log: as `read_impressions` takes it.
        left_out: takes the malformed lines of `log`.
        source: what else the statistics should say.
    """
    with output.work():
        impressions = read_impressions(log, attributes, context)
        left_out.report()
        splits = split_by_time(impressions, protocol)
        about = _statistics(impressions, splits)
        _print_statistics(name, about)
        first, lengths, liked = earlier_likes(impressions, protocol.max_len)
        new = output.new()
        for split, rows in splits.items():
            frames = labelled_frames(impressions, rows, first, lengths, liked)
            write_parquet(frames, new / f"{split}.parquet")
        write_parquet([item_tokens(impressions.items)], new / "items.parquet")
        output.replace(
            {
                **about,
                "protocol": "labels",
                "max_len": protocol.max_len,
                "split_shares": protocol.split_shares,
                "skipped_lines": len(left_out),
                **source,
            }
        )
    print(f"written to {output.path}")


def _statistics(log: Impressions, splits: dict[str, slice]) -> dict[str, object]:
    values = sum(column.n_unique() for column in (*log.items, *log.context))
    return {
        "users": len(log.users),
        "items": log.items.height,
        "instances": splits["train"].stop,
        "features": len(log.users) + values,
        "fields": 1 + 2 * log.items.width + log.context.width,
        "rows": {name: rows.stop - rows.start for name, rows in splits.items()},
        "positives": {name: int(log.label[rows].sum()) for name, rows in splits.items()},
        "first_time": {name: log.time[rows.start].item() for name, rows in splits.items()},
    }


def _print_statistics(name: str, about: dict) -> None:
    print(f"{name}: {about['users']:,} users, {about['items']:,} items")
    for split, rows in about["rows"].items():
        share, first = about["positives"][split] / rows, about["first_time"][split]
        print(f"{split:<6}{rows:>12,} rows, {share:.1%} of label 1, from time {first} on")
