"""A drop-in for `jax.value_and_grad` of a loss over examples, compiled to straight-line vector code."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import custom_vmap
from jaxtyping import Float, Int

from jax_revinc.engines.fused.agreement import require_agreement
from jax_revinc.engines.fused.compiler import CannotBuild
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.front import trace
from jax_revinc.engines.fused.source import gradient_source, layout_of
from jax_revinc.engines.fused.target import registered

Tokens = Int[Array, "batch seq"]

Loss = Callable[[Any, Tokens], Float[Array, ""]]
"""From parameters (any pytree) and token ids to their mean loss over the examples."""

ValueAndGrad = Callable[[Any, Tokens], tuple[Float[Array, ""], Any]]


def fused_value_and_grad(
    loss: Loss, n_tokens: int, *, lanes: int | None = None, fallback: bool = True
) -> ValueAndGrad:
    """`jax.value_and_grad` of `loss`, as one compiled program for the CPU.

    The result may be called inside `jax.jit`, loops and `jax.vmap`. Examples share vectors, or, within `vmap`,
    models do: then what becomes of a model depends on no other. It is built when it is first called with parameters
    of some shapes, which takes seconds, once per machine, and twice as many where `vmap` is in play.

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
    def for_shapes(
        structure: Any, shapes: tuple[Any, ...], length: int, many: bool
    ) -> ValueAndGrad:
        params = jax.tree.unflatten(structure, shapes)
        try:
            return build(loss, params, length, n_tokens, lanes, many=many)
        except (NotFusible, CannotBuild) as why:
            if not fallback:
                raise
            warnings.warn(f"XLA runs this loss, for it can't be fused: {why}", stacklevel=4)
            return jax.vmap(by_xla) if many else by_xla

    def called(params: Any, tokens: Tokens, many: bool) -> tuple[Float[Array, "*models"], Any]:
        leaves, structure = jax.tree.flatten(params)
        own = [jnp.shape(leaf)[many:] for leaf in leaves]
        shapes = tuple(
            jax.ShapeDtypeStruct(shape, jnp.result_type(leaf))
            for shape, leaf in zip(own, leaves, strict=True)
        )
        return for_shapes(structure, shapes, jnp.shape(tokens)[-1], many)(params, tokens)

    @custom_vmap
    def value_and_grad(params: Any, tokens: Tokens) -> tuple[Float[Array, ""], Any]:
        return called(params, tokens, many=False)

    @value_and_grad.def_vmap
    def _(n: int, batched: Any, params: Any, tokens: Tokens) -> Any:
        params, tokens = with_models(n, batched, (params, tokens))
        results = called(params, tokens, many=True)
        return results, jax.tree.map(lambda _: True, results)

    return value_and_grad


def with_models(n: int, batched: Any, args: Any) -> Any:
    """Arguments under `vmap`, those without an axis of n models repeated along one."""
    return jax.tree.map(
        lambda x, has_axis: x if has_axis else jnp.broadcast_to(x, (n, *jnp.shape(x))),
        args,
        tuple(batched),
    )


def build(
    loss: Loss,
    params: Any,
    length: int,
    n_tokens: int,
    lanes: int | None = None,
    *,
    many: bool = False,
) -> ValueAndGrad:
    """`fused_value_and_grad` for parameters of given shapes and types, or an error.

    Args:
        many: whether parameters and tokens will have an axis of models first.

    Raises:
        NotFusible: if the loss can't be fused, or if its gradient turns out to differ from XLA's.
        CannotBuild: without a compiler that works.
    """
    layout = layout_of(params, lanes, many)
    program = trace(jax.value_and_grad(loss), params, length, n_tokens)
    source = gradient_source(program, layout)
    value_and_grad = gradient_call(source, params, many)
    examples = (layout.lanes + 1, length)
    check(value_and_grad, loss, params, examples, n_tokens, many, (source, program.origin))
    return value_and_grad


def gradient_call(source: str, params: Any, many: bool) -> ValueAndGrad:
    """The call of a source's ``value_and_grad``."""
    target = registered(source, "value_and_grad")
    leaves, structure = jax.tree.flatten(params)

    def value_and_grad(params: Any, tokens: Tokens) -> tuple[Float[Array, "*models"], Any]:
        models = jnp.shape(tokens)[:1] if many else ()
        results = [
            jax.ShapeDtypeStruct((*models, *shape), leaves[0].dtype)
            for shape in ((), *(leaf.shape for leaf in leaves))
        ]
        call = jax.ffi.ffi_call(target, results, vmap_method="broadcast_all")
        value, *gradient = call(*jax.tree.leaves(params), jnp.asarray(tokens, jnp.int32))
        return value, jax.tree.unflatten(structure, gradient)

    return value_and_grad


def check(
    fused: ValueAndGrad,
    loss: Loss,
    params: Any,
    examples: tuple[int, int],
    n_tokens: int,
    many: bool,
    evidence: tuple[str, ...],
) -> None:
    """Compare a gradient with XLA's on two random models.

    Raises:
        NotFusible: if they differ by more than rounding.
    """
    rng = np.random.default_rng(0)
    models = [
        jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(x.dtype), params) for _ in "ab"
    ]
    tokens = rng.integers(0, n_tokens, (2, *examples), np.int32)

    def both(models: list[Any], tokens: Tokens) -> tuple[Any, Any]:
        def stacked(trees: Iterable[Any]) -> Any:
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

        found = fused(stacked(models), tokens) if many else stacked(map(fused, models, tokens))
        return found, stacked(map(jax.value_and_grad(loss), models, tokens))

    require_agreement("its gradient", both, (models, tokens), evidence)
