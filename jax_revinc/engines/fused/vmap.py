"""Compile `jax.vmap` of a function of one example to one C++ program for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.engines.fused.build import ffi_target
from jax_revinc.engines.fused.emit import outputs_source
from jax_revinc.engines.fused.kept_sources import Keep, make
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.trace import trace
from jax_revinc.engines.fused.verify import require_agreement

OfExample = Callable[[Any, Int[Array, " seq"]], Float[Array, " n_outputs"]]
OfEach = Callable[
    [Float[Array, "*models n_parameters"], Int[Array, "*models n_sequences seq"]],
    Float[Array, "*models n_sequences n_outputs"],
]


def fused_outputs(
    function: OfExample, spec: Spec, *, n_outputs: int | None = None, keep: Keep = make
) -> OfEach:
    """Like `jax.vmap(function)` over examples, but computed by one C++ program on the CPU.

    The result may be called inside `jax.jit`. It takes all parameters in one array, in the order of
    their pytree's leaves. If it computes many models, the sequences need no axis of models.

    Args:
        function: of the parameters' pytree and the token ids of one example.
        spec: the parameters, examples and vectors to compile for.
        n_outputs: the number of elements of the function's result, if the caller knows it, which
            saves tracing the function.
        keep: where the verified source is kept; by default nowhere.

    Raises:
        NotFusible: if `function` can't be fused, or its results differ from XLA's.
        CannotBuild: without a compiler that works.
    """
    flat, unravel = spec.flatten()
    by_xla = jax.vmap(function, in_axes=(None, 0))
    if n_outputs is None:
        example = jax.ShapeDtypeStruct((spec.length,), jnp.int32)
        (n_outputs,) = jax.eval_shape(function, spec.params, example).shape

    def outputs_by(source: str) -> OfEach:
        target = ffi_target(source, "outputs")

        def of_each(params: Array, sequences: Array) -> Array:
            shape = (*params.shape[:-1], sequences.shape[-2], n_outputs)
            call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, params.dtype))
            outputs: Array = call(params, jnp.asarray(sequences, jnp.int32))
            return outputs

        return of_each

    def verified_source() -> str:
        program = trace(by_xla, spec)
        source = outputs_source(program, flat)
        of_each = outputs_by(source)

        def fused(models: Array, sequences: Array) -> Any:
            if spec.many:
                return of_each(models, sequences)
            return [of_each(model, sequences) for model in models]

        def expected(models: Array, sequences: Array) -> Any:
            return [by_xla(unravel(model), sequences) for model in models]

        rng = np.random.default_rng(0)
        models = rng.normal(0, 0.5, (2, flat.params.size)).astype(flat.dtype)
        sequences = rng.integers(0, spec.n_tokens, spec.check_shape, np.int32)
        evidence = (source, program.origin)
        require_agreement("output", fused, expected, (models, sequences), evidence)
        return source

    return outputs_by(keep("outputs", verified_source))
