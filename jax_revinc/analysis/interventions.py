"""Sweeps: one run repeated, each time with another part of an activation replaced."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.analysis.lanes import lanes
from jax_revinc.model import HookedTransformer
from jax_revinc.objective import Params

Measure = Callable[[Float[Array, "batch pos d_vocab_out"]], Any]
"""What is kept of a run's logits: a function to an array or a pytree of arrays."""


class Sites(NamedTuple):
    """The parts of an activation that a sweep replaces in turn.

    Attributes:
        hook: the activation's full name.
        axes: a site is one index along each of these axes; with none, it is the whole activation.
    """

    hook: str
    axes: tuple[int, ...]


def sweep(
    model: HookedTransformer,
    tokens: Int[Array, "batch pos"],
    sites: Sequence[Sites],
    replacements: Mapping[str, Array],
    measure: Measure,
) -> Any:
    """What `measure` makes of the logits when a site is replaced, for every site of `sites`.

    All sites share one program, which selects the site while it runs. It does without what comes before the
    first hook of `sites`, so a sweep per hook runs faster, and takes longer to compile, than one over many.

    Args:
        model: the model.
        tokens: what it is fed.
        sites: what to replace, one site per run.
        replacements: by hook, what to replace it with, in the activation's shape.
        measure: what to keep of a run's logits.

    Returns:
        What `measure` returned, with an axis in front that counts the sites: those of the first `Sites` in the
        order of their indices (the last axis changes fastest), then those of the second, and so on.
    """
    used = {hook: replacements[hook] for hook, _ in sites}

    def measure_one(selected: Int[Array, " number_and_indices"]) -> Any:
        def run_one(model: HookedTransformer, each: tuple[Array, dict[str, Array]]) -> Array:
            tokens_BP, replacements = each

            def tap(name: str, activation: Array) -> Array:
                for number, (hook, axes) in enumerate(sites):
                    # A norm may see several inputs; the cache, and so the sweep, has those of the last one's shape.
                    if name == hook and activation.shape == replacements[hook].shape:
                        touched = selects(selected, number, axes, activation.shape)
                        activation = jnp.where(touched, replacements[hook], activation)
                return activation

            return model(tokens_BP, tap=tap)

        return measure(run_in_lanes(run_one, model, (tokens, used)))

    # A loop, not a vmap: one run's activations stay in the processor's cache.
    return jax.lax.map(measure_one, jnp.asarray(site_table(sites, replacements)))


def site_table(
    sites: Sequence[Sites], replacements: Mapping[str, Array]
) -> Int[np.ndarray, "site number_and_indices"]:
    """For every site the number of its `Sites` and its index along each axis, padded with zeros."""
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
    """Where an activation of that shape is replaced, if the row `selected` of a `site_table` is due."""
    touched = jnp.broadcast_to(selected[0] == number, shape)
    for i, axis in enumerate(axes, start=1):
        touched &= jax.lax.broadcasted_iota(selected.dtype, shape, axis) == selected[i]
    return touched


def run_in_lanes(
    run: Callable[[HookedTransformer, Any], Any], model: HookedTransformer, inputs: Any
) -> Any:
    """``run(model, inputs)``, computed for a batch of one at a time, side by side in `lanes`.

    Args:
        run: a function that treats each element of the batch alike.
        model: the model.
        inputs: what `run` is given, a pytree of arrays [batch, ...].
    """

    def run_one(params: Params, each: Any) -> Any:
        batch_of_one = jax.tree.map(lambda x: x[None], each)
        outputs = run(HookedTransformer(model.cfg, params=params), batch_of_one)
        return jax.tree.map(lambda x: x[0], outputs)

    last = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), inputs)
    outputs = lanes(run_one)(model.params, last)
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), outputs)
