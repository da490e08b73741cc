"""Lines of TransformerLens code give the same values here, eagerly and inside `jax.jit`.

The lines are in ``tests/shared/face_lines/``, the exceptions in ``face_exceptions.txt`` and
``face_not_jitted.txt`` beside it.
"""

from __future__ import annotations

from functools import cache

import jax
import numpy as np
import pytest
from face_exceptions import complaint, exceptions, not_jitted
from face_sides import CONFIGS, SHAPE, Raised, difference, inputs, lines_by_file, ours, theirs

from jax_revinc import HookedTransformer, HookedTransformerConfig
from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.compilation.quick_jit import quick_jit
from parity import to_torch
from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "3.9", reason="the lines are of TransformerLens 3.9")

LINES = lines_by_file()
ALL_LINES = [line for lines in LINES.values() for line in lines]
BATCH = 20
"""Lines that one jitted function evaluates."""


@cache
def model_of(config):
    return HookedTransformer(HookedTransformerConfig(**SHAPE | CONFIGS[config]))


@cache
def sides(config):
    """Both libraries, with models of the same weights."""
    model = model_of(config)
    return ours(model), theirs(to_torch(model))


def disagreements(config, lines):
    """What is wrong with each line, in words, for those with which something is."""
    here, there = sides(config)
    found = {}
    for line in lines:
        reason = exceptions().get((config, line))
        value = there.value(line)
        if config == "LN" and isinstance(value, Raised) and reason is None:
            found[line] = f"has no value in TransformerLens: {value.error}"
        elif wrong := complaint(here.value(line), value, reason):
            found[line] = wrong
    return found


def fail_if_any(found):
    """Fail with every line and what is wrong with it."""
    if found:
        pytest.fail("\n".join(f"{line}\n    {how}" for line, how in found.items()), pytrace=False)


def test_there_are_enough_lines_and_none_twice():
    assert len(ALL_LINES) >= 700
    assert [line for line in ALL_LINES if ALL_LINES.count(line) > 1] == []


def test_every_exception_is_about_a_line():
    listed = {line for _, line in exceptions()} | not_jitted()
    assert listed - set(ALL_LINES) == set()


def test_lines_give_the_same_on_both_sides():
    fail_if_any(disagreements("LN", ALL_LINES[5::24]))


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("file", LINES)
def test_every_line_gives_the_same_on_both_sides(file, config):
    fail_if_any(disagreements(config, LINES[file]))


def jitted_values(config, lines):
    """The values of lines that one jitted function of the model and its inputs evaluates."""
    model = model_of(config)
    values = {}

    def evaluate(model, arrays):
        side = ours(model, arrays)
        values.update((line, side.value(line)) for line in lines)
        return {line: [x for x in jax.tree.leaves(values[line]) if is_traced(x)] for line in lines}

    with numerics(model.cfg):
        arrays = jax.tree.map(jax.numpy.asarray, inputs())
        computed = quick_jit(evaluate)(model, arrays)
    return {line: filled(values[line], computed[line]) for line in lines}


def is_traced(value):
    return isinstance(value, jax.core.Tracer)


def filled(value, arrays):
    """A value with arrays in place of its traced ones, in order."""
    arrays = iter(arrays)
    return jax.tree.map(lambda x: np.asarray(next(arrays)) if is_traced(x) else x, value)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(3))
def test_lines_give_the_same_inside_jit(start):
    """A spread of the lines: every third, a third of them in each of three tests."""
    config = "LN"
    _, there = sides(config)
    lines = [
        line
        for line in ALL_LINES[start::9]
        if line not in not_jitted() and (config, line) not in exceptions()
    ]
    values = {}
    for first in range(0, len(lines), BATCH):
        values |= jitted_values(config, lines[first : first + BATCH])
    found = {line: difference(values[line], there.value(line)) for line in lines}
    fail_if_any({line: how for line, how in found.items() if how})


@pytest.mark.slow
def test_what_is_said_not_to_run_inside_jit_does_not():
    values = jitted_values("LN", sorted(not_jitted()))
    assert [line for line, value in values.items() if not isinstance(value, Raised)] == []
