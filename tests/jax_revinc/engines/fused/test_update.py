"""The split of an optimizer's update into per-parameter rules and scalars that all share."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fused_examples import outputs
from jax.flatten_util import ravel_pytree
from populations import RECIPE

from jax_revinc.engines.compiled_programs import make_program_key
from jax_revinc.engines.fused.errors import UpdateNotFusible
from jax_revinc.engines.fused.update import trace_update
from jax_revinc.engines.fused_engine import flat_optimizer
from jax_revinc.optimizer import make_optimizer, optimizer_settings
from revinc.weights import parameter_shapes

RATES = dict.fromkeys(("lr", "lr_end", "weight_decay"), ())
PARAMS = {"a": (2, 3), "b": (), "c": (4,)}
N = 11
STEPS = 7

RECIPES = [
    {},
    {"lr_schedule": "cosine", "warmup_steps": 3},
    {"optimizer": "nadamw", "lr_schedule": "linear"},
    {"lr_schedule": "cosine", "lr_end": 0.05},
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
    return trace_update(make, rates, params)


def counts(update, value=0):
    """The common state of our optimizers, which is counts."""
    return [jnp.asarray(value, jnp.int32)] * update.owners.count(-1)


def of_recipe(changes):
    """The optimizer of a recipe, from its rates."""
    fixed, _ = optimizer_settings(dataclasses.replace(RECIPE, **changes))
    return lambda rates: make_optimizer(fixed, optimizer_settings(RECIPE)[1]._replace(**rates))


def of_leaves(numbers):
    """All numbers in one row, as a tree like PARAMS."""
    a, b, c = np.split(numbers, [6, 7])
    return {"a": a.reshape(2, 3), "b": b[0], "c": c}


def by_rules(update, rates, numbers, gradients, n_steps):
    """The numbers after `n_steps` updates, by the rules in numpy."""
    n_moments = update.rules.n_moments
    moments, common = np.zeros((n_moments, N)), counts(update)
    for step in range(n_steps):
        common, scalars = update.advance(rates, common)
        after = np.full((1 + n_moments, N), np.nan)
        for begin, end, rule in update.rules.ranges:
            of_range = slice(begin, end)
            known = [numbers[of_range], *moments[:, of_range], gradients[step][of_range], *scalars]
            for i in range(end - begin):
                own = [x[i] if np.ndim(x) else x for x in known]
                after[:, begin + i] = outputs(update.rules.programs[rule], own, np.zeros((1, 0)))
        numbers, moments = after[0], after[1:]
    return numbers


@pytest.mark.parametrize("changes", RECIPES, ids=str)
def test_the_rules_are_what_optax_does(changes):
    make, rng = of_recipe(changes), np.random.default_rng(0)
    numbers, gradients = rng.normal(size=N), rng.normal(size=(STEPS, N))
    rates = {"lr": 0.1, "lr_end": 0.02, "weight_decay": 0.3}
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
    assert update.rules.ranges == ((0, N, 0),), "one rule for all"


def test_the_scalars_of_many_updates_are_computed_at_once():
    """And the common state stops where the updates do."""
    make = of_recipe({"lr_schedule": "cosine", "warmup_steps": 3})
    update = traced(make)
    rates, common = {"lr": 0.1, "lr_end": 0.02, "weight_decay": 0.3}, counts(update, 4)
    after, scalars = update.scalars(rates, common, capacity=6, n_steps=jnp.asarray(5))
    assert {int(count) for count in after} == {9}
    for of_update in scalars:
        common, expected = update.advance(rates, common)
        np.testing.assert_allclose(of_update, expected, rtol=1e-6)


def test_numbers_without_effect_follow_a_rule_of_their_own():
    def make(rates):
        frozen = optax.masked(optax.set_to_zero(), {"a": False, "b": False, "c": True})
        return optax.chain(optax.adamw(rates["lr"], weight_decay=rates["weight_decay"]), frozen)

    update = traced(make)
    assert [(begin, end) for begin, end, _ in update.rules.ranges] == [(0, 7), (7, 11)]
    frozen = update.rules.programs[update.rules.ranges[1][2]]
    inputs = [5.0, 1.0, 1.0, 1.0, *[0.5] * update.rules.n_scalars]
    assert outputs(frozen, inputs, np.zeros((1, 0)))[0] == 5


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


def test_clipped_updates_leave_parameters_without_effect_alone():
    """The optimizer of all parameters in one array is that of the parameters by name."""
    model = RECIPE.model.replace(positional_embedding_type="alibi")
    cfg = dataclasses.replace(RECIPE, model=model, clip_grad_norm=0.1, weight_decay=0.5)
    key, (_, rates) = make_program_key(cfg), optimizer_settings(cfg)
    rng = np.random.default_rng(0)
    params, grads = (
        {n: rng.normal(size=s).astype(np.float32) for n, s in parameter_shapes(model).items()}
        for _ in ("params", "grads")
    )
    by_name, by_number = make_optimizer(key.optimizer, rates), flat_optimizer(key, rates)
    expected, _ = by_name.update(grads, by_name.init(params), params)
    numbers, unravel = ravel_pytree(params)
    found, _ = by_number.update(ravel_pytree(grads)[0], by_number.init(numbers), numbers)
    for name, change in unravel(found).items():
        np.testing.assert_allclose(change, expected[name], rtol=1e-5, err_msg=name)
    assert not np.any(unravel(found)["pos_embed.W_pos"])
    assert np.all(unravel(found)["embed.W_E"])
