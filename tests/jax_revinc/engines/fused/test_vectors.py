"""The vector functions of the runtime, compared with those of numpy and scipy."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from scipy import special

from jax_revinc.engines.fused.build import FLAGS, shared_library
from jax_revinc.engines.fused.emit import C_TYPES, complementary_error_function, runtime
from jax_revinc.engines.fused.errors import CannotBuild

pytestmark = pytest.mark.optimized

FUNCTIONS = ("exponential", "logarithm", "hyperbolic_tangent", "complementary_error_function")
FUNCTIONS += ("square_root",)


@pytest.fixture(scope="module", params=[("float32", 16), ("float32", 4), ("float64", 4)], ids=str)
def functions(request):
    """The vector functions of one build, on arrays, and their type."""
    dtype, lanes = np.dtype(request.param[0]), request.param[1]
    loops = "\n".join(
        f'extern "C" void of_{name}(V *x, long n) {{ for (long i = 0; i < n; i++) x[i] = {name}(x[i]); }}'
        for name in FUNCTIONS
    )
    text = f"typedef {C_TYPES[dtype.name]} F;\n#define LANES {lanes}\n{runtime('vectors')}"
    try:
        library = shared_library(f"{text}{complementary_error_function(dtype)}\n{loops}", FLAGS)
    except CannotBuild as why:
        pytest.skip(str(why))

    def apply(name, x):
        n_vectors = -(-len(x) // lanes)
        room = np.zeros(n_vectors * lanes * dtype.itemsize + 64, np.uint8)
        start = -room.ctypes.data % 64
        vectors = room[start : start + n_vectors * lanes * dtype.itemsize].view(dtype)
        vectors[: len(x)] = x
        getattr(library, f"of_{name}")(
            ctypes.c_void_p(vectors.ctypes.data), ctypes.c_long(n_vectors)
        )
        return vectors[: len(x)].copy()

    return apply, dtype


def errors_in_ulp(found, expected, dtype):
    """How many units in the last place of a normal number the results are off."""
    size = np.maximum(np.abs(expected), np.finfo(dtype).tiny)
    return np.abs(found.astype(np.longdouble) - expected) / (size * np.finfo(dtype).eps)


def grid(dtype, low, high):
    return np.linspace(low, high, 40_001).astype(dtype)


def test_exponential(functions):
    apply, dtype = functions
    least = -86 if dtype == np.float32 else -707
    x = grid(dtype, least, 88 if dtype == np.float32 else 709)
    assert (
        errors_in_ulp(apply("exponential", x), np.exp(x.astype(np.longdouble)), dtype).max() < 1.5
    )
    ends = apply("exponential", np.array([-np.inf, 2 * least, 0, 1000, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(ends, [0, 0, 1, np.inf, np.inf, np.nan])


def test_logarithm(functions):
    apply, dtype = functions
    with np.errstate(all="ignore"):
        tiny = np.finfo(dtype).tiny * np.array([1, 0.5, 1e-3], dtype)
    x = np.concatenate([grid(dtype, 0.01, 3), np.exp(grid(dtype, -80, 80)), tiny])
    expected = np.log(x.astype(np.longdouble))
    error = np.abs(apply("logarithm", x) - expected) / np.finfo(dtype).eps
    assert (error / np.maximum(np.abs(expected), 1e-3)).max() < 3
    ends = apply("logarithm", np.array([-1, 0, 1, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(ends, [np.nan, -np.inf, 0, np.inf, np.nan])


def test_hyperbolic_tangent(functions):
    apply, dtype = functions
    x = np.concatenate([grid(dtype, -25, 25), grid(dtype, -0.5, 0.5), np.array([1e-6], dtype)])
    expected = np.tanh(x.astype(np.longdouble))
    assert errors_in_ulp(apply("hyperbolic_tangent", x), expected, dtype).max() < 4
    ends = apply("hyperbolic_tangent", np.array([-np.inf, 0, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(ends, [-1, 0, 1, np.nan])


def test_complementary_error_function(functions):
    apply, dtype = functions
    x = grid(dtype, -6, 6)
    error = errors_in_ulp(
        apply("complementary_error_function", x), special.erfc(x.astype(float)), dtype
    )
    assert (error / (20 + x**2)).max() < 1
    ends = apply("complementary_error_function", np.array([-np.inf, 0, np.inf, np.nan], dtype))
    np.testing.assert_allclose(ends, [2, 1, 0, np.nan], rtol=1e-6)


def test_square_root(functions):
    apply, dtype = functions
    x = np.concatenate([grid(dtype, 0, 10), np.array([np.inf, np.nan, -1], dtype)])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(apply("square_root", x), np.sqrt(x))
