"""What a function computes from each of many examples, as one compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.engines.fused.agreement import require_agreement
from jax_revinc.engines.fused.flat import flattened
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
    flat, unravel = flattened(params)
    layout = layout_of(flat, lanes, many)
    of_all = jax.vmap(function, in_axes=(None, 0))
    program = trace(of_all, params, length, n_tokens)
    source = outputs_source(program, layout)
    target = registered(source, "outputs")

    def of_each(params: Array, sequences: Array) -> Array:
        shape = (*params.shape[:-1], sequences.shape[-2], len(program.outputs))
        call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, params.dtype))
        found: Array = call(params, jnp.asarray(sequences, jnp.int32))
        return found

    def both(models: Array, sequences: Array) -> tuple[Array, Array]:
        found = of_each(models, sequences) if many else [of_each(m, sequences) for m in models]
        return jnp.asarray(found), jnp.stack([of_all(unravel(m), sequences) for m in models])

    rng = np.random.default_rng(0)
    models = rng.normal(0, 0.5, (2, flat.size)).astype(layout.dtype)
    sequences = rng.integers(0, n_tokens, (layout.lanes + 1, length), np.int32)
    evidence = (source, program.origin)
    require_agreement("what it computes", both, (models, sequences), evidence)
    return of_each
