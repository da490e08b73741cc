"""Products with one-hot matrices add what scatters add, in every model of the family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_family import COMBINED, case

from jax_revinc import PRESETS, numerics
from jax_revinc.engines.compiled_programs import make_program_key, parameter_structs
from jax_revinc.engines.ordered_sums import with_ordered_sums
from jax_revinc.engines.xla import gradient_by_xla, ordered_gradient_by_xla
from revinc.objective import Objective

TABLE = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
REPEATED = np.array([[3, 1, 3], [3, 0, 1]])


def lookups(table):
    """Sums of what is looked up in a table in every way in which a model does it, and in some more."""
    columns = jnp.sin(table[:, np.array([2, 2, 6])])
    chosen = jnp.take_along_axis(jnp.exp(table), REPEATED.repeat(3, 0)[:5], axis=-1)
    clipped = jnp.take(table, np.array([4, 9, -9]), axis=0, mode="clip")
    dropped = jnp.take(table, np.array([4, 9, -1]), axis=1, mode="fill", fill_value=0)
    sliced = jax.lax.dynamic_slice(table, (1, 2), (2, 3))
    parts = (columns, chosen, clipped, dropped, sliced, jnp.cos(table[REPEATED]))
    return sum(
        (part**2 * jnp.arange(1.0, part.size + 1).reshape(part.shape)).sum() for part in parts
    )


def n_scatters(function, *args):
    return str(jax.make_jaxpr(function)(*args)).count("scatter-add[")


def test_what_is_looked_up_has_the_same_derivative():
    gradient = jax.grad(lookups)
    ordered = with_ordered_sums(gradient)
    assert n_scatters(gradient, TABLE) > 3
    assert n_scatters(ordered, TABLE) == 0
    np.testing.assert_allclose(jax.jit(ordered)(TABLE), jax.jit(gradient)(TABLE), rtol=1e-5)


def test_so_it_has_for_many_models_side_by_side():
    tables = np.stack([TABLE, 2 * TABLE, -TABLE])
    ordered = jax.vmap(with_ordered_sums(jax.grad(lookups)))
    assert n_scatters(ordered, tables) == 0
    expected = jax.jit(jax.vmap(jax.grad(lookups)))(tables)
    np.testing.assert_allclose(jax.jit(ordered)(tables), expected, rtol=1e-5)


def test_a_scatter_along_two_dimensions_stays():
    def corner(table):
        return table[REPEATED, REPEATED].sum()

    ordered = with_ordered_sums(jax.grad(corner))
    assert n_scatters(ordered, TABLE) == 1
    np.testing.assert_array_equal(ordered(TABLE), jax.grad(corner)(TABLE))


def gradients_of(model, tokens):
    """The gradient with scatters and the one without, and arguments for both."""
    rng, objective = np.random.default_rng(0), Objective((3, 5, 6), label_smoothing=0.0)
    params = {
        name: rng.normal(size=struct.shape).astype(struct.dtype)
        for name, struct in parameter_structs(model).items()
    }
    both = (make(model, objective) for make in (gradient_by_xla, ordered_gradient_by_xla))
    return *both, params, tokens


@pytest.mark.parametrize(
    "name",
    [
        "tutorial",
        *(pytest.param(name, marks=pytest.mark.slow) for name in COMBINED if name != "tutorial"),
    ],
)
def test_the_gradient_of_a_model_of_the_family_is_the_same_without_scatters(name):
    model = case(name)
    with numerics(model):
        tokens = np.random.default_rng(1).integers(0, 3, size=(6, 8))
        scattered, ordered, *args = gradients_of(model, tokens)
        assert "scatter" not in str(jax.make_jaxpr(ordered)(*args))
        loss, gradient = jax.jit(scattered)(*args)
        ordered_loss, ordered_gradient = jax.jit(ordered)(*args)
    np.testing.assert_allclose(ordered_loss, loss, rtol=1e-13)
    for each, expected in gradient.items():
        np.testing.assert_allclose(
            ordered_gradient[each], expected, rtol=1e-10, atol=1e-13, err_msg=each
        )


@pytest.mark.parametrize("name", PRESETS)
def test_the_gradient_of_a_preset_has_no_scatter(name):
    cfg, key = PRESETS[name], make_program_key(PRESETS[name])
    params = parameter_structs(cfg.model)
    batch = jax.ShapeDtypeStruct((cfg.batch_size, key.length), np.int32)
    with numerics(cfg.model):
        ordered = ordered_gradient_by_xla(cfg.model, key.objective)
        assert "scatter" not in str(jax.make_jaxpr(ordered)(params, batch))
