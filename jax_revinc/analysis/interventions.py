"""Sweeps: run a model once for each part of an activation (a site), with that part replaced."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.analysis.simd_vmap import simd_vmap
from jax_revinc.model import HookedTransformer

Measure = Callable[[Float[Array, "batch pos d_vocab_out"]], Any]
"""A function from the logits to an array, or a pytree of arrays."""


class Sites(NamedTuple):
    """The parts of an activation that a sweep replaces in turn.

    Attributes:
        hook: the activation's full name.
        axes: a site is one index along each of these axes; without axes, the whole activation.
    """

    hook: str
    axes: tuple[int, ...]


def sweep(
    model: HookedTransformer,
    tokens: Int[Array, "batch pos"],
    sites: Sequence[Sites],
    replacements: Mapping[str, Array],
    measure: Measure,
    in_lanes: bool = True,
) -> Any:
    """Run the model once per site (part of an activation), with it replaced; measure the logits.

    All sites share one program, which selects the site while it runs. XLA hoists what comes before
    the first hook of `sites` out of the loop, so a sweep per hook runs faster, and takes longer to
    compile, than one over many.

    Args:
        model: the model.
        tokens: the ids fed, [batch, pos].
        sites: the sites to replace, one per run.
        replacements: by hook, an array of the activation's shape to replace it with.
        measure: the function of the logits to return.
        in_lanes: whether to use `run_in_lanes`: a tiny model runs faster then, and takes longer to
            trace and compile.

    Returns:
        The results of `measure`, with a first axis that counts the sites: those of the first
        `Sites` in the order of their indices (the last axis changes fastest), then those of the
        second, ...
    """
    used = {hook: replacements[hook] for hook, _ in sites}

    def measure_one(selected: Int[Array, " number_and_indices"]) -> Any:
        def run_one(model: HookedTransformer, each: tuple[Array, dict[str, Array]]) -> Array:
            tokens_BP, replacements = each

            def tap(name: str, activation: Array) -> Array:
                for number, (hook, axes) in enumerate(sites):
                    # A norm may run on inputs of several shapes; the cache holds the last one's.
                    if name == hook and activation.shape == replacements[hook].shape:
                        touched = selects(selected, number, axes, activation.shape)
                        activation = jnp.where(touched, replacements[hook], activation)
                return activation

            return model(tokens_BP, tap=tap)

        run = run_in_lanes if in_lanes else run_batch
        return measure(run(run_one, model, (tokens, used)))

    # A loop, not a vmap: one run's activations stay in the processor's cache.
    return jax.lax.map(measure_one, jnp.asarray(site_table(sites, replacements)))


def site_table(
    sites: Sequence[Sites], replacements: Mapping[str, Array]
) -> Int[np.ndarray, "site number_and_indices"]:
    """A row per site (part of an activation) of a sweep: the activation's number and indices."""
    rows = [
        (number, *index)
        for number, (hook, axes) in enumerate(sites)
        for index in np.ndindex(*(replacements[hook].shape[axis] for axis in axes))
    ]
    return np.array(list(itertools.zip_longest(*rows, fillvalue=0)), np.int32).T


def selects(
    selected: Int[Array, " number_and_indices"],
    number: int,
    axes: tuple[int, ...],
    shape: tuple[int, ...],
) -> Bool[Array, " *shape"]:
    """The mask of an activation's entries that a sweep replaces in one of its runs."""
    touched = jnp.broadcast_to(selected[0] == number, shape)
    for i, axis in enumerate(axes, start=1):
        touched &= jax.lax.broadcasted_iota(selected.dtype, shape, axis) == selected[i]
    return touched


def run_batch(
    run: Callable[[HookedTransformer, Any], Any], model: HookedTransformer, inputs: Any
) -> Any:
    """Compute ``run(model, inputs)`` as it is."""
    return run(model, inputs)


def run_in_lanes(
    run: Callable[[HookedTransformer, Any], Any], model: HookedTransformer, inputs: Any
) -> Any:
    """Compute ``run(model, inputs)`` with the elements of the batch side by side in SIMD lanes.

    `simd_vmap` runs each element as a batch of one.

    Args:
        run: a function that treats all elements of the batch alike.
        model: the model.
        inputs: a pytree of arrays [batch, ...].
    """

    def run_one(model: HookedTransformer, each: Any) -> Any:
        batch_of_one = jax.tree.map(lambda x: x[None], each)
        outputs = run(model, batch_of_one)
        return jax.tree.map(lambda x: x[0], outputs)

    last = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), inputs)
    outputs = simd_vmap(run_one)(model, last)
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), outputs)
