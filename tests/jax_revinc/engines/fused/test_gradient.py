"""Compiled gradients, compared with XLA's: alone, under vmap, and where XLA has to run them."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fused_examples import LENGTH, N_TOKENS, draw, flat, loss_of, one_layer_of, require_compiler
from hypothesis import given, settings
from model_family import case, configs
from populations import RECIPE

from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.engines.fused import gradient
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.gradient import build_value_and_grad, fused_value_and_grad
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.toolchain import lane_width
from jax_revinc.engines.fused.trace import trace

pytestmark = pytest.mark.optimized

TUTORIAL = case("tutorial", n_ctx=LENGTH, dtype="float32")
ONE_LAYER = RECIPE.model
LANES = lane_width("float32")


@pytest.fixture(scope="module", autouse=True)
def _compiler():
    require_compiler()


@pytest.fixture(scope="module")
def fused():
    """The gradient of the tutorial's first layer."""
    return fused_value_and_grad(loss_of(ONE_LAYER), N_TOKENS, fallback=False)


def depth(program):
    """The most operations that one result passes through."""
    steps = {}
    for node in program.nodes():
        steps[node.id] = 1 + max((steps[operand.id] for operand in node.operands), default=0)
    return max(steps.values())


def assert_is_the_gradient(cfg, value_and_grad, n_examples=LANES + 3):
    """Within 1e-10 of XLA's in float64; in float32, within a rounding for every operation in a row.

    Of small weights: attention scores of tens would amplify roundings as much.
    """
    wide, loss = cfg.replace(dtype="float64"), loss_of(cfg)
    params, tokens = draw(cfg, n_examples, scale=0.5)
    with numerics(cfg):
        program = trace(jax.value_and_grad(loss), Spec(params, LENGTH, N_TOKENS))
        found = flat(value_and_grad(params, tokens))
    with numerics(wide):
        in_float64 = jax.tree.map(np.float64, params)
        expected = flat(jax.jit(jax.value_and_grad(loss_of(wide)))(in_float64, tokens))
    tolerance = depth(program) * np.finfo(np.float32).eps if cfg.dtype == "float32" else 1e-10
    assert np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected)


def built(cfg, lanes=None):
    with numerics(cfg):
        spec = Spec(draw(cfg, 1)[0], LENGTH, N_TOKENS, lanes=lanes)
        return build_value_and_grad(loss_of(cfg), spec)


def test_the_gradient_is_xlas_in_float32(fused):
    assert_is_the_gradient(ONE_LAYER, fused)


def test_the_mean_over_a_batch_is_that_of_its_parts(fused):
    """Of all sizes: less than a vector, one, and more."""
    params, tokens = draw(ONE_LAYER, n_examples=2 * LANES + 3, scale=0.5)
    parts = np.split(tokens, [1, 1 + LANES])
    weighted = sum(len(part) * flat(fused(params, part)) for part in parts)
    whole = flat(fused(params, tokens))
    np.testing.assert_allclose(weighted / len(tokens), whole, atol=1e-6 * np.abs(whole).max())


SMALL = TUTORIAL.replace(n_layers=1, attn_only=True, d_model=2, d_head=1, n_heads=2)


def test_the_gradient_is_xlas_in_float64():
    cfg = SMALL.replace(dtype="float64")
    assert_is_the_gradient(cfg, built(cfg))


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [4, 8])
def test_the_gradient_is_xlas_in_shorter_vectors(lanes):
    assert_is_the_gradient(SMALL, built(SMALL, lanes))


FAMILY = {
    "d_model 8": TUTORIAL.replace(n_layers=1, d_model=8, d_head=4, n_heads=2, d_mlp=16),
    "gelu": TUTORIAL.replace(act_fn="gelu"),
    "attention only": TUTORIAL.replace(attn_only=True),
    "no norm": TUTORIAL.replace(normalization_type=None),
    "LNPre": TUTORIAL.replace(normalization_type="LNPre"),
    "RMS": TUTORIAL.replace(normalization_type="RMS"),
    "4 heads": TUTORIAL.replace(n_layers=1, n_heads=4),
    "tutorial": TUTORIAL,
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FAMILY)
def test_the_gradient_of_every_part_is_xlas(name, dtype):
    cfg = FAMILY[name].replace(dtype=dtype)
    assert_is_the_gradient(cfg, built(cfg))


@pytest.mark.slow
@settings(max_examples=4)
@given(cfg=configs())
def test_the_gradient_of_any_model_is_xlas(cfg):
    cfg = one_layer_of(cfg).replace(n_ctx=LENGTH)
    assert_is_the_gradient(cfg, built(cfg))


def models(n, n_examples=3):
    """Random parameters of several models, and the tokens of each."""
    each = [draw(ONE_LAYER, n_examples, seed=i) for i in range(n)]
    return jax.tree.map(lambda *xs: np.stack(xs), *each)


def assert_same_bits(tree, other):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_under_vmap_a_model_has_the_same_bits_in_any_lane_and_company(fused):
    params, tokens = models(2 * LANES + 3)
    side_by_side = jax.vmap(fused)
    all_of_them = side_by_side(params, tokens)
    for chosen in (np.arange(2 * LANES + 3)[::-1], np.array([7]), np.array([1, LANES, 1])):
        some = side_by_side(*jax.tree.map(lambda x, at=chosen: x[at], (params, tokens)))
        assert_same_bits(some, jax.tree.map(lambda x, at=chosen: x[at], all_of_them))


def test_vmap_may_be_nested(fused):
    params, tokens = models(6)
    expected = jax.vmap(fused)(params, tokens)
    nested = jax.vmap(jax.vmap(fused))(
        *jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (params, tokens))
    )
    assert_same_bits(jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), nested), expected)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_model_that_diverges_leaves_the_others_alone(fused, poison):
    params, tokens = models(LANES + 1)
    healthy = jax.vmap(fused)(params, tokens)
    params["unembed.W_U"][2] = poison
    loss, grads = jax.vmap(fused)(params, tokens)
    assert np.isnan(loss[2])
    assert np.isnan(grads["unembed.W_U"][2]).all()
    others = np.arange(LANES + 1) != 2
    assert_same_bits(
        *(jax.tree.map(lambda x: x[others], tree) for tree in ((loss, grads), healthy))
    )


def test_a_nan_in_any_parameter_that_matters_reaches_the_loss(fused):
    params, tokens = models(len(jax.tree.leaves(models(1)[0])))
    for i, name in enumerate(sorted(params)):
        params[name][i] = np.nan
    loss, _ = jax.vmap(fused)(params, tokens)
    assert np.isnan(loss).all()


def square_loss(params, tokens):
    """A small loss with all kinds of arrays."""
    return ((params["a"][tokens] * params["b"]) ** 2).sum((1, 2)).mean()


SQUARE = {"a": np.ones((3, 2), np.float32), "b": np.float32(2)}
EXAMPLES = np.array([[0, 1], [2, 2], [1, 0], [0, 2]], np.int32)  # means of four are exact


@pytest.mark.parametrize("lanes", [None, 4, 8])
def test_it_trains_inside_jit_scan_and_vmap(lanes):
    optimizer = optax.adamw(1e-2)
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(3, 3, 2)).astype(np.float32), "b": np.ones(3, np.float32)}
    batches = rng.integers(0, 3, (3, 10, 5, 2), np.int32)

    def trained(value_and_grad, params, batches):
        def step(carry, batch):
            params, state = carry
            loss, grads = value_and_grad(params, batch)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, optimizer.init(params)), batches)[1]

    found, expected = (
        jax.jit(jax.vmap(lambda p, b, f=f: trained(f, p, b)))(params, batches)
        for f in (
            fused_value_and_grad(square_loss, 3, lanes=lanes),
            jax.value_and_grad(square_loss),
        )
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_parameters_may_be_any_pytree():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fused_value_and_grad(square_loss, n_tokens=3)(SQUARE, EXAMPLES)
    assert_same_bits(found, jax.value_and_grad(square_loss)(SQUARE, EXAMPLES))


def test_what_can_not_be_fused_runs_as_xla_has_it():
    def loss(params, tokens):
        return jnp.cumsum(params["a"][tokens]).mean()

    with pytest.warns(UserWarning, match="cumsum"):
        found = fused_value_and_grad(loss, n_tokens=3)(SQUARE, EXAMPLES)
    assert_same_bits(found, jax.value_and_grad(loss)(SQUARE, EXAMPLES))


def test_without_a_compiler_xla_runs_it(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")

    def loss(params, tokens):
        return 3 * square_loss(params, tokens)

    with pytest.warns(UserWarning, match="CXX"):
        found = fused_value_and_grad(loss, n_tokens=3)(SQUARE, EXAMPLES)
    assert_same_bits(found, jax.value_and_grad(loss)(SQUARE, EXAMPLES))


def test_a_gradient_that_differs_from_xlas_is_refused(monkeypatch):
    right = gradient.gradient_source
    monkeypatch.setattr(
        gradient, "gradient_source", lambda *args: right(*args).replace("g[1] +=", "g[1] -=")
    )
    with pytest.raises(NotFusible, match="XLA's"):
        build_value_and_grad(square_loss, Spec(SQUARE, 2, 3))


def test_a_loss_that_is_no_mean_over_examples_is_refused():
    with pytest.raises(NotFusible, match="XLA's"):
        build_value_and_grad(lambda p, t: len(t) * square_loss(p, t), Spec(SQUARE, 2, 3))


def test_parameters_of_other_types_are_refused():
    halves = jax.tree.map(lambda x: x.astype(np.float16), SQUARE)
    with pytest.raises(NotFusible, match="float16"):
        build_value_and_grad(square_loss, Spec(halves, 2, 3))
    with pytest.raises(NotFusible, match="float32 and float64"):
        Spec(SQUARE | {"b": np.float64(2)}, 2, 3)
