"""A matrix on the terminal: every number is printed once, and no line is wider than the terminal."""

from __future__ import annotations

import io
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jax_revinc.analysis.matrix_table import MatrixTable, split
from revinc.terminal import PlainConsole


def printed(table, width):
    file = io.StringIO()
    PlainConsole(file=file, width=width).print(table)
    return file.getvalue().splitlines()


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 30),
    width=st.integers(40, 120),
    has_notes=st.booleans(),
)
def test_all_numbers_are_printed_in_blocks_that_fit(rows, columns, width, has_notes):
    values = np.arange(rows * columns).reshape(rows, columns) + 0.25
    notes = [f"y{i}" for i in range(rows)] if has_notes else None
    table = MatrixTable("m", values, [f"r{i}" for i in range(rows)], notes=notes)
    lines = printed(table, width)
    assert max(map(len, lines)) <= width
    for i in range(rows):
        own = [line for line in lines if line.split()[:1] == [f"r{i}"]]
        shown = [float(x) for line in own for x in re.findall(r"\d+\.\d{3}\b", line)]
        assert shown == values[i].tolist()
        assert not has_notes or all(line.split()[-1] == f"y{i}" for line in own)


@given(st.lists(st.integers(1, 30), min_size=1), st.integers(-5, 60))
def test_columns_are_split_in_order_and_only_one_may_not_fit(widths, room):
    blocks = list(split(widths, room))
    assert [column for block in blocks for column in block] == list(range(len(widths)))
    for block in blocks:
        assert len(block) == 1 or sum(widths[column] for column in block) <= room


def test_absent_numbers_are_left_empty_and_zero_has_no_sign():
    values = np.array([[np.nan, -1e-9, 2.0]])
    *_, line = printed(MatrixTable("m", values, ["a"], marked=[(0, 2)]), 80)
    assert line.split() == ["a", "0.000", "2.000*"]
