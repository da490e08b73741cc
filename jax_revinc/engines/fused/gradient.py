"""A drop-in for `jax.value_and_grad` of a loss over examples, compiled to straight-line vector code."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.engines.fused.build import shared_library
from jax_revinc.engines.fused.compiler import CannotBuild
from jax_revinc.engines.fused.cpu import lane_width
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.front import Loss, trace
from jax_revinc.engines.fused.source import C_TYPES, FLAGS, source

Tokens = Int[Array, "batch seq"]
ValueAndGrad = Callable[[Any, Tokens], tuple[Float[Array, ""], Any]]


def fused_value_and_grad(
    loss: Loss, n_tokens: int, *, lanes: int | None = None, fallback: bool = True
) -> ValueAndGrad:
    """`jax.value_and_grad` of `loss`, as one compiled program for the CPU.

    The result may be called inside `jax.jit`, loops and `jax.vmap`. Examples share vectors, or, within `vmap`,
    models do: then what becomes of a model depends on no other. It is built when it is first called with
    parameters of some shapes, which takes seconds, once per machine.

    Args:
        loss: of parameters (any pytree of float32 or of float64 arrays) and token ids of shape [batch seq]; a
            mean over the examples, each of which enters it alone.
        n_tokens: token ids are in ``0 .. n_tokens - 1``. Others are not noticed: their result means nothing.
        lanes: scalars of a vector; by default what suits this CPU.
        fallback: have XLA run what can't be fused, or can't be built here, and warn; else that is an error.

    Raises:
        NotFusible: in the call, without `fallback`; see `build`.
        CannotBuild: likewise.
    """
    by_xla = jax.value_and_grad(loss)

    @functools.cache
    def for_shapes(structure: Any, shapes: tuple[Any, ...], length: int) -> ValueAndGrad:
        try:
            return build(loss, jax.tree.unflatten(structure, shapes), length, n_tokens, lanes)
        except (NotFusible, CannotBuild) as why:
            if not fallback:
                raise
            warnings.warn(f"XLA runs this loss, for it can't be fused: {why}", stacklevel=4)
            return by_xla

    def value_and_grad(params: Any, tokens: Tokens) -> tuple[Float[Array, ""], Any]:
        leaves, structure = jax.tree.flatten(params)
        shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves)
        return for_shapes(structure, shapes, jnp.shape(tokens)[-1])(params, tokens)

    return value_and_grad


def build(
    loss: Loss, params: Any, length: int, n_tokens: int, lanes: int | None = None
) -> ValueAndGrad:
    """`fused_value_and_grad` for parameters of given shapes and types, or an error.

    Raises:
        NotFusible: if the loss can't be fused, or if its gradient turns out to differ from XLA's.
        CannotBuild: without a compiler that works.
    """
    if jax.default_backend() != "cpu":
        raise NotFusible(f"JAX runs on {jax.default_backend()}, and fused programs on the CPU")
    leaves, structure = jax.tree.flatten(params)
    dtypes = {leaf.dtype.name for leaf in leaves}
    if len(dtypes) != 1 or not dtypes <= C_TYPES.keys():
        raise NotFusible(f"its parameters are {' and '.join(sorted(dtypes))}")
    dtype = leaves[0].dtype
    lanes = lane_width(dtype) if lanes is None else lanes
    program = trace(loss, params, length, n_tokens)
    target = registered(source(program, [leaf.size for leaf in leaves], dtype, lanes))
    results = [
        jax.ShapeDtypeStruct(shape, dtype) for shape in ((), *(leaf.shape for leaf in leaves))
    ]
    call = jax.ffi.ffi_call(target, results, vmap_method="broadcast_all")

    def value_and_grad(params: Any, tokens: Tokens) -> tuple[Float[Array, ""], Any]:
        value, *gradient = call(*jax.tree.leaves(params), jnp.asarray(tokens, jnp.int32))
        return value, jax.tree.unflatten(structure, gradient)

    with jax.ensure_compile_time_eval():
        check(value_and_grad, loss, params, (lanes + 1, length), n_tokens)
    return value_and_grad


@functools.cache
def registered(text: str) -> str:
    """The name by which XLA calls the program of this source."""
    name = f"jax_revinc_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    handler = shared_library(text, FLAGS).value_and_grad
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
    return name


def check(
    fused: ValueAndGrad, loss: Loss, params: Any, examples: Sequence[int], n_tokens: int
) -> None:
    """Compare with XLA: one model, and two side by side.

    Raises:
        NotFusible: if they differ by more than rounding.
    """
    rng = np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(params)
    drawn = [jnp.asarray(rng.normal(0, 0.5, (2, *x.shape)), x.dtype) for x in leaves]
    models = jax.tree.unflatten(structure, drawn)
    tokens = jnp.asarray(rng.integers(0, n_tokens, (2, *examples), np.int32))
    expected = jax.jit(jax.vmap(jax.value_and_grad(loss)))(models, tokens)
    side_by_side = jax.vmap(fused)(models, tokens)
    alone = [fused(*jax.tree.map(lambda x, i=i: x[i], (models, tokens))) for i in range(2)]
    one_by_one = jax.tree.map(lambda *each: jnp.stack(each), *alone)
    tolerance = 1e4 * np.finfo(leaves[0].dtype).eps
    for found in (side_by_side, one_by_one):
        error, size = (
            np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in jax.tree.leaves(tree)))
            for tree in (jax.tree.map(jnp.subtract, found, expected), expected)
        )
        if not error <= tolerance * size:
            raise NotFusible(
                f"its gradient is off by {error / size:.1e} of XLA's, which more than rounding explains"
            )
