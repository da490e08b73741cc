"""Traced programs compute what JAX computes, and are simplified without a change of value."""

from __future__ import annotations

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fused_examples import (
    LENGTH,
    N_TOKENS,
    OBJECTIVE,
    draw,
    evaluate,
    flat,
    loss_of,
    one_layer_of,
    outputs,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from model_family import COMBINED, case, configs

from jax_revinc.compilation import jaxprs
from jax_revinc.engines.fused import graph, primitives
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.graph import INT, PARAMETER, TOKEN, Node
from jax_revinc.engines.fused.simplify import Algebra
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.trace import interpret, trace
from revinc.objective import Objective


def assert_computes_what_jax_does(cfg, objective=OBJECTIVE):
    loss = loss_of(cfg, objective)
    params, tokens = draw(cfg, n_examples=6)
    with jax.enable_x64(True):
        program = trace(jax.value_and_grad(loss), Spec(params, LENGTH, N_TOKENS))
        expected = flat(jax.jit(jax.value_and_grad(loss))(params, tokens))
    found = outputs(program, flat(params), tokens)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_the_program_of_the_tutorials_model_is_its_loss_and_gradient():
    assert_computes_what_jax_does(case("tutorial", n_ctx=LENGTH))


@pytest.mark.slow
def test_labels_may_be_smoothed():
    assert_computes_what_jax_does(case("tutorial"), Objective(OBJECTIVE.train_positions, 0.1))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINED)
def test_the_program_of_every_part_is_its_loss_and_gradient(name):
    assert_computes_what_jax_does(case(name, n_ctx=LENGTH, d_vocab_out=N_TOKENS))


@pytest.mark.slow
@settings(max_examples=15)
@given(cfg=configs())
def test_the_program_of_any_model_is_its_loss_and_gradient(cfg):
    assert_computes_what_jax_does(one_layer_of(cfg))


def example(primitive):
    """A function of a [2, 3] array of numbers and of three tokens that uses a primitive."""
    of = {
        "and": lambda x, _: jnp.where((x > 0) & (x < 1), x, 2.0),
        "or": lambda x, _: jnp.where((x > 1) | (x < 0.5), x, 2.0),
        "not": lambda x, _: jnp.where(~(x > 1), x, 2.0),
        "ne": lambda x, t: jnp.where(t != 1, x, 2.0),
        "eq": lambda x, t: jnp.where(t == 1, x, 2.0),
        "is_finite": lambda x, _: jnp.where(jnp.isfinite(x), x, 2.0),
        "select_n": lambda x, t: lax.select_n(jnp.stack([t, t]) > 1, x, 2 * x),
        "copy": lambda x, _: jnp.copy(x),
        "stop_gradient": lambda x, _: lax.stop_gradient(x) * x,
        "convert_element_type": lambda x, t: x * t + (x > 1) + jnp.sum(t > x),
        "reshape": lambda x, _: x.reshape(3, 2),
        "squeeze": lambda x, _: lax.squeeze(x[:1], [0]),
        "transpose": lambda x, _: x.T,
        "broadcast_in_dim": lambda x, _: jnp.broadcast_to(x, (4, 2, 3)),
        "rev": lambda x, _: x[:, ::-1],
        "slice": lambda x, _: lax.slice(x, (0, 0), (2, 3), (1, 2)),
        "split": lambda x, _: jnp.split(x, [1], axis=1),
        "concatenate": lambda x, _: jnp.concatenate([x, 2 * x], axis=1),
        "pad": lambda x, _: lax.pad(x, 7.0, ((1, 0, 2), (0, 2, 1))),
        "stack": lambda x, _: jnp.stack([x, 2 * x], axis=1),
        "unstack": lambda x, _: jnp.unstack(x, axis=1),
        "iota": lambda x, _: x * lax.iota(np.float64, 3),
        "reduce_sum": lambda x, _: x.sum(0),
        "reduce_max": lambda x, _: x.max(1),
        "reduce_min": lambda x, _: x.min(),
        "argmax": lambda x, t: x * jnp.argmax(jnp.stack([x, x[:, t], x], 1), axis=1),
        "dot_general": lambda x, _: jnp.einsum("bi,bj->bij", x, x @ jnp.ones((3, 4))),
        "gather": lambda x, t: x[:, t],
        "scatter-add": lambda x, t: jnp.asarray(x).at[:, t].add(2.0 * x),
        "integer_pow": lambda x, _: x**3 + x**-2,
        "jit": lambda x, _: jax.jit(jnp.square)(x),
        "remat2": lambda x, _: jax.checkpoint(jnp.square)(x),
        "custom_jvp_call": lambda x, _: jax.nn.relu(x),
        "custom_vjp_call": lambda x, _: identity(x),
        "max": lambda x, _: lax.max(x, 1 - x),
        "min": lambda x, _: lax.min(x, 1 - x),
    }
    for name in ("add", "sub", "mul", "div"):
        of[name] = lambda x, _: getattr(lax, primitive)(x, 3 - x)
    for name in ("lt", "le", "gt", "ge"):
        of[name] = lambda x, _: jnp.where(getattr(lax, primitive)(x, 2 - x), x, 2.0)
    return of.get(primitive, lambda x, _: getattr(lax, primitive)(x))


@jax.custom_vjp
def identity(x):
    return 2 * x


identity.defvjp(lambda x: (2 * x, None), lambda _, g: (g,))

SAME_RULE = {"add_any", "pjit", "checkpoint", "closed_call", "one_minus_square"}
"""Names that another version of JAX has, or that no function of a user's brings about."""


@pytest.mark.parametrize("primitive", sorted({*primitives.RULES, *jaxprs.CALLS} - SAME_RULE))
def test_every_primitive_does_what_it_does_in_jax(primitive):
    function = example(primitive)
    x, tokens = np.random.default_rng(0).uniform(0.2, 1.8, (2, 3)), np.array([2, 0, 1], np.int32)
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(function)(x, tokens)
        expected = flat(function(x, tokens))
    assert primitive in {equation.primitive.name for equation in jaxpr.eqns} | called(jaxpr)
    algebra = Algebra()
    numbers = [algebra.make(PARAMETER, i) for i in range(6)]
    ids = [algebra.make(TOKEN, i, kind=INT, bounds=(0, 2)) for i in range(3)]
    operands = [np.array(numbers, object).reshape(2, 3), np.array(ids, object)]
    results = interpret(algebra, jaxpr.jaxpr, jaxpr.consts, operands)
    scalars = [scalar for array in results for scalar in array.flat]
    program = graph.Program(tuple(scalars), 6, 3)
    np.testing.assert_allclose(outputs(program, x.ravel(), tokens[None]), expected, rtol=1e-13)


def called(jaxpr):
    """The primitives inside calls."""
    return {
        inner.primitive.name
        for equation in jaxpr.eqns
        if equation.primitive.name in jaxprs.CALLS
        for inner in equation.params[jaxprs.CALLS[equation.primitive.name]].eqns
    }


def test_the_documented_primitives_are_the_supported_ones():
    rows = [line for line in primitives.__doc__.splitlines() if line.startswith("|")]
    named = [name for row in rows for code in re.findall("`(.*?)`", row) for name in code.split()]
    assert len(named) == len(set(named))
    assert set(named) == {*primitives.RULES, *jaxprs.CALLS}


def test_an_unknown_primitive_is_named():
    with pytest.raises(NotFusible, match="cumsum"):
        trace(lambda p, t: jnp.cumsum(p * t[0, 0])[1], Spec(np.ones(2, np.float32), 1, 5))


def test_an_index_that_may_be_out_of_bounds_is_refused():
    with pytest.raises(NotFusible, match="out of its bounds"):
        trace(lambda p, t: p[t].sum(), Spec(np.ones(4, np.float32), 1, 5))


def test_too_large_a_program_is_refused(monkeypatch):
    monkeypatch.setattr(graph, "MOST_NODES", 100)
    cfg = case("tutorial", dtype="float32")
    with pytest.raises(NotFusible, match="more than 100 scalar operations"):
        trace(jax.value_and_grad(loss_of(cfg)), Spec(draw(cfg, 1)[0], LENGTH, N_TOKENS))


def test_masked_and_unused_positions_leave_no_trace():
    """There is an exponential for every visible pair of positions that matters, and for every logit."""
    cfg = case("tutorial", dtype="float32")
    program = trace(jax.value_and_grad(loss_of(cfg)), Spec(draw(cfg, 1)[0], LENGTH, N_TOKENS))
    of = collections.Counter(node.op for node in program.nodes())
    first_layer, second_layer = sum(range(1, 9)), sum(range(5, 9))
    assert of["exp"] == first_layer + second_layer + len(OBJECTIVE.train_positions) * N_TOKENS


NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 2.0]), st.integers(0, 2).map(lambda i: f"p{i}")
)
BINARY = ("add", "sub", "mul", "div", "max", "min")
UNARY = ("neg", "square", "rcp", "exp", "sqrt", "tanh", "logistic")
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(BINARY), inner, inner), st.tuples(st.sampled_from(UNARY), inner)
    ),
    max_leaves=8,
)
PLAIN = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "square": np.square,
    "rcp": np.reciprocal,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
}


@given(expression=EXPRESSIONS)
def test_simplifying_changes_no_value(expression):
    algebra, values = Algebra(), np.array([0.7, -1.3, 2.1])

    def build(e):
        if isinstance(e, str):
            return algebra.make(PARAMETER, int(e[1]))
        return e if isinstance(e, float) else getattr(algebra, e[0])(*map(build, e[1:]))

    def plain(e):
        if isinstance(e, str):
            return values[int(e[1])]
        return np.float64(e) if isinstance(e, float) else PLAIN[e[0]](*map(plain, e[1:]))

    def steps(e):
        return [plain(e)] + (
            [] if isinstance(e, str | float) else [s for x in e[1:] for s in steps(x)]
        )

    with np.errstate(all="ignore"):
        if not all(1e-6 < abs(step) < 1e6 or step == 0 for step in steps(expression)):
            return  # where zero, infinity and NaN meet, see the module's own words
        result = build(expression)
        nodes = graph.Program((result,), 3, 0).nodes()
        found = (
            evaluate(nodes, values, np.zeros(0))[result.id] if isinstance(result, Node) else result
        )
        largest = max(abs(step) for step in steps(expression))
        assert found == pytest.approx(plain(expression), rel=1e-12, abs=1e-12 * largest)


def test_equal_operations_are_one():
    algebra = Algebra()
    a, b = (algebra.make(PARAMETER, i) for i in range(2))
    assert algebra.mul(a, b) is algebra.mul(b, a)
    assert algebra.sub(a, algebra.neg(b)) is algebra.add(b, a)
    assert algebra.mul(2.0, algebra.mul(a, 0.5)) is a
