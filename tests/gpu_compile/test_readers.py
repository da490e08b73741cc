"""The tests of this folder can fail: what they look for is found where it is."""

import jax
import jax.numpy as jnp
import pytest
from compiled_text import (
    launches,
    library_calls,
    products_below_full_precision,
    rounded_products,
    scatters,
    unordered_additions,
)
from gpu_compiler import compile_for

pytestmark = pytest.mark.slow

MATRIX = jax.ShapeDtypeStruct((512, 512), "float32")
PLACES = jax.ShapeDtypeStruct((64,), "int32")
COUNT = jax.ShapeDtypeStruct((), "int32")


@pytest.fixture(scope="module")
def compiled(card):
    """A function that compiles a function of matrices for an H100."""
    return lambda function, *args: compile_for(card("h100"), jax.jit(function).lower, *args)


def test_a_scatter_and_its_unordered_additions_are_found(compiled):
    program = compiled(lambda x, at, y: x.at[at].add(y[:64]), MATRIX, PLACES, MATRIX)
    assert len(scatters(program.hlo)) == 1
    assert len(unordered_additions(program.ptx)) >= 1


def test_a_product_that_may_use_tf32_is_found(compiled):
    program = compiled(jnp.matmul, MATRIX, MATRIX)
    assert rounded_products(program.ptx)
    assert len(products_below_full_precision(program.hlo)) == 1


def test_a_product_of_full_precision_is_none_of_them(compiled):
    program = compiled(lambda x, y: jnp.matmul(x, y, precision="highest"), MATRIX, MATRIX)
    assert not rounded_products(program.ptx)
    assert not products_below_full_precision(program.hlo)


def test_the_libraries_that_a_program_calls_are_found(card):
    lower = jax.jit(jnp.matmul).lower
    program = compile_for(card("h100"), lower, MATRIX, MATRIX, xla_gpu_enable_triton_gemm=False)
    assert library_calls(program.hlo) == {"__cublas$lt$matmul"}
    assert len(products_below_full_precision(program.hlo)) == 1


def test_launches_are_those_of_one_step(compiled):
    def three(x):
        return jnp.sort(x @ x, axis=0) @ x

    once = compiled(three, MATRIX)
    steps = compiled(lambda x, n: jax.lax.fori_loop(0, n, lambda _, x: three(x), x), MATRIX, COUNT)
    assert 3 <= launches(once.hlo) <= launches(steps.hlo) <= launches(once.hlo) + 2
