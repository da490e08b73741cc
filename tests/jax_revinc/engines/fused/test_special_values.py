"""NaN, infinities, zeros and equal numbers: a compiled program treats them as JAX does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fused_examples import evaluate, require_compiler
from jax import lax

from jax_revinc.engines.fused.graph import PARAMETER, Program
from jax_revinc.engines.fused.simplify import Algebra
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.vmap import fused_outputs

SPECIAL = np.array([np.nan, -np.inf, -1.5, -0.0, 0.0, 1.5, np.inf], np.float32)
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
OF_TWO = {name: getattr(lax, name) for name in (*COMPARISONS, "max", "min")}
OF_ONE = {"sign": lax.sign, "is_finite": lax.is_finite, "equals itself": lambda x: x == x}
OF_ONE |= {"at most itself": lambda x: x <= x, "at least itself": lambda x: x >= x}


def of_all(x, y):
    """Every function of all numbers and of all pairs."""
    one = [function(x) for function in OF_ONE.values()]
    two = [function(*jnp.broadcast_arrays(x[:, None], y)).ravel() for function in OF_TWO.values()]
    return jnp.concatenate([jnp.where(x, 1.0, 0.0) if x.dtype == bool else x for x in (*one, *two)])


@pytest.mark.parametrize("other", ["a parameter", "a constant"])
def test_compiled_they_are_what_they_are_in_jax(other, monkeypatch):
    require_compiler()
    monkeypatch.setattr("jax_revinc.engines.fused.vmap.require_agreement", lambda *_: None)

    def function(params, _):
        return of_all(params["x"], params["y"] if other == "a parameter" else jnp.asarray(SPECIAL))

    params = {"x": SPECIAL, "y": SPECIAL}
    of_each = fused_outputs(function, Spec(params, 1, 1))
    found = jax.jit(of_each)(np.concatenate([SPECIAL, SPECIAL]), np.zeros((1, 1), np.int32))[0]
    names = [f"{n}({x})" for n in OF_ONE for x in SPECIAL]
    names += [f"{n}({x}, {y})" for n in OF_TWO for x in SPECIAL for y in SPECIAL]
    expected = np.asarray(function(params, None))
    wrong = ~((found == expected) | (np.isnan(found) & np.isnan(expected)))
    assert [name for name, is_wrong in zip(names, wrong, strict=True) if is_wrong] == []


@pytest.mark.parametrize("name", [*COMPARISONS, "max", "min"])
def test_known_numbers_are_combined_as_in_numpy(name):
    plain = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    plain |= {"eq": np.equal, "ne": np.not_equal, "max": np.maximum, "min": np.minimum}
    algebra = Algebra()
    for x in map(float, SPECIAL):
        for y in map(float, SPECIAL):
            is_comparison = name in COMPARISONS
            found = algebra.compare(name, x, y) if is_comparison else getattr(algebra, name)(x, y)
            np.testing.assert_array_equal(found, plain[name](x, y), err_msg=f"{x} {y}")


@pytest.mark.parametrize("known", [True, False])
def test_the_sign_of_any_number_is_that_of_numpy(known):
    algebra = Algebra()
    for x in map(float, SPECIAL):
        sign = algebra.sign(x if known else algebra.make(PARAMETER, 0))
        if not known:
            sign = evaluate(Program((sign,), 1, 0).nodes(), [x], np.zeros(0))[sign.id]
        np.testing.assert_array_equal(float(sign), np.sign(x))
