"""Rule against loops over its segments and views."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from fuxictr_miss.config.settings import SSLSettings
from fuxictr_miss.errors import InputError
from fuxictr_miss.methods.rule import Rule, RuleSettings, draw_segments, leave_out

TAU = 0.2
DIM = 4
LENGTHS = [8, 5, 0, 1, 8, 2, 7, 5]
TWINS = (1, 7)
VOCABULARY = 5  # few categories, so that they come again

CASES = [
    *((LENGTHS, padding) for padding in ("post", "pre", "holes")),
    ([6], "pre"), ([1, 0, 1], "holes"), ([0, 0], "post"),
]  # fmt: skip


def build(sequences: int = 2, **keys: Any) -> Rule:
    generator = torch.Generator().manual_seed(6)
    settings = RuleSettings(**{"encoder": [5, 3]} | keys)
    return Rule(SSLSettings(temperature=TAU), settings, sequences, DIM, generator)


def replay(method: Rule) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(method.generator.get_state())
    return generator


@pytest.mark.parametrize(
    ("sequences", "keys"),
    [(2, {}), (3, {"category": 2}), (2, {"category": 0, "num_pairs": 3}), (2, {"dropout": 0.9})],
)
@pytest.mark.parametrize(("lengths", "padding"), CASES)
def test_loss_and_gradients_equal_the_loops(
    padding, sequences, keys, lengths, make_batch, exact, histories, look_up, encode_mlp,
    contrast, gradients,
):  # fmt: skip
    twins = TWINS if len(lengths) > TWINS[1] else None
    behavior = make_batch(lengths, sequences, padding, twins, vocabulary=VOCABULARY)
    method = exact(build(sequences, **keys))
    settings, generator = method.settings, replay(method)
    losses = method(behavior)

    steps, x = histories(behavior), look_up(behavior)
    categories = torch.zeros(len(lengths), behavior.max_len, dtype=torch.long)
    for b, history in enumerate(steps):
        for place, step in enumerate(history):
            categories[b, place] = step[settings.category]
    segment, _ = draw_segments(categories, settings.num_pairs, generator)
    kept = leave_out(segment, settings.dropout, generator)
    terms = []
    for p in range(settings.num_pairs):
        pairs: list[Any] = []
        for b, history in enumerate(steps):
            if not segment[b, p].any():
                pairs.append(None)
                continue
            of_segment = [place for place in range(len(history)) if segment[b, p, place]]
            chosen = history[of_segment[0]][settings.category]
            same = [i for i, step in enumerate(history) if step[settings.category] == chosen]
            assert of_segment == same
            assert len(same) >= 2
            views = []
            for view in range(2):
                left = [place for place in same if kept[b, p, view, place]]
                mean = sum(x[b][place] for place in left) / len(left)
                views.append(encode_mlp(method.encoder, mean))
            pairs.append(tuple(views))
        terms.append((pairs, steps))
    flat = [contrast(pairs, steps, TAU) for pairs, steps in terms]
    expected = sum(loss for loss, _ in flat) / len(flat)  # every p has the same rows
    torch.testing.assert_close(losses.ssl, expected)
    torch.testing.assert_close(losses.similarity, sum(s for _, s in flat) / len(flat))
    assert losses.feature.item() == 0
    parameters = [*method.parameters(), *(table.weight for table in behavior.tables)]
    torch.testing.assert_close(gradients(losses.ssl, parameters), gradients(expected, parameters))


def test_a_segment_is_any_category_that_comes_twice_each_equally_often():
    category = torch.tensor([[3, 1, 3, 2, 2, 3, 4, 0]]).expand(4000, -1)
    segment, exists = draw_segments(category, 1, torch.Generator().manual_seed(1))
    assert exists.all()
    counts = Counter(tuple(row) for row in segment[:, 0].int().tolist())
    assert set(counts) == {(1, 0, 1, 0, 0, 1, 0, 0), (0, 0, 0, 1, 1, 0, 0, 0)}
    assert all(abs(count / 4000 - 1 / 2) < 0.03 for count in counts.values())


def test_no_segment_where_no_category_comes_twice():
    category = torch.tensor([[3, 1, 2, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
    segment, exists = draw_segments(category, 2, torch.Generator().manual_seed(1))
    assert exists.tolist() == [False, False, False, True]
    assert not segment[:3].any()


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.999])
def test_a_view_keeps_behaviors_of_the_segment_only_and_one_at_least(rate):
    segment = torch.tensor([[[True, False, True, True, False]]]).expand(5000, -1, -1)
    kept = leave_out(segment, rate, torch.Generator().manual_seed(2))
    assert not (kept & ~segment.unsqueeze(2)).any()
    assert kept.any(dim=-1).all()
    # each of the three stays with 1 - rate, and once in three where all would go
    expected = 1 - rate + rate**3 / 3
    shares = kept[:, 0].double().mean(dim=(0, 1))[[0, 2, 3]]
    torch.testing.assert_close(shares, torch.full_like(shares, expected), rtol=0, atol=0.02)
    assert not torch.equal(kept[:, :, 0], kept[:, :, 1])


@pytest.mark.parametrize(("sequences", "category"), [(1, 1), (2, 2)])
def test_without_a_category_sequence_one_sentence_says_so(sequences, category):
    with pytest.raises(InputError, match="needs a category sequence") as error:
        build(sequences, category=category)
    assert str(error.value).count(". ") == 0
