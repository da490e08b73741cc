"""Compile a loss and its gradient to one C++ program, in place of `jax.value_and_grad`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import custom_vmap
from jaxtyping import Float, Int

from jax_revinc.engines.fused.build import ffi_target
from jax_revinc.engines.fused.emit import gradient_source
from jax_revinc.engines.fused.errors import CannotBuild, NotFusible
from jax_revinc.engines.fused.kept_sources import Keep, make
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.trace import trace
from jax_revinc.engines.fused.verify import require_agreement

Tokens = Int[Array, "batch seq"]

Loss = Callable[[Any, Tokens], Float[Array, ""]]
"""From parameters (any pytree) and token ids to their mean loss over the examples."""

ValueAndGrad = Callable[[Any, Tokens], tuple[Float[Array, ""], Any]]


def fused_value_and_grad(
    loss: Loss, n_tokens: int, *, lanes: int | None = None, fallback: bool = True
) -> ValueAndGrad:
    """Like `jax.value_and_grad(loss)`, but computed by one compiled C++ program on the CPU.

    The result may be called inside `jax.jit`, loops and `jax.vmap`. A lane of its vectors is an
    example, or, within `vmap`, a model: then no model's results depend on another model. The
    program is built when it is first called with parameters of some shapes. That takes seconds,
    once per machine, and twice as many within `vmap`.

    Args:
        loss: of parameters (any pytree of float32 or of float64 arrays) and token ids of shape
            [batch seq]: a mean over the examples, each of which enters it alone.
        n_tokens: token ids are in ``0 .. n_tokens - 1``. Others are not noticed: their results
            mean nothing.
        lanes: elements of a vector, a power of two; by default what this CPU's vectors hold.
        fallback: warn and let XLA run a loss that can't be fused or built; otherwise raise.

    Raises:
        NotFusible: in the call, without `fallback`, if the loss can't be fused, or its gradient
            differs from XLA's.
        CannotBuild: in the call, without `fallback`, if no compiler works.
    """
    by_xla = jax.value_and_grad(loss)

    @functools.cache
    def for_shapes(
        structure: Any, shapes: tuple[Any, ...], length: int, many: bool
    ) -> ValueAndGrad:
        params = jax.tree.unflatten(structure, shapes)
        try:
            spec = Spec(params, length, n_tokens, many=many, lanes=lanes)
            return build_value_and_grad(loss, spec)
        except (NotFusible, CannotBuild) as why:
            if not fallback:
                raise
            warnings.warn(
                f"XLA computes this loss, because the fused engine can't: {why}", stacklevel=4
            )
            return jax.vmap(by_xla) if many else by_xla

    def call(params: Any, tokens: Tokens, many: bool) -> tuple[Float[Array, "*models"], Any]:
        leaves, structure = jax.tree.flatten(params)
        n_model_axes = 1 if many else 0
        shapes = tuple(
            jax.ShapeDtypeStruct(jnp.shape(leaf)[n_model_axes:], jnp.result_type(leaf))
            for leaf in leaves
        )
        return for_shapes(structure, shapes, jnp.shape(tokens)[-1], many)(params, tokens)

    @custom_vmap
    def value_and_grad(params: Any, tokens: Tokens) -> tuple[Float[Array, ""], Any]:
        return call(params, tokens, many=False)

    @value_and_grad.def_vmap
    def _(n: int, batched: Any, params: Any, tokens: Tokens) -> Any:
        params, tokens = jax.tree.map(
            lambda x, has_models: x if has_models else jnp.broadcast_to(x, (n, *jnp.shape(x))),
            (params, tokens),
            tuple(batched),
        )
        results = call(params, tokens, many=True)
        return results, jax.tree.map(lambda _: True, results)

    return value_and_grad


def build_value_and_grad(loss: Loss, spec: Spec, keep: Keep = make) -> ValueAndGrad:
    """Compile a loss and its gradient for the sizes in `spec`; check the gradient against XLA's.

    Args:
        loss: see `fused_value_and_grad`.
        spec: the parameters, examples and vectors to compile for.
        keep: where the verified source is kept; by default nowhere.

    Raises:
        NotFusible: if the loss can't be fused, or its gradient differs from XLA's.
        CannotBuild: without a compiler that works.
    """

    def verified_source() -> str:
        program = trace(jax.value_and_grad(loss), spec)
        source = gradient_source(program, spec)
        value_and_grad = value_and_grad_of(source, spec)
        verify_gradient(value_and_grad, loss, spec, (source, program.origin))
        return source

    return value_and_grad_of(keep("gradient", verified_source), spec)


def value_and_grad_of(source: str, spec: Spec) -> ValueAndGrad:
    """Compile C++ source; return a JAX function that calls the C++ function ``value_and_grad``."""
    target = ffi_target(source, "value_and_grad")
    leaves, structure = jax.tree.flatten(spec.params)

    def value_and_grad(params: Any, tokens: Tokens) -> tuple[Float[Array, "*models"], Any]:
        models = jnp.shape(tokens)[:1] if spec.many else ()
        results = [
            jax.ShapeDtypeStruct((*models, *shape), spec.dtype)
            for shape in ((), *(leaf.shape for leaf in leaves))
        ]
        call = jax.ffi.ffi_call(target, results, vmap_method="broadcast_all")
        value, *gradient = call(*jax.tree.leaves(params), jnp.asarray(tokens, jnp.int32))
        return value, jax.tree.unflatten(structure, gradient)

    return value_and_grad


def verify_gradient(
    value_and_grad: ValueAndGrad, loss: Loss, spec: Spec, evidence: tuple[str, ...]
) -> None:
    """Check that a compiled gradient agrees with the one that XLA computes, on two random models.

    Raises:
        NotFusible: if they differ by more than rounding.
    """
    rng = np.random.default_rng(0)

    def draw_params() -> Any:
        return jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(x.dtype), spec.params)

    models = [draw_params(), draw_params()]
    tokens = rng.integers(0, spec.n_tokens, (2, *spec.check_shape), np.int32)

    def stack(trees: Any) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def fused(models: list[Any], tokens: Tokens) -> Any:
        if spec.many:
            return value_and_grad(stack(models), tokens)
        return stack(map(value_and_grad, models, tokens))

    def expected(models: list[Any], tokens: Tokens) -> Any:
        return stack(map(jax.value_and_grad(loss), models, tokens))

    require_agreement("gradient", fused, expected, (models, tokens), evidence)
