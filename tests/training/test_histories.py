"""What a pretraining learns from: one history per user, held-out users apart from the others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from fuxictr_miss.training.histories import Histories, newest_rows

REJECT = 1e-3  # the seeds are fixed


class Split:
    """As much of a `TensorDataLoader` as `Histories` reads: columns by name."""

    def __init__(self, **columns: Any) -> None:
        self.columns = {name: torch.tensor(rows) for name, rows in columns.items()}

    def column(self, name: str) -> Tensor:
        return self.columns[name]


def padded(history: list[int], max_len: int) -> list[int]:
    newest = history[-max_len:]
    return newest + [0] * (max_len - len(newest))


def every_prefix(logs: list[list[int]], max_len: int, first_user: int = 1) -> Split:
    """A row for each prefix of each log; a category is its item plus 10."""
    users, items = [], []
    for user, log in enumerate(logs, first_user):
        for end in range(1, len(log) + 1):
            users.append(user)
            items.append(padded(log[:end], max_len))
    categories = [[i + 10 if i else 0 for i in row] for row in items]
    return Split(user=users, items=items, categories=categories)


def histories_of(split: Split, user: str | None = "user", **keys: Any) -> Histories:
    return Histories(split, [["items", "categories"]], user, **keys)


def drawn(histories: Histories, user: int, times: int = 60) -> set[tuple[int, ...]]:
    """All histories that a user is met with, without padding."""
    found = set()
    for seed in range(times):
        generator = torch.Generator().manual_seed(seed)
        batch = histories.batch(torch.tensor([user]), generator)
        found.add(tuple(batch["items"][0].tolist()))
    return found


def test_of_a_users_prefixes_only_the_longest_counts():
    histories = histories_of(every_prefix([[1, 2, 3], [4, 5], [6]], max_len=5))
    assert len(histories) == 3
    assert [drawn(histories, user) for user in range(3)] == [{(1, 2, 3)}, {(4, 5)}, {(6,)}]
    assert histories.column("categories").tolist() == [
        padded(row, 5) for row in ([11, 12, 13], [14, 15], [16])
    ]


def test_the_longest_row_is_that_with_the_most_of_all_behaviors():
    split = Split(user=[1, 1], clicks=[[1, 2], [1, 2]], likes=[[0, 0], [3, 0]])
    histories = Histories(split, [["clicks"], ["likes"]], "user")
    assert histories.column("likes").tolist() == [[3, 0]]


def test_of_a_user_beyond_max_len_every_window_counts():
    histories = histories_of(every_prefix([[1, 2, 3, 4, 5], [6, 7]], max_len=3))
    assert len(histories) == 2
    assert drawn(histories, 0) == {(1, 2, 3), (2, 3, 4), (3, 4, 5)}
    assert drawn(histories, 1) == {(6, 7)}


def test_users_weigh_their_behaviors_less_one_also_beyond_max_len():
    logs = [[1, 2, 3, 4, 5], [6, 7], [8]]
    histories = histories_of(every_prefix(logs, max_len=3))
    assert histories.pairs.tolist() == [len(log) - 1 for log in logs]


@pytest.mark.parametrize("of_a_pair", [1, 2, 3])
def test_a_user_weighs_the_behaviors_with_which_a_pair_ends(of_a_pair):
    logs = [[1, 2, 3, 4, 5], [6, 7], [8]]
    histories = histories_of(every_prefix(logs, max_len=5), of_a_pair=of_a_pair)
    assert histories.pairs.tolist() == [max(0, len(log) + 1 - of_a_pair) for log in logs]


def test_a_behavior_without_a_category_makes_no_pair():
    split = Split(user=[1, 2], items=[[1, 2, 3], [4, 0, 0]], categories=[[11, 0, 13], [0, 0, 0]])
    assert histories_of(split).pairs.tolist() == [1, 0]


def test_each_of_several_behaviors_has_pairs_of_its_own():
    split = Split(user=[1, 2, 3], clicks=[[1, 2, 3], [4, 5, 0], [6, 0, 0]],
                  likes=[[0, 0, 0], [1, 2, 0], [3, 0, 0]])  # fmt: skip
    histories = Histories(split, [["clicks"], ["likes"]], "user")
    assert histories.pairs.tolist() == [2, 1 + 1, 0]


def test_users_out_of_the_vocabulary_are_told_apart_by_their_histories():
    split = every_prefix([[1, 2, 3], [4, 5]], max_len=4)
    split.columns["user"] = torch.full_like(split.columns["user"], 9)
    histories = histories_of(split, unknown=9)
    assert len(histories) == 5  # each prefix, as nothing says which belong together
    everything = [drawn(histories, user) for user in range(5)]
    assert sorted(everything, key=min) == [{(1,)}, {(1, 2)}, {(1, 2, 3)}, {(4,)}, {(4, 5)}]


def test_known_users_beside_unknown_ones_keep_their_longest():
    known, unknown = every_prefix([[1, 2, 3]], 4, first_user=1), every_prefix([[4, 5]], 4)
    unknown.columns["user"].fill_(7)
    both = Split()
    both.columns = {
        name: torch.cat([known.columns[name], unknown.columns[name]]) for name in known.columns
    }
    histories = histories_of(both, unknown=7)
    everything = sorted((drawn(histories, user) for user in range(len(histories))), key=min)
    assert everything == [{(1, 2, 3)}, {(4,)}, {(4, 5)}]


def test_users_may_have_any_ids_also_large_ones_of_a_column_without_a_vocabulary():
    logs = [[1, 2, 3], [4, 5], [6]]
    small = histories_of(every_prefix(logs, max_len=5))
    large = every_prefix(logs, max_len=5)
    large.columns["user"] += 10**15
    histories = histories_of(large)
    assert torch.equal(histories.rows, small.rows)
    assert torch.equal(histories.ids, small.ids + 10**15)


def test_without_a_column_of_the_user_a_distinct_history_is_one():
    split = Split(items=[[1, 2, 0], [1, 2, 0], [3, 0, 0], [0, 0, 0]],
                  categories=[[5, 6, 0], [5, 6, 0], [7, 0, 0], [0, 0, 0]])  # fmt: skip
    histories = histories_of(split, user=None)
    assert len(histories) == 2
    assert "user" not in histories.batch(torch.tensor([0, 1]), torch.Generator())


def test_users_without_any_behavior_are_left_out():
    split = Split(user=[1, 2], items=[[1, 2], [0, 0]], categories=[[3, 4], [0, 0]])
    assert histories_of(split).batch(torch.tensor([0]), torch.Generator())["user"].tolist() == [1]
    assert len(histories_of(split)) == 1


def test_each_behavior_is_trimmed_to_where_the_batch_has_ids():
    split = Split(user=[1, 2, 3], items=[[1, 2, 0, 0], [3, 0, 0, 0], [4, 5, 6, 7]],
                  categories=[[1, 2, 0, 0], [3, 0, 0, 0], [4, 5, 6, 7]],
                  bought=[[0, 0, 0], [0, 8, 0], [0, 0, 0]])  # fmt: skip
    histories = Histories(split, [["items", "categories"], ["bought"]], "user")
    short = histories.batch(torch.tensor([0, 1]), torch.Generator())
    assert short["items"].tolist() == short["categories"].tolist() == [[1, 2], [3, 0]]
    assert short["bought"].tolist() == [[0], [8]]  # each behavior by itself
    assert short["user"].tolist() == [1, 2]
    whole = histories.batch(torch.tensor([2]), torch.Generator())
    assert whole["items"].tolist() == [[4, 5, 6, 7]]
    assert whole["bought"].tolist() == [[0]]  # a column is never empty


def test_the_windows_of_a_user_are_equally_likely():
    histories = histories_of(every_prefix([[1, 2, 3, 4, 5, 6]], max_len=3))
    batch = histories.batch(torch.zeros(8000, dtype=torch.long), torch.Generator().manual_seed(1))
    counts = Counter(batch["items"][:, 0].tolist())
    assert chisquare(list(counts.values())).pvalue > REJECT
    assert set(counts) == {1, 2, 3, 4}


@pytest.mark.parametrize("sequences", [1, 2])
def test_pairs_count_behaviors_and_not_ids(sequences):
    split = every_prefix([[1, 2, 3], [4, 5]], max_len=5)
    histories = Histories(split, [["items", "categories"][:sequences]], "user")
    assert histories.pairs.tolist() == [2, 1]


def test_what_the_newest_rows_ask_for_is_in_no_history():
    """A positive and a negative after each prefix, in a random order of the rows."""
    random, logs = np.random.default_rng(5), [[1, 2, 3, 4, 5, 6], [7], [], [8, 9, 8]]
    rows = [
        (user, target, padded(log[:end], 9), padded([i + 10 for i in log[:end]], 9))
        for user, log in enumerate(logs)
        for end in range(len(log))
        for target in (log[end], 99)
    ]
    random.shuffle(rows)
    user, target, items, categories = zip(*rows, strict=True)
    split = Split(user=user, target=target, items=items, categories=categories)
    newest = newest_rows(split, [["items", "categories"]], "user")
    expected = [
        n for n, row in enumerate(rows) if (row[0], sum(map(bool, row[2]))) in {(0, 5), (3, 2)}
    ]
    assert newest.tolist() == expected
    assert newest_rows(split, [["items"]], "user", unknown=0).tolist() == [
        n for n, row in enumerate(rows) if (row[0] == 0 and any(row[2])) or n in expected
    ]
    histories = histories_of(split)
    for place in newest.tolist():
        own = histories.rows[histories.ids == user[place]]
        assert target[place] not in own or user[place] == 3  # who comes back to 8
