"""Every task that has a short name says what its definition says, listed or drawn."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from revinc import ReverseIncrement, UserError
from revinc.tasks import (
    SAMPLE,
    TASKS,
    Brackets,
    Copy,
    CumulativeSum,
    Induction,
    Sort,
    check_task,
    draw_examples,
    eval_positions,
    make_task,
)
from revinc.tasks.any_input import MOST_LISTED

FALSE_ALARM = 1e-9
"""Chance that a statistical test below fails on a perfect generator (its seed is fixed besides)."""

RULES = {
    "copy": lambda x, n: x,
    "induction": lambda x, n: x,
    "sort": lambda x, n: sorted(x),
    "cumulative_sum": lambda x, n: [sum(x[: i + 1]) % n for i in range(len(x))],
    "reverse_increment": lambda x, n: [(symbol + 1) % n for symbol in reversed(x)],
}


def of_sizes(name, length, n_symbols):
    size = "modulus" if name == "cumulative_sum" else "n_symbols"
    return make_task(name, **{"length": length, size: n_symbols})


def assert_follows_its_rule(task, sequences):
    """Whether sequences are BOS, any symbols, and what the rule makes of them."""
    length, n = task.length, task.n_symbols
    for bos, *rest in sequences.tolist():
        x, y = rest[:length], rest[length:]
        assert bos == n == task.vocabulary.index("BOS")
        assert 0 <= min(x) <= max(x) < n
        assert y == RULES[task.name](x, n)


@settings(max_examples=40)
@given(name=st.sampled_from(sorted(RULES)), length=st.integers(2, 4), n_symbols=st.integers(2, 5))
def test_listed_sequences_are_every_input_with_what_the_rule_makes_of_it(name, length, n_symbols):
    task = of_sizes(name, length, n_symbols)
    sequences = task.sequences()
    assert not task.is_drawn
    assert task.solved == 1
    assert_follows_its_rule(task, sequences)
    inputs = sequences[:, 1 : length + 1].tolist()
    assert inputs == sorted(inputs)
    assert len(set(map(tuple, inputs))) == len(inputs) == n_symbols**length


@pytest.mark.parametrize("name", sorted(RULES))
def test_more_than_two_to_the_twenty_inputs_are_drawn_each_as_likely(name):
    assert not of_sizes(name, 10, 4).is_drawn
    task = of_sizes(name, 8, 6)
    assert task.is_drawn
    assert MOST_LISTED < 6**8
    assert task.solved < 1
    drawn = draw_examples(task, 3, "examples", 0, 2000)
    assert drawn.dtype == np.int32
    assert_follows_its_rule(task, drawn)
    for symbols in drawn[:, 1:9].T:
        assert stats.chisquare(np.bincount(symbols, minlength=6)).pvalue > FALSE_ALARM


@settings(max_examples=30)
@given(
    task=st.sampled_from([Brackets(pairs=2), Copy(length=30), Sort(length=9, n_symbols=7)]),
    seed=st.integers(0, 2**32 - 1),
    start=st.integers(0, 2**40),
    length=st.integers(0, 20),
)
def test_an_example_depends_on_its_number_and_seed_alone(task, seed, start, length):
    whole = draw_examples(task, seed, "examples", start, start + 20)
    part = draw_examples(task, seed, "examples", start + 20 - length, start + 20)
    assert np.array_equal(part, whole[20 - length :])


@pytest.mark.parametrize("task", [Copy(length=8), Induction(), ReverseIncrement(length=12)])
def test_the_sample_of_a_drawn_task_has_every_sequences_partner(task):
    sample = task.sequences()
    assert len(sample) == SAMPLE
    inputs = sample[:, 1 : task.length + 1]
    next_ones = (inputs + 1) % task.n_symbols
    assert set(map(bytes, next_ones)) == set(map(bytes, inputs))
    assert_follows_its_rule(task, sample)


@pytest.mark.parametrize("task", [Copy(), Copy(length=8), Induction(), Induction(length=3)])
def test_the_token_at_its_source_is_the_answer(task):
    sequences = task.sequences()
    for position, source in zip(eval_positions(task), task.sources, strict=True):
        expected = np.array(task.answers)[sequences[:, source]]
        np.testing.assert_array_equal(sequences[:, position], expected)


def test_induction_asks_from_the_second_token_of_the_repetition_on():
    task = Induction(length=3)
    asked = [task.position_labels[position] for position in eval_positions(task)]
    assert asked == ["y1", "y2"]
    with pytest.raises(UserError, match="length must be at least 2"):
        Induction(length=1)


def test_parity_is_the_cumulative_sum_modulo_2():
    assert CumulativeSum().title == "Parity"
    assert CumulativeSum(length=3).sequences()[5].tolist() == [2, 1, 0, 1, 1, 1, 0]


def is_balanced(string):
    depth = 0
    for bracket in string:
        depth += 1 if bracket == 0 else -1
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.parametrize("pairs", [1, 2, 3, 4])
def test_brackets_are_any_of_as_many_of_either_kind_and_half_are_balanced(pairs):
    task, n = Brackets(pairs=pairs), 20_000
    drawn = draw_examples(task, 0, "examples", 0, n)
    counts = Counter(map(tuple, drawn[:, 1:].tolist()))
    yes, no = task.vocabulary.index("balanced"), task.vocabulary.index("unbalanced")
    for *string, answer in counts:
        assert sum(string) == pairs == len(string) - sum(string)
        assert answer == (yes if is_balanced(string) else no)
    catalan = math.comb(2 * pairs, pairs) // (pairs + 1)
    for word, n_strings in ((yes, catalan), (no, math.comb(2 * pairs, pairs) - catalan)):
        of_word = [count for (*_, answer), count in counts.items() if answer == word]
        assert len(of_word) == n_strings
        assert stats.binomtest(sum(of_word), n).pvalue > FALSE_ALARM
        if n_strings > 1:
            assert stats.chisquare(of_word).pvalue > FALSE_ALARM


@pytest.mark.parametrize("name", TASKS)
def test_every_task_fits_together_and_has_words(name):
    task = make_task(name)
    check_task(task)
    assert task.name == name
    assert task.title[0].isupper()
    assert task.description.endswith(".")
    assert len(set(task.vocabulary)) == len(task.vocabulary)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("copy", "length", 0),
        ("copy", "length", 1025),
        ("sort", "n_symbols", 1),
        ("sort", "n_symbols", 4097),
        ("cumulative_sum", "modulus", 1),
        ("cumulative_sum", "modulus", 2.0),
        ("brackets", "pairs", 0),
        ("brackets", "pairs", 513),
        ("brackets", "pairs", True),
        ("modular_addition", "modulus", 1025),
    ],
)
def test_bad_sizes_are_refused_by_name(name, field, value):
    with pytest.raises(UserError, match=field):
        make_task(name, **{field: value})


@pytest.mark.parametrize("task_type", TASKS.values(), ids=TASKS)
def test_a_misspelt_field_is_refused_with_the_near_ones(task_type):
    field = dataclasses.fields(task_type)[0].name
    with pytest.raises(UserError, match=f"has no field '{field}x'; did you mean {field}"):
        task_type(**{f"{field}x": 3})
