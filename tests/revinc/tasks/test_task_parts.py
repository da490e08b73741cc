from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revinc import PRESETS, ReverseIncrement, UserError
from revinc.tasks import (
    Brackets,
    CumulativeSum,
    ModularAddition,
    check_task,
    eval_positions,
    make_task,
    reading_cells,
)
from revinc.weights import parameter_count


def slow_sequences(length, n_symbols, shift, reverse):
    """Every sequence, from the definition: row number n is n written in base `n_symbols`."""
    rows = []
    for number in range(n_symbols**length):
        x = []
        for place in range(length):
            x.insert(0, number // n_symbols**place % n_symbols)
        y = []
        for i in range(length):
            source = x[length - 1 - i] if reverse else x[i]
            y.append((source + shift) % n_symbols)
        rows.append([n_symbols, *x, *y])
    return rows


def test_the_default_is_the_tutorials_task():
    sequences = ReverseIncrement().sequences()
    assert sequences.shape == (256, 9)
    assert sequences.dtype == np.int32
    assert sequences[:5].tolist() == [
        [4, 0, 0, 0, 0, 1, 1, 1, 1],
        [4, 0, 0, 0, 1, 2, 1, 1, 1],
        [4, 0, 0, 0, 2, 3, 1, 1, 1],
        [4, 0, 0, 0, 3, 0, 1, 1, 1],
        [4, 0, 0, 1, 0, 1, 2, 1, 1],
    ]
    assert sequences[27].tolist() == [4, 0, 1, 2, 3, 0, 3, 2, 1]
    assert sequences[-1].tolist() == [4, 3, 3, 3, 3, 0, 0, 0, 0]


def test_the_tutorials_labels_and_loss_positions():
    task = ReverseIncrement()
    assert task.vocabulary == ("0", "1", "2", "3", "BOS")
    assert task.position_labels == ("BOS", "x0", "x1", "x2", "x3", "y0", "y1", "y2", "y3")
    assert np.flatnonzero(task.loss_mask()).tolist() == [5, 6, 7, 8]


@settings(max_examples=60)
@given(
    length=st.integers(1, 4),
    n_symbols=st.integers(2, 6),
    shift=st.integers(-1000, 1000),
    reverse=st.booleans(),
)
def test_sequences_are_those_of_the_definition(length, n_symbols, shift, reverse):
    task = ReverseIncrement(length=length, n_symbols=n_symbols, shift=shift, reverse=reverse)
    assert task.sequences().tolist() == slow_sequences(length, n_symbols, shift, reverse)
    assert len(task.vocabulary) == n_symbols + 1
    assert len(task.position_labels) == task.sequences().shape[1]
    must_predict = [label.startswith("y") for label in task.position_labels]
    assert task.loss_mask().tolist() == must_predict


@pytest.mark.parametrize(
    "task",
    [ReverseIncrement(), ReverseIncrement(length=3, n_symbols=5, reverse=False, shift=-2)],
)
def test_the_token_at_its_source_is_all_that_an_answer_needs(task):
    sequences = task.sequences()
    cells = reading_cells(task)
    assert [row + 1 for row, _ in cells] == list(eval_positions(task))
    for row, column in cells:
        expected = np.array(task.answers)[sequences[:, column]]
        np.testing.assert_array_equal(sequences[:, row + 1], expected)


def test_the_tutorials_reversal_reads_at_column_8_minus_row():
    assert reading_cells(ReverseIncrement()) == [(4, 4), (5, 3), (6, 2), (7, 1)]
    assert ReverseIncrement().answers == (1, 2, 3, 0)


@pytest.mark.parametrize("shift", [2**31 - 1, -(2**31), 2**63, 10**20, -(10**20)])
def test_shifts_beyond_machine_integers_count_modulo_n_symbols(shift):
    task = ReverseIncrement(length=2, n_symbols=3, shift=shift)
    assert task.sequences().tolist() == slow_sequences(2, 3, shift, True)


def test_equal_tasks_are_one_dictionary_key():
    assert {ReverseIncrement(): 1}[ReverseIncrement(length=4)] == 1
    assert ReverseIncrement() != ReverseIncrement(shift=2)


def test_sequences_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="read-only"):
        ReverseIncrement().sequences()[0, 0] = 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("length", 0),
        ("length", -1),
        ("length", 4.0),
        ("length", True),
        ("length", "4"),
        ("length", None),
        ("length", 10**30),
        ("n_symbols", 1),
        ("n_symbols", -4),
        ("n_symbols", 10**30),
        ("n_symbols", False),
        ("shift", 1.5),
        ("shift", 10**400),
        ("shift", -(10**400)),
        ("shift", True),
        ("shift", None),
        ("reverse", 1),
        ("reverse", None),
        ("reverse", "yes"),
    ],
)
def test_bad_fields_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=field):
        ReverseIncrement(**{field: value})


@pytest.mark.parametrize("sizes", [{"length": 10}, {"n_symbols": 32}])
def test_two_to_the_twenty_sequences_are_the_most(sizes):
    ReverseIncrement(**sizes)


@pytest.mark.parametrize("take", [np.int64, np.uint8, np.array])
def test_integers_of_numpy_are_taken_as_they_are_and_become_pythons(take):
    for task in (
        ReverseIncrement(length=take(12), n_symbols=take(10), shift=take(3)),
        CumulativeSum(length=take(40), modulus=take(5)),
        Brackets(pairs=take(3)),
        ModularAddition(modulus=take(7)),
    ):
        fields = dataclasses.asdict(task)
        assert {type(value) for value in fields.values()} <= {int, bool}
        assert task == type(task)(**fields)
        check_task(task)
    assert CumulativeSum(length=take(40), modulus=take(5)).is_drawn  # 5**40 is no int64


def test_make_task_builds_a_task_by_name():
    assert make_task("reverse_increment", length=3) == ReverseIncrement(length=3)


def test_make_task_lists_near_names():
    with pytest.raises(
        UserError, match=r"unknown task 'reverse_increments'; .*; did you mean reverse_inc"
    ):
        make_task("reverse_increments")
    with pytest.raises(UserError, match="no field 'lenght'; did you mean length"):
        make_task("reverse_increment", lenght=3)


@settings(max_examples=20)
@given(modulus=st.integers(2, 20))
def test_modular_addition_lists_every_pair_and_its_sum(modulus):
    task = ModularAddition(modulus=modulus)
    expected = [[a, b, modulus, (a + b) % modulus] for a in range(modulus) for b in range(modulus)]
    assert task.sequences().tolist() == expected
    assert task.vocabulary[-1] == "="
    assert eval_positions(task) == (3,)
    assert reading_cells(task) == []


def test_the_grokking_preset_is_the_papers():
    cfg = PRESETS["grokking"]
    assert cfg.task.sequences().shape == (113**2, 4)
    assert cfg.n_train == cfg.batch_size == 3831
    assert (cfg.lr, cfg.weight_decay, cfg.b1, cfg.b2) == (1e-3, 1.0, 0.9, 0.98)
    assert parameter_count(cfg.model) == 227_313
