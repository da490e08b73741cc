"""Components of the residual stream: labelled outputs of embeddings, heads, neurons and layers."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jax_revinc.activations.cached_activations import CachedActivations
from jax_revinc.slices import Slice
from revinc import HookedTransformerConfig

Stack = Float[Array, "components *batch pos d_model"]

EVERY = Slice()
"""All positions, or all neurons."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["stack"], meta_fields=["labels"])
@dataclass(frozen=True)
class Block:
    """A stack of labelled components of the residual stream; a pytree, so jit can return it."""

    labels: tuple[str, ...]
    stack: Stack


def embeddings(cache: CachedActivations, positions: Slice = EVERY) -> list[Block]:
    """The cached embeddings that are added to the residual stream, as components."""
    names = ["embed"] if cache.has_embed else []
    names += ["pos_embed"] if cache.has_pos_embed and cache.cfg.has_positions_in_stream else []
    return [of_stream(cache, name, f"hook_{name}", positions) for name in names]


def layer_output(
    cache: CachedActivations, layer: int, name: str, positions: Slice = EVERY
) -> Block:
    """The output of a layer's attention ("attn_out") or MLP ("mlp_out"), with its label."""
    return of_stream(cache, f"{layer}_{name}", f"blocks.{layer}.hook_{name}", positions)


def of_stream(cache: CachedActivations, label: str, hook: str, positions: Slice = EVERY) -> Block:
    """An activation as wide as the residual stream, as one component."""
    return Block((label,), positions.apply(cache[hook], -2, "position")[None])


def everywhere(label: str, bias: Float[Array, " d_model"], shape: tuple[int, ...]) -> Block:
    """A bias as a component of the residual stream, repeated to a `shape` [batch, pos, d_model]."""
    return Block((label,), jnp.broadcast_to(bias, (1, *shape)))


def head_labels(cfg: HookedTransformerConfig, layer: int) -> tuple[str, ...]:
    """The labels of a layer's heads: "L0H0", ..."""
    return tuple(f"L{layer}H{head}" for head in range(cfg.n_heads))


def head_results(cache: CachedActivations, layer: int) -> Block:
    """The outputs of a layer's heads: each one's ``hook_z`` times its weight W_O."""
    W_O_HEM = cache.known_model().blocks[layer].attn.W_O[...]
    results = jnp.einsum("...he,hem->h...m", cache["z", layer], W_O_HEM)
    return Block(head_labels(cache.cfg, layer), results)


def remainder(resid: Float[Array, "*batch pos d_model"], blocks: Iterable[Block]) -> Block:
    """The rest of a residual stream beside the components in `blocks`."""
    return Block(("remainder",), (resid - sum(block.stack.sum(0) for block in blocks))[None])


def concatenate(blocks: list[Block]) -> Block:
    """Join several `Block` objects, components of the residual stream, into one."""
    return Block(
        tuple(label for block in blocks for label in block.labels),
        jnp.concatenate([block.stack for block in blocks]),
    )
