"""What a function computes from each of many examples, as one compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from jax_revinc.engines.fused.agreement import require_agreement
from jax_revinc.engines.fused.front import trace
from jax_revinc.engines.fused.source import layout_of, outputs_source
from jax_revinc.engines.fused.target import registered

OfExample = Callable[[Any, Int[Array, " seq"]], Float[Array, " n_outputs"]]
OfEach = Callable[
    [Float[Array, "*models n_parameters"], Int[Array, "*models n_sequences seq"]],
    Float[Array, "*models n_sequences n_outputs"],
]


def fused_outputs(
    function: OfExample,
    params: Any,
    length: int,
    n_tokens: int,
    *,
    many: bool = False,
    lanes: int | None = None,
) -> OfEach:
    """`jax.vmap` of `function` over examples, as one compiled program for the CPU. It may be called inside `jax.jit`.

    The result takes parameters in one array, in their pytree's order.

    Args:
        function: of parameters and the token ids of one example.
        params: the parameters (any pytree of float32 or of float64 arrays), or their shapes and types.
        length: tokens of an example.
        n_tokens: token ids are in ``0 .. n_tokens - 1``. Others are not noticed: their result means nothing.
        many: compute it for models side by side. Then parameters have an axis of models first, and the sequences may
            have it; what is computed for a model depends on no other.
        lanes: scalars of a vector; by default what suits this CPU.

    Raises:
        NotFusible: where `function` can't be fused, or turns out to differ from XLA's.
        CannotBuild: without a compiler that works.
    """
    zeros, unravel = ravel_pytree(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params))
    layout = layout_of(zeros, lanes, many)
    of_all = jax.vmap(function, in_axes=(None, 0))
    program = trace(of_all, params, length, n_tokens)
    target = registered(outputs_source(program, layout), "outputs")

    def of_each(params: Array, sequences: Array) -> Array:
        shape = (*params.shape[:-1], sequences.shape[-2], len(program.outputs))
        call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, params.dtype))
        found: Array = call(params, jnp.asarray(sequences, jnp.int32))
        return found

    def by_xla(params: Array, sequences: Array) -> Array:
        return of_all(unravel(params), sequences)

    rng = np.random.default_rng(0)
    with jax.ensure_compile_time_eval():
        models = jnp.asarray(rng.normal(0, 0.5, (2, zeros.size)), zeros.dtype)
        sequences = jnp.asarray(rng.integers(0, n_tokens, (layout.lanes + 1, length)), jnp.int32)
        expected = jax.jit(jax.vmap(by_xla, in_axes=(0, None)))(models, sequences)
        each = of_each(models, sequences) if many else [of_each(m, sequences) for m in models]
        require_agreement("what it computes is", jnp.asarray(each), expected, layout.dtype)
    return of_each
