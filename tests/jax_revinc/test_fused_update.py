"""Optimizers taken apart: what they do to one number, and what they do to all together."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_revinc.engines.fused.errors import UpdateNotFusible
from jax_revinc.engines.fused.update import trace_update
from jax_revinc.optimizer import make_optimizer, optimizer_numbers

from .fused_programs import outputs
from .populations import RECIPE

RATES = dict.fromkeys(("lr", "weight_decay"), ())
PARAMS = {"a": (2, 3), "b": (), "c": (4,)}
N = 11
STEPS = 7

RECIPES = [
    {},
    {"lr_schedule": "cosine", "warmup_steps": 3},
    {"optimizer": "nadamw", "lr_schedule": "linear"},
    {"optimizer": "lion"},
    {"optimizer": "adam", "weight_decay": 0.0, "warmup_steps": 4},
    {"optimizer": "rmsprop", "weight_decay": 0.0},
    {"optimizer": "sgd", "weight_decay": 0.0},
    {"optimizer": "sgd", "weight_decay": 0.0, "momentum": 0.9},
]


def traced(make, dtype="float32"):
    rates, params = (
        {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in shapes.items()}
        for shapes in (RATES, PARAMS)
    )
    return trace_update(make, rates, params, dtype)


def counts(update, value=0):
    """What is common to all numbers of our optimizers: counts."""
    return [jnp.asarray(value, jnp.int32)] * update.owners.count(-1)


def of_recipe(changes):
    """The optimizer of a recipe, from its rates."""
    fixed, _ = optimizer_numbers(dataclasses.replace(RECIPE, **changes))
    return lambda rates: make_optimizer(fixed, optimizer_numbers(RECIPE)[1]._replace(**rates))


def of_leaves(numbers):
    """All numbers in one row, as a tree like PARAMS."""
    a, b, c = np.split(numbers, [6, 7])
    return {"a": a.reshape(2, 3), "b": b[0], "c": c}


def by_rules(update, rates, numbers, gradients, n_steps):
    """What becomes of numbers, by the rules in numpy."""
    kept, common = np.zeros((update.n_kept, N)), counts(update)
    for step in range(n_steps):
        common, shared = update.share(rates, common)
        after = np.full((1 + update.n_kept, N), np.nan)
        for begin, end, rule in update.ranges:
            of_range = slice(begin, end)
            known = [numbers[of_range], *kept[:, of_range], gradients[step][of_range], *shared]
            for i in range(end - begin):
                own = [x[i] if np.ndim(x) else x for x in known]
                after[:, begin + i] = outputs(update.rules[rule], own, np.zeros((1, 0)))
        numbers, kept = after[0], after[1:]
    return numbers


@pytest.mark.parametrize("changes", RECIPES, ids=str)
def test_the_rules_are_what_optax_does(changes):
    make, rng = of_recipe(changes), np.random.default_rng(0)
    numbers, gradients = rng.normal(size=N), rng.normal(size=(STEPS, N))
    rates = {"lr": 0.1, "weight_decay": 0.3}
    with jax.enable_x64(True):
        update = traced(make, "float64")
        found = by_rules(update, jax.tree.map(jnp.asarray, rates), numbers, gradients, STEPS)
        params = of_leaves(numbers)
        optimizer = make(rates)
        state = optimizer.init(params)
        for of_step in gradients:
            steps, state = optimizer.update(of_leaves(of_step), state, params)
            params = optax.apply_updates(params, steps)
    expected = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    assert update.ranges == ((0, N, 0),), "one rule for all"


def test_what_is_shared_runs_ahead_of_the_updates():
    """Of a stretch of updates at once, and what is common stops where the updates do."""
    make = of_recipe({"lr_schedule": "cosine", "warmup_steps": 3})
    update = traced(make)
    rates, common = {"lr": 0.1, "weight_decay": 0.3}, counts(update, 4)
    reached, shared = update.shared(rates, common, capacity=6, n_steps=jnp.asarray(5))
    assert {int(count) for count in reached} == {9}
    for of_update in shared:
        common, expected = update.share(rates, common)
        np.testing.assert_allclose(of_update, expected, rtol=1e-6)


def test_numbers_without_effect_follow_a_rule_of_their_own():
    def make(rates):
        frozen = optax.masked(optax.set_to_zero(), {"a": False, "b": False, "c": True})
        return optax.chain(optax.adamw(rates["lr"], weight_decay=rates["weight_decay"]), frozen)

    update = traced(make)
    assert [(begin, end) for begin, end, _ in update.ranges] == [(0, 7), (7, 11)]
    frozen = update.rules[update.ranges[1][2]]
    assert outputs(frozen, [5.0, 1.0, 1.0, 1.0, *[0.5] * update.n_shared], np.zeros((1, 0)))[0] == 5


def with_norm(rates):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rates["lr"]))


def with_norm_of_array(rates):
    return optax.chain(optax.clip_by_block_rms(1.0), optax.sgd(rates["lr"]))


def with_memory_of_all(rates):
    def update(updates, state, params=None):
        return updates, state + sum(jnp.sum(x) for x in jax.tree.leaves(updates))

    total = optax.GradientTransformation(lambda _: jnp.zeros(()), update)
    return optax.chain(total, optax.sgd(rates["lr"]))


def with_unknown_primitive(rates):
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda x: rates["lr"] * jnp.sinh(x), updates)
    )


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (with_norm, "parameters together"),
        (with_norm_of_array, "parameters together"),
        (with_memory_of_all, "depends on all parameters"),
        (with_unknown_primitive, "sinh"),
    ],
)
def test_optimizers_that_do_more_than_that_are_refused(make, why):
    with pytest.raises(UpdateNotFusible, match=re.escape(why)):
        traced(make)
